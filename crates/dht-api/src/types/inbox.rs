//! Received messages.

use dht_core::{NodeId, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Version, key, payload::Base64, text};

/// Consumer that exists from the beginning.
pub const DEFAULT_CONSUMER: &str = "default";

/// A received message that a consumer has not acked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct InboxMessage {
    /// Version of the API.
    pub version: Version,
    /// Id of the message in this inbox, used to ack it.
    pub id: u64,
    /// Time at which this node received it.
    pub received_at: u64,
    /// Public key of the authenticated sender; absent if the message is anonymous.
    #[serde(with = "key::option", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<PublicKey>,
    /// Type number, which the sender chose.
    pub message_type: i32,
    /// Content in base64. The sender chose the bytes: escape them before they are shown.
    pub payload: Base64,
    /// Content as text, if it is UTF-8 and at most 64 KiB. The sender chose it, control characters included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Node id of the connected peer that handed the message to this node.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub via: NodeId,
    /// Path on which the message came.
    pub arrival: Arrival,
}

/// Path on which a message reached this node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Over a connection, from its sender or a forwarding node.
    Live,
    /// In a mailbox holder's answer.
    Stored,
}

/// A page of the messages that a consumer has not acked, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct InboxPage {
    /// Version of the API.
    pub version: Version,
    /// Name of the consumer.
    pub consumer: String,
    /// Messages of the page, oldest first.
    pub messages: Vec<InboxMessage>,
    /// Value of `after` for the next page; absent if this page is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Messages that a consumer is done with, the body of `POST /v1/inbox/ack`. One of `up_to` and `ids` is given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// Name of the consumer. Defaults to `default`.
    #[serde(default = "default_consumer")]
    pub consumer: String,
    /// Every message up to and including this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// These messages only, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub ids: Vec<u64>,
}

/// A consumer to add, the body of `POST /v1/inbox/consumers`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConsumer {
    /// Its name: 1 to 64 printable ASCII characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// Where it begins to read. Defaults to `oldest`.
    #[serde(default)]
    pub start: StartAt,
}

/// Where a new consumer begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// With the oldest message held.
    #[default]
    Oldest,
    /// With the next message received.
    Newest,
}

/// How far a consumer has read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConsumerState {
    /// Version of the API.
    pub version: Version,
    /// Name of the consumer.
    pub name: String,
    /// Every message up to this id is acked, or left.
    pub cursor: u64,
    /// Number of messages that it has not acked.
    pub pending: u64,
}

/// All consumers, by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConsumerList {
    /// Version of the API.
    pub version: Version,
    /// Consumers of the inbox, by name.
    pub consumers: Vec<ConsumerState>,
}

fn default_consumer() -> String {
    DEFAULT_CONSUMER.to_owned()
}

impl Ack {
    /// Acks every message up to and including `id`.
    #[must_use]
    pub fn up_to(consumer: impl Into<String>, id: u64) -> Self {
        Self {
            consumer: consumer.into(),
            up_to: Some(id),
            ids: Vec::new(),
        }
    }

    /// Acks one message.
    #[must_use]
    pub fn one(consumer: impl Into<String>, id: u64) -> Self {
        Self {
            consumer: consumer.into(),
            up_to: None,
            ids: vec![id],
        }
    }
}
