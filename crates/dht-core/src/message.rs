//! Vocabulary the stacks share: what kind of message, from whom, to whom, and what became of it.

use std::fmt;

use dht_proto::envelope::DhtMessageType;

use crate::{Features, NodeId, PublicKey};

/// A random number that follows a message through logs. Not signed: never key anything on it (law 8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MessageTag(pub u64);

impl fmt::Display for MessageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag#{:016x}", self.0)
    }
}

/// What a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MessageType {
    /// An application's own message ("domain message").
    #[default]
    None,
    /// Announces a peer.
    Join,
    /// Looks for a peer.
    Discovery,
    /// Answers a [`MessageType::Discovery`].
    DiscoveryResponse,
    /// Asks for stored messages.
    SafRequestMessages,
    /// Hands over stored messages.
    SafStoredMessages,
}

impl MessageType {
    /// The number on the wire, if it is a known one.
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

    /// The number on the wire.
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

    /// An application's message.
    #[must_use]
    pub const fn is_domain(self) -> bool {
        matches!(self, Self::None)
    }

    /// Join, Discovery or its response.
    #[must_use]
    pub const fn is_dht(self) -> bool {
        matches!(self, Self::Join | Self::Discovery | Self::DiscoveryResponse)
    }

    /// A store-and-forward request or answer.
    #[must_use]
    pub const fn is_saf(self) -> bool {
        matches!(self, Self::SafRequestMessages | Self::SafStoredMessages)
    }

    /// May be passed on by a relay that cannot read it.
    #[must_use]
    pub const fn is_forwardable(self) -> bool {
        matches!(self, Self::None | Self::Join | Self::Discovery)
    }

    /// A short name for logs and metrics.
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

/// To whom a message is addressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Destination {
    /// Anybody, or somebody the relays shall not know.
    #[default]
    Unknown,
    /// The holder of this key.
    PublicKey(PublicKey),
}

impl Destination {
    /// The key, if there is one.
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

/// Whether to encrypt a message, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// Readable by every relay.
    #[default]
    Clear,
    /// Readable by the holder of this key only, sender hidden from everybody else.
    EncryptFor(PublicKey),
}

/// A neighbour whose key the transport has authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemotePeer {
    /// Its public key.
    pub public_key: PublicKey,
    /// The node id of that key.
    pub node_id: NodeId,
    /// What it says it offers.
    pub features: Features,
}

impl RemotePeer {
    /// A peer with the node id of its key.
    #[must_use]
    pub fn new(public_key: PublicKey, features: Features) -> Self {
        Self {
            public_key,
            node_id: public_key.node_id(),
            features,
        }
    }
}

/// What became of a received message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Disposition {
    /// The application has it.
    Delivered,
    /// Passed on to other peers.
    Forwarded,
    /// Kept for a peer that is away.
    Stored,
    /// A protocol message this node acted on.
    Answered,
    /// Let go.
    Dropped(DropReason),
}

/// Why a message was let go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// No bytes at all.
    Empty,
    /// Not the protobuf envelope, or over a limit.
    Undecodable,
    /// Differs from its own deterministic re-encoding.
    NotCanonical,
    /// A header field that does not convert.
    BadHeader,
    /// From a peer this node does not know.
    UnknownSource,
    /// Asks for a role this node does not have.
    RoleFilter,
    /// Past its time.
    Expired,
    /// Encrypted, but without what that takes.
    BadSemantics,
    /// The signature does not cover header and body.
    BadSignature,
    /// Addressed to this node, but does not open.
    Undecryptable,
    /// Clear, but the body is no envelope body.
    UndecodableBody,
    /// Seen before.
    Duplicate,
    /// Seen before, and must not be passed on again.
    Rebroadcast,
    /// Not readable here, and not to be passed on.
    NotForUs,
    /// A protocol message that breaks its own rules.
    BadProtocolMessage,
    /// Nobody signed it, but somebody should have.
    Unauthenticated,
    /// This node's own message came back.
    OwnMessage,
    /// From or about a banned peer.
    Banned,
    /// Asked for by nobody.
    Unrequested,
    /// The application did not want it.
    Refused,
    /// Room or rate ran out.
    Overload,
    /// A part of this node failed.
    Internal,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 22] = [
        Self::Empty,
        Self::Undecodable,
        Self::NotCanonical,
        Self::BadHeader,
        Self::UnknownSource,
        Self::RoleFilter,
        Self::Expired,
        Self::BadSemantics,
        Self::BadSignature,
        Self::Undecryptable,
        Self::UndecodableBody,
        Self::Duplicate,
        Self::Rebroadcast,
        Self::NotForUs,
        Self::BadProtocolMessage,
        Self::Unauthenticated,
        Self::OwnMessage,
        Self::Banned,
        Self::Unrequested,
        Self::Refused,
        Self::Overload,
        Self::Internal,
    ];

    /// Its place in [`ALL`](Self::ALL), for tables of counts.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Undecodable => "undecodable",
            Self::NotCanonical => "not_canonical",
            Self::BadHeader => "bad_header",
            Self::UnknownSource => "unknown_source",
            Self::RoleFilter => "role_filter",
            Self::Expired => "expired",
            Self::BadSemantics => "bad_semantics",
            Self::BadSignature => "bad_signature",
            Self::Undecryptable => "undecryptable",
            Self::UndecodableBody => "undecodable_body",
            Self::Duplicate => "duplicate",
            Self::Rebroadcast => "rebroadcast",
            Self::NotForUs => "not_for_us",
            Self::BadProtocolMessage => "bad_protocol_message",
            Self::Unauthenticated => "unauthenticated",
            Self::OwnMessage => "own_message",
            Self::Banned => "banned",
            Self::Unrequested => "unrequested",
            Self::Refused => "refused",
            Self::Overload => "overload",
            Self::Internal => "internal",
        }
    }
}

