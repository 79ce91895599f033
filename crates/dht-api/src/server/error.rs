//! Errors as responses.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use dht_core::error_chain;
use dht_mailbox::StoreError;
use dht_node::{AllowError, SendError, SubmitError};
use dht_spool::SpoolError;
use serde::Serialize;

use crate::types::{ErrorBody, ErrorCode};

/// An error for a client.
#[derive(Debug)]
pub(super) struct ApiError(Box<ErrorBody>);

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorBody::new(code, message)))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.error.hint = Some(hint.into());
        self
    }

    pub(super) fn body(&self) -> &ErrorBody {
        &self.0
    }

    /// Of a request that does not show the token.
    pub(super) fn unauthorized() -> Self {
        let message = "the bearer token is missing or wrong";
        Self::new(ErrorCode::Unauthorized, message)
            .with_hint("send `Authorization: Bearer TOKEN` with the content of the token file")
    }

    /// Of a part that a node without a home lacks.
    pub(super) fn no_home() -> Self {
        Self::new(ErrorCode::NoHome, "the node has no inbox and outbox")
            .with_hint("run it with a home: `dht-node run --home DIRECTORY`")
    }

    /// Of a node that has nobody to send to or to ask.
    pub(super) fn nobody_connected(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NobodyConnected, message)
            .with_hint("connect to a node: POST /v1/ping with KEY::ADDRESS")
    }

    /// Of a node that stores nothing for others.
    pub(super) fn no_store() -> Self {
        Self::new(
            ErrorCode::Disabled,
            "the node stores no messages for offline peers",
        )
        .with_hint("set saf.enabled in its configuration")
    }
}

const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::NotFound | ErrorCode::UnknownPeer => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::KeyReused | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::TooManyStreams => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::PeerFailed => StatusCode::BAD_GATEWAY,
        ErrorCode::NoHome
        | ErrorCode::Disabled
        | ErrorCode::NobodyConnected
        | ErrorCode::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A JSON response of few bytes. Nothing of what it says is in a header.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => json_bytes(status, body.into()),
        // Only a map with keys that are no strings cannot be written; there is none.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A response of these bytes, which are JSON.
pub(super) fn json_bytes(status: StatusCode, body: Bytes) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(status(self.0.error.code), &*self.0);
        if self.0.error.code == ErrorCode::Unauthorized {
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            // A client without the token keeps none of the connections.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<SpoolError> for ApiError {
    fn from(error: SpoolError) -> Self {
        let (code, hint) = match &error {
            SpoolError::Full | SpoolError::ShareFull => (
                ErrorCode::Full,
                Some("ack messages, or wait until some have ended"),
            ),
            SpoolError::RecipientFull => (
                ErrorCode::Full,
                Some(
                    "wait until some messages for this recipient have ended, or withdraw some that are queued: DELETE /v1/messages/ID",
                ),
            ),
            SpoolError::DiskFull => (ErrorCode::Full, Some("make room on the disk")),
            SpoolError::TooLarge { .. } => (ErrorCode::TooLarge, None),
            SpoolError::UnknownConsumer => (
                ErrorCode::NotFound,
                Some("add it with POST /v1/inbox/consumers"),
            ),
            SpoolError::UnknownId => (ErrorCode::NotFound, None),
            SpoolError::InvalidName => (
                ErrorCode::BadRequest,
                Some("a name has 1 to 64 printable ASCII characters"),
            ),
            SpoolError::InvalidKey => (
                ErrorCode::BadRequest,
                Some("an idempotency key has 1 to 128 bytes"),
            ),
            SpoolError::KeyReused => (
                ErrorCode::KeyReused,
                Some("use a new key for a new message"),
            ),
            SpoolError::LastConsumer => (ErrorCode::Conflict, Some("add another consumer first")),
            SpoolError::TooManyConsumers => (
                ErrorCode::Conflict,
                Some("remove a consumer that is not used"),
            ),
            SpoolError::TooManyAcks => (ErrorCode::Conflict, Some("ack older messages first")),
            SpoolError::Ended => (ErrorCode::Conflict, None),
            SpoolError::Closed => (ErrorCode::Stopping, None),
            _ => (ErrorCode::Internal, Some("see the log of the node")),
        };
        if code == ErrorCode::Internal {
            tracing::error!(%error, "inbox or outbox failed");
        }
        let body = Self::new(code, error.to_string());
        match hint {
            Some(hint) => body.with_hint(hint),
            None => body,
        }
    }
}

impl From<AllowError> for ApiError {
    fn from(error: AllowError) -> Self {
        match &error {
            AllowError::Full(_) => Self::new(ErrorCode::Conflict, error_chain(&error))
                .with_hint("take a peer off the list first"),
            _ => Self::new(ErrorCode::Internal, error_chain(&error))
                .with_hint("see the log of the node"),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::new(ErrorCode::Stopping, error.to_string()),
            error => {
                tracing::error!(%error, "store of messages for offline peers failed");
                Self::new(ErrorCode::Internal, error_chain(&error))
                    .with_hint("see the log of the node")
            }
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let message = error_chain(&error);
        match error {
            SendError::TooLarge { .. } => Self::new(ErrorCode::TooLarge, message),
            SendError::NotFound => Self::new(ErrorCode::UnknownPeer, message),
            SendError::NobodySelected => Self::nobody_connected(message),
            SendError::Closed => Self::new(ErrorCode::Stopping, message),
            SendError::Seal(_) => Self::new(ErrorCode::BadRequest, message),
            _ => Self::new(ErrorCode::PeerFailed, message),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Send(error) => error.into(),
            SubmitError::Outbox(error) => error.into(),
            SubmitError::Banned { .. } => Self::new(ErrorCode::PeerFailed, error_chain(&error))
                .with_hint("see DELETE /v1/bans/{peer}"),
            error => Self::new(ErrorCode::Internal, error_chain(&error)),
        }
    }
}
