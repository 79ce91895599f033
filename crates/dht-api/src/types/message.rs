//! Messages to be sent.

use std::num::NonZeroU8;

use bytes::Bytes;
use dht_core::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Version, key,
    payload::{Base64, PayloadError, content},
};

/// Longest time for which a message is tried, and the default: 3 days in seconds, as long as mailbox holders keep it.
pub const MAX_TTL_SECONDS: u64 = 3 * 24 * 60 * 60;

/// A message to send, the body of `POST /v1/messages`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// Public key of the recipient.
    #[serde(with = "key")]
    #[schema(value_type = String)]
    pub to: PublicKey,
    /// Type number, which the application chooses. Defaults to 0.
    #[serde(default)]
    pub message_type: i32,
    /// Content as text; excludes `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Content in base64; excludes `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Base64>,
    /// Seconds for which the message is tried, 1 to 259 200. Defaults to 259 200, 3 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 259200)]
    pub ttl_seconds: Option<u64>,
    /// Whether it goes to the recipient only, never to mailbox holders. Defaults to false.
    #[serde(default)]
    pub direct_only: bool,
    /// Number of mailbox holders that should keep a copy, 1 to 255; for none say `direct_only`. Defaults to the node's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u8>, minimum = 1, maximum = 255)]
    pub replicas: Option<NonZeroU8>,
    /// Idempotency key, 1 to 128 bytes, as the header `Idempotency-Key`: the same message with the same key is
    /// sent once and answered with the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128)]
    pub key: Option<String>,
}

/// State of an outgoing message; later states of this list replace earlier ones, never the reverse.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageState {
    /// No copy was sent yet.
    Queued,
    /// A copy was handed to a connection; nobody confirmed it. Ended if the message has `ended_at`: to a peer that gives no
    /// receipts.
    Sent,
    /// Mailbox holders confirmed a copy. Ended if the message has `ended_at`: as many as were wanted.
    Stored,
    /// It could not be sent, or was withdrawn. Ended.
    Failed,
    /// Its time to live passed. Ended.
    Expired,
    /// The recipient's node confirmed it. Ended.
    Received,
}

/// An outgoing message and its state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct OutgoingMessage {
    /// Version of the API.
    pub version: Version,
    /// Id of the message at this node.
    pub id: u64,
    /// Idempotency key that the request gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Public key of the recipient.
    #[serde(with = "key")]
    #[schema(value_type = String)]
    pub to: PublicKey,
    /// Number of the message type.
    pub message_type: i32,
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
    /// State of the message.
    pub state: MessageState,
    /// Number of mailbox holders that confirmed a copy, in the state `stored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<u32>,
    /// Reason, in the state `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the request.
    pub created_at: u64,
    /// Last second in which the message is tried.
    pub expires_at: u64,
    /// Time at which it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// Attempts that ended before the recipient confirmed the message: 0 if it confirmed the first at once.
    pub attempts: u32,
    /// Time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<u64>,
    /// Error of the last failed attempt, or why mailbox holders take no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A page of outgoing messages, by id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MessageList {
    /// Version of the API.
    pub version: Version,
    /// Messages of the outbox, by id.
    pub messages: Vec<OutgoingMessage>,
    /// Value of `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A clear, unsigned message for many nodes, the body of `POST /v1/gossip`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGossip {
    /// Type number, which the application chooses. Defaults to 0.
    #[serde(default)]
    pub message_type: i32,
    /// Content as text; excludes `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Content in base64; excludes `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Base64>,
}

/// Outcome of a gossip message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct GossipReport {
    /// Version of the API.
    pub version: Version,
    /// Number of connected peers it was queued for.
    pub peers: u64,
}

impl NewMessage {
    /// A text message with default options.
    #[must_use]
    pub fn text(to: PublicKey, text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::empty(to)
        }
    }

    /// A message of any bytes with default options.
    #[must_use]
    pub fn bytes(to: PublicKey, payload: impl Into<Bytes>) -> Self {
        Self {
            payload: Some(Base64(payload.into())),
            ..Self::empty(to)
        }
    }

    const fn empty(to: PublicKey) -> Self {
        Self {
            to,
            message_type: 0,
            text: None,
            payload: None,
            ttl_seconds: None,
            direct_only: false,
            replicas: None,
            key: None,
        }
    }

    /// The content.
    ///
    /// # Errors
    /// [`PayloadError`] unless exactly one of `text` and `payload` is given.
    pub fn content(&mut self) -> Result<Bytes, PayloadError> {
        content(self.text.take(), self.payload.take())
    }
}

impl NewGossip {
    /// The content.
    ///
    /// # Errors
    /// [`PayloadError`] unless exactly one of `text` and `payload` is given.
    pub fn content(&mut self) -> Result<Bytes, PayloadError> {
        content(self.text.take(), self.payload.take())
    }
}

impl MessageState {
    /// Name of the state, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Stored => "stored",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Received => "received",
        }
    }

    /// Whether no message in this state is tried any more. One that is sent or stored has ended if it has `ended_at`.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Received)
    }
}
