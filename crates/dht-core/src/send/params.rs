//! How a message is sent: specification 04, section 2.

use std::sync::Arc;

use crate::{
    envelope::{Flags, Header},
    keys::PublicKey,
    message::{Destination, Encryption, MessageTag, MessageType},
    node_id::NodeId,
    priority::Priority,
    remote_peer::Deliverer,
    strategy::Strategy,
};

/// How a message is sent. Made with [`SendParams::builder`].
///
/// Specification 04, section 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendParams {
    /// Selects the recipients. Defaults to a flood without excluded peers.
    pub strategy: Strategy,
    /// Destination that the header names. Defaults to unknown.
    pub destination: Destination,
    /// Encryption of the body. Defaults to clear.
    pub encryption: Encryption,
    /// Whether a recipient that is not known may be searched for; direct sends to a key only. Off by default.
    pub discovery: bool,
    /// An application's message by default.
    pub message_type: MessageType,
    /// Further header flags. None by default.
    pub flags: Flags,
    /// A complete header in place of a computed one, for a body it already covers. None by default.
    pub header: Option<Box<Header>>,
    /// Whether a clear message is signed. Off by default.
    pub force_origin: bool,
    /// Trace id; a random one by default.
    pub tag: Option<MessageTag>,
    /// Place in the order of shedding; see [`SendParams::priority`] for the default.
    pub priority: Option<Priority>,
    /// Deliverer of the request that this message answers: the message takes room from the share of that deliverer, so
    /// that nobody who makes a node answer keeps the answers for others out. None by default.
    pub requester: Option<Deliverer>,
    /// Free text for the log.
    pub debug_info: Option<Arc<str>>,
}

/// Builds [`SendParams`]. Of several strategies the last one counts.
///
/// ```
/// use dht_core::{Destination, Encryption, SecretKey, SendParams};
///
/// let bob = SecretKey::from_bytes(&[2; 32]).unwrap_or_else(|_| unreachable!()).public_key();
/// let params = SendParams::builder()
///     .direct_public_key(bob)
///     .with_destination(Destination::PublicKey(bob))
///     .with_encryption(Encryption::EncryptFor(bob))
///     .with_discovery(true)
///     .finish();
/// assert!(params.strategy.is_direct());
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is finished"]
pub struct SendBuilder(SendParams);

impl SendParams {
    /// Starts with the defaults.
    pub fn builder() -> SendBuilder {
        SendBuilder::default()
    }

    /// When the message is shed. Unless set: messages of the protocol itself are control, everything else this node
    /// sends on its own behalf goes before what it passes on for others.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority.unwrap_or(match self.message_type {
            MessageType::None => Priority::Direct,
            _ => Priority::Control,
        })
    }
}

impl SendBuilder {
    /// To the peer with this key, connected or not.
    pub fn direct_public_key(self, key: PublicKey) -> Self {
        self.strategy(Strategy::DirectPublicKey(key))
    }

    /// To the peer with this node id, connected or not.
    pub fn direct_node_id(self, id: NodeId) -> Self {
        self.strategy(Strategy::DirectNodeId(id))
    }

    /// To the nodes closest to an id, some of which may have to be dialled.
    pub fn closest(self, target: NodeId, exclude: Vec<NodeId>) -> Self {
        self.strategy(Strategy::ClosestNodes {
            target,
            exclude,
            connected_only: false,
        })
    }

    /// Sends to exactly these peers.
    pub fn selected_peers(self, ids: Vec<NodeId>) -> Self {
        self.strategy(Strategy::SelectedPeers(ids))
    }

    /// To a few connected nodes.
    pub fn broadcast(self, exclude: Vec<NodeId>) -> Self {
        self.strategy(Strategy::Broadcast { exclude })
    }

    /// Towards a destination. Does not set the destination in the header.
    pub fn propagate(self, destination: Destination, exclude: Vec<NodeId>) -> Self {
        self.strategy(Strategy::Propagate {
            destination,
            exclude,
        })
    }

