//! The JSON of every request and response.
//!
//! - Every response object has `version`, the version of the API (1). A client refuses another.
//! - Times are seconds since 1970 in UTC, without leap seconds, as integers; their names end in `_at` or `until`.
//!   Durations are integers whose names end in their unit.
//! - Ids of messages are integers that grow and are never used again; 0 is none of them.
//! - Public keys and node ids are lower case hexadecimal: 64 and 26 digits.
//! - Payloads are base64 with padding (`payload`). A request may say `text` instead. A response adds `text` if the
//!   payload is UTF-8 and at most [`MAX_TEXT_BYTES`] long.
//! - A field without a value is left out of responses. Unknown fields of requests are refused, those of responses
//!   are to be ignored: later releases add some.

mod error;
mod inbox;
mod key;
mod message;
mod node;
mod payload;
mod peer;
mod store;
pub(crate) mod text;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        schema::{Schema, Type},
    },
};

pub use error::{ErrorBody, ErrorCode, ErrorInfo};
pub use inbox::{
    Ack, Arrival, ConsumerList, ConsumerState, DEFAULT_CONSUMER, InboxMessage, InboxPage,
    NewConsumer, StartAt,
};
pub use message::{
    GossipReport, MAX_TTL_SECONDS, MessageList, MessageState, NewGossip, NewMessage,
    OutgoingMessage,
};
pub use node::{
    DamagedFiles, Done, FetchReport, Health, InboxUsage, NodeConfig, NodeEvent, NodeEventKind,
    OutboxUsage, Problem, Status, StoreReport, StoreUsage, Totals,
};
pub use payload::{Base64, MAX_TEXT_BYTES, PayloadError};
pub use peer::{
    AllowList, AllowedPeer, BanEntry, BanList, DiscoverPeer, MAX_BAN_SECONDS, NewBan, PeerEntry,
    PeerFound, PeerList, PingPeer, Pong,
};
pub use store::{Mailbox, MailboxList, Purge, Purged, StoredMessage, StoredMessages};

/// Version of the API, part of every path and response.
pub const API_VERSION: u32 = 1;

/// The field `version` of a response: [`API_VERSION`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Version;

impl PartialSchema for Version {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .enum_values(Some([API_VERSION]))
            .into()
    }
}

impl ToSchema for Version {}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(API_VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            API_VERSION => Ok(Self),
            other => Err(D::Error::custom(format_args!(
                "version {other} of the API, this client speaks {API_VERSION}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
