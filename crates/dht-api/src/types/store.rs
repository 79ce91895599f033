//! Messages that the node stores for offline peers.

use dht_core::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Version, text};

/// One mailbox: the messages stored for one recipient.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Mailbox {
    /// Key of the recipient; absent for messages without a recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Number of messages.
    pub messages: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Of the messages, those that are evicted first.
    pub low_priority: u64,
    /// Time at which the oldest message was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<u64>,
    /// Time at which the newest message was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_at: Option<u64>,
}

/// Mailboxes by key of the recipient.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MailboxList {
    /// Version of the API.
    pub version: Version,
    /// The mailboxes.
    pub mailboxes: Vec<Mailbox>,
}

/// A message in a mailbox. Its content is encrypted and never shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoredMessage {
    /// Number of the message in this store.
    pub id: u64,
    /// Time at which it was stored.
    pub stored_at: u64,
    /// Last second in which it is served.
    pub keep_until: u64,
    /// Whether it is evicted before others.
    pub low_priority: bool,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// The messages of one mailbox, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoredMessages {
    /// Version of the API.
    pub version: Version,
    /// The messages.
    pub messages: Vec<StoredMessage>,
}

/// Stored messages to delete, the body of `POST /v1/store/purge`. Exactly one field is given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// Whether to delete every message.
    #[serde(default)]
    pub all: bool,
    /// Whether to delete the messages whose lifetime is over.
    #[serde(default)]
    pub expired: bool,
    /// Recipient whose mailbox to delete.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub recipient: Option<PublicKey>,
}

/// Answer to a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Purged {
    /// Version of the API.
    pub version: Version,
    /// Number of messages deleted.
    pub purged: u64,
}