    /// To all connected nodes.
    pub fn flood(self, exclude: Vec<NodeId>) -> Self {
        self.strategy(Strategy::Flood { exclude })
    }

    /// To `n` known nodes at random, connected or not.
    pub fn random(self, n: usize) -> Self {
        self.strategy(Strategy::Random {
            n,
            exclude: Vec::new(),
        })
    }

    /// To whomever this strategy selects.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.0.strategy = strategy;
        self
    }

    /// Names the recipient in the header. Unknown by default.
    pub fn with_destination(mut self, destination: Destination) -> Self {
        self.0.destination = destination;
        self
    }

    /// Encrypts. An encrypted message must be addressed to the same key. Clear by default.
    pub fn with_encryption(mut self, encryption: Encryption) -> Self {
        self.0.encryption = encryption;
        self
    }

    /// Allows searching for a recipient that is not known. Off by default.
    pub fn with_discovery(mut self, discovery: bool) -> Self {
        self.0.discovery = discovery;
        self
    }

    /// Sets the type in the header. An application's message by default.
    pub fn with_dht_message_type(mut self, message_type: MessageType) -> Self {
        self.0.message_type = message_type;
        self
    }

    /// Adds flags to the header. Encryption sets its own.
    pub fn add_message_flag(mut self, flags: Flags) -> Self {
        self.0.flags = self.0.flags.union(flags);
        self
    }

    /// Sends this header and computes none. The body must be the bytes it covers.
    pub fn with_dht_header(mut self, header: Header) -> Self {
        self.0.header = Some(Box::new(header));
        self
    }

    /// Signs even if the message is clear.
    pub fn force_origin(mut self) -> Self {
        self.0.force_origin = true;
        self
    }

    /// Sets the trace id. Random by default.
    pub fn with_tag(mut self, tag: MessageTag) -> Self {
        self.0.tag = Some(tag);
        self
    }

    /// Sets when the message is shed; see [`SendParams::priority`] for the default.
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.0.priority = Some(priority);
        self
    }

    /// Sets whose request this message answers; see [`SendParams::requester`].
    pub const fn requester(mut self, deliverer: Deliverer) -> Self {
        self.0.requester = Some(deliverer);
        self
    }

    /// A note for the log.
    pub fn with_debug_info(mut self, text: impl Into<Arc<str>>) -> Self {
        self.0.debug_info = Some(text.into());
        self
    }

    /// Returns the finished parameters.
    #[must_use]
    pub fn finish(self) -> SendParams {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_specification() {
        let params = SendParams::builder().finish();
        assert_eq!(params.strategy, Strategy::Flood { exclude: vec![] });
        assert_eq!(params.destination, Destination::Unknown);
        assert_eq!(params.encryption, Encryption::Clear);
        assert_eq!(params.message_type, MessageType::None);
        assert_eq!(params.flags, Flags::NONE);
        assert!(!params.discovery && !params.force_origin);
        assert_eq!(
            (params.header, params.tag, params.debug_info),
            (None, None, None)
        );
    }

    #[test]
    fn the_last_strategy_counts() {
        let id = NodeId::from_bytes(&[1; 13]).unwrap();
        let params = SendParams::builder()
            .flood(vec![])
            .direct_node_id(id)
            .random(3)
            .finish();
        assert_eq!(
            params.strategy,
            Strategy::Random {
                n: 3,
                exclude: vec![]
            }
        );
        let params = SendParams::builder()
            .propagate(Destination::Unknown, vec![id])
            .finish();
        assert_eq!(params.destination, Destination::Unknown);
    }

    #[test]
    fn protocol_messages_are_control() {
        let with = |kind| {
            SendParams::builder()
                .with_dht_message_type(kind)
                .finish()
                .priority()
        };
        assert_eq!(with(MessageType::None), Priority::Direct);
        assert_eq!(with(MessageType::SafStoredMessages), Priority::Control);
        assert_eq!(with(MessageType::Join), Priority::Control);
        let set = SendParams::builder()
            .with_priority(Priority::Stored)
            .finish();
        assert_eq!(set.priority(), Priority::Stored);
    }
}