impl Disposition {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Forwarded => "forwarded",
            Self::Stored => "stored",
            Self::Answered => "answered",
            Self::Dropped(reason) => reason.name(),
        }
    }
}

/// How long an offence bans: specification 03, section 4.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// 10 minutes.
    Low,
    /// 10 minutes.
    Medium,
    /// 2 hours.
    High,
}

impl Severity {
    /// Default length of a ban, in seconds.
    #[must_use]
    pub const fn default_seconds(self) -> u64 {
        match self {
            Self::Low | Self::Medium => 600,
            Self::High => 7_200,
        }
    }
}

/// Which peers a message goes to: specification 04, section 3.
///
/// ```
/// use dht_core::{NodeId, Strategy};
///
/// let exclude = vec![NodeId::default()];
/// assert!(Strategy::DirectNodeId(NodeId::default()).is_direct());
/// assert_eq!(Strategy::Broadcast { exclude }.name(), "broadcast");
/// assert_eq!(Strategy::default(), Strategy::Flood { exclude: vec![] });
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// This peer, connected or not.
    DirectNodeId(NodeId),
    /// The peer with this key, connected or not.
    DirectPublicKey(PublicKey),
    /// All connected nodes.
    Flood {
        /// Never chosen.
        exclude: Vec<NodeId>,
    },
    /// A few connected nodes, at random.
    Broadcast {
        /// Never chosen.
        exclude: Vec<NodeId>,
    },
    /// Known nodes at random, connected or not.
    Random {
        /// How many.
        n: usize,
        /// Never chosen.
        exclude: Vec<NodeId>,
    },
    /// Exactly these, unchecked.
    SelectedPeers(Vec<NodeId>),
    /// The nodes closest to an id.
    ClosestNodes {
        /// The id.
        target: NodeId,
        /// Never chosen.
        exclude: Vec<NodeId>,
        /// Whether nodes that would have to be dialled are left out.
        connected_only: bool,
    },
    /// The peer itself if connected, else the nodes closest to it.
    DirectOrClosestNodes {
        /// The id.
        target: NodeId,
        /// Never chosen, unless it is the target itself.
        exclude: Vec<NodeId>,
        /// Whether nodes that would have to be dialled are left out.
        connected_only: bool,
    },
    /// Towards a destination, or outwards if there is none.
    Propagate {
        /// Towards whom.
        destination: Destination,
        /// Never chosen.
        exclude: Vec<NodeId>,
    },
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Flood {
            exclude: Vec::new(),
        }
    }
}

impl Strategy {
    /// Sent to one named peer.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::DirectNodeId(_) | Self::DirectPublicKey(_))
    }

    /// The key of [`Strategy::DirectPublicKey`].
    #[must_use]
    pub const fn direct_public_key(&self) -> Option<&PublicKey> {
        match self {
            Self::DirectPublicKey(key) => Some(key),
            _ => None,
        }
    }

    /// The id of [`Strategy::DirectNodeId`].
    #[must_use]
    pub const fn direct_node_id(&self) -> Option<&NodeId> {
        match self {
            Self::DirectNodeId(id) => Some(id),
            _ => None,
        }
    }

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DirectNodeId(_) => "direct_node_id",
            Self::DirectPublicKey(_) => "direct_public_key",
            Self::Flood { .. } => "flood",
            Self::Broadcast { .. } => "broadcast",
            Self::Random { .. } => "random",
            Self::SelectedPeers(_) => "selected_peers",
            Self::ClosestNodes { .. } => "closest_nodes",
            Self::DirectOrClosestNodes { .. } => "direct_or_closest_nodes",
            Self::Propagate { .. } => "propagate",
        }
    }
}

/// What is shed last and what first (law 3). The order of the variants is the order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Priority {
    /// Protocol answers.
    Control,
    /// Messages to one peer.
    Direct,
    /// Mail kept for a peer that was away.
    Stored,
    /// Messages passed on for others.
    Gossip,
}

impl Priority {
    /// Every priority, most important first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Direct, Self::Stored, Self::Gossip];

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Direct => "direct",
            Self::Stored => "stored",
            Self::Gossip => "gossip",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Tables of counts are made by place.
    #[test]
    fn every_reason_has_its_place_and_a_name_of_its_own() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
        let kept = [
            Disposition::Delivered,
            Disposition::Forwarded,
            Disposition::Stored,
            Disposition::Answered,
        ];
        let names = kept.map(Disposition::name).into_iter();
        let names = names.chain(DropReason::ALL.map(DropReason::name));
        assert_eq!(
            names.collect::<BTreeSet<_>>().len(),
            kept.len() + DropReason::ALL.len()
        );
    }
}
