//! Received messages as the application gets them.

use bytes::Bytes;
use dht_core::{DomainHeader, Message, NodeId, PublicKey};

/// A received message and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Authenticated origin; `None` if the message is clear and unsigned.
    pub sender: Option<PublicKey>,
    /// Connected peer that delivered the message to this node.
    pub via: NodeId,
    /// Type and content of the message.
    pub message: Message,
}

impl Received {
    /// Reads the parts of a message: by convention the first is a header, unless the sender left it out. `None` without
    /// any part.
    pub(crate) fn from_parts(
        parts: &[Bytes],
        sender: Option<PublicKey>,
        via: NodeId,
    ) -> Option<Self> {
        let first = parts.first()?;
        let header = DomainHeader::decode(first).unwrap_or_default();
        let payload = parts.get(1).unwrap_or(first).clone();
        Some(Self {
            sender,
            via,
            message: Message {
                message_type: header.message_type,
                payload,
            },
        })
    }
}
