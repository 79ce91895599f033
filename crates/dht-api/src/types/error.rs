//! Errors in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Version;

/// Body of every response that is no success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Version of the API.
    pub version: Version,
    /// Code, message and hint of the error.
    pub error: ErrorInfo,
}

/// Code, message and hint of the error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorInfo {
    /// Name of the error, for programs.
    pub code: ErrorCode,
    /// The error, for people.
    pub message: String,
    /// Advice for people: how to repair the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Name of an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the request is not what the route takes.
    BadRequest,
    /// 401: the bearer token is missing or wrong.
    Unauthorized,
    /// 404: no such route, message, id, consumer or ban.
    NotFound,
    /// 404: no node has the key, or it was not found in time.
    UnknownPeer,
    /// 405: the route has no such method.
    MethodNotAllowed,
    /// 408: the body did not come in time.
    RequestTimeout,
    /// 409: the idempotency key stands for another message.
    KeyReused,
    /// 409: the request does not fit the state, such as removing the last consumer.
    Conflict,
    /// 413: the body or payload is too large.
    TooLarge,
    /// 415: the body has a content encoding; it is taken as plain JSON only.
    UnsupportedEncoding,
    /// 429: as many streams are open as are allowed.
    TooManyStreams,
    /// 502: the peer did not answer, or refused.
    PeerFailed,
    /// 503: the node runs without a home, so that it has no inbox and outbox.
    NoHome,
    /// 503: the part of the node is switched off.
    Disabled,
    /// 503: no node is connected.
    NobodyConnected,
    /// 503: the node is stopping.
    Stopping,
    /// 507: the inbox, the outbox or the disk is full.
    Full,
    /// 500: a failure of this machine.
    Internal,
    /// A code that this version of the client does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorBody {
    /// A body with this error.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            version: Version,
            error: ErrorInfo {
                code,
                message: message.into(),
                hint: None,
            },
        }
    }
}
