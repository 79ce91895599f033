//! Message types, and destinations of messages.

use std::fmt;

use dht_proto::envelope::DhtMessageType;

use crate::keys::PublicKey;

/// Random number that identifies a message in logs. It is not signed: nothing may be keyed by it (law 8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MessageTag(pub u64);

impl fmt::Display for MessageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag#{:016x}", self.0)
    }
}

/// Purpose of a message, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MessageType {
    /// A message of the application ("domain message").
    #[default]
    None,
    /// Announces a peer to the network.
    Join,
    /// Asks for the addresses of a peer.
    Discovery,
    /// Answers a [`MessageType::Discovery`].
    DiscoveryResponse,
    /// Asks for stored messages.
    SafRequestMessages,
    /// Answers a [`MessageType::SafRequestMessages`].
    SafStoredMessages,
}

impl MessageType {
    /// Reads the number of the header; `None` for an unknown one.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Some(match DhtMessageType::try_from(number).ok()? {
            DhtMessageType::None => Self::None,
            DhtMessageType::Join => Self::Join,
            DhtMessageType::Discovery => Self::Discovery,
            DhtMessageType::DiscoveryResponse => Self::DiscoveryResponse,
            DhtMessageType::SafRequestMessages => Self::SafRequestMessages,
            DhtMessageType::SafStoredMessages => Self::SafStoredMessages,
        })
    }

    /// The number that the header carries.
    #[must_use]
    pub const fn to_wire(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Join => 1,
            Self::Discovery => 2,
            Self::DiscoveryResponse => 3,
            Self::SafRequestMessages => 20,
            Self::SafStoredMessages => 21,
        }
    }

    /// Whether this is a message of the application.
    #[must_use]
    pub const fn is_domain(self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether this is a join, a discovery or a discovery response.
    #[must_use]
    pub const fn is_dht(self) -> bool {
        matches!(self, Self::Join | Self::Discovery | Self::DiscoveryResponse)
    }

    /// Whether this is a store-and-forward request or answer.
    #[must_use]
    pub const fn is_saf(self) -> bool {
        matches!(self, Self::SafRequestMessages | Self::SafStoredMessages)
    }

    /// Whether a relay that cannot read the message may pass it on.
    #[must_use]
    pub const fn is_forwardable(self) -> bool {
        matches!(self, Self::None | Self::Join | Self::Discovery)
    }

    /// Short name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "domain",
            Self::Join => "join",
            Self::Discovery => "discovery",
            Self::DiscoveryResponse => "discovery_response",
            Self::SafRequestMessages => "saf_request",
            Self::SafStoredMessages => "saf_stored",
        }
    }
}

/// Recipient named in a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Destination {
    /// No recipient is named: the message is for all nodes, or its recipient is hidden from relays.
    #[default]
    Unknown,
    /// The holder of this key.
    PublicKey(PublicKey),
}

impl Destination {
    /// Key of the recipient, if one is named.
    #[must_use]
    pub const fn public_key(&self) -> Option<&PublicKey> {
        match self {
            Self::Unknown => None,
            Self::PublicKey(key) => Some(key),
        }
    }

    /// The 33 bytes that enter the binding hash: all zero, or 1 and the key.
    #[must_use]
    pub fn to_hash_bytes(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        if let Self::PublicKey(key) = self {
            let (first, rest) = bytes.split_at_mut(1);
            first.fill(1);
            rest.copy_from_slice(key.as_bytes());
        }
        bytes
    }
}

/// Whether a message is encrypted, and for which key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// Every relay can read the message.
    #[default]
    Clear,
    /// Only the holder of this key can read the message and learn its sender.
    EncryptFor(PublicKey),
}
