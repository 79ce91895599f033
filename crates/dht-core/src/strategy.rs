//! How the peers that a message is sent to are chosen.

use crate::{keys::PublicKey, message::Destination, node_id::NodeId};

/// Which peers a message goes to (04 section 3).
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
    /// The peer with this node id, connected or not.
    DirectNodeId(NodeId),
    /// The peer with this key, connected or not.
    DirectPublicKey(PublicKey),
    /// All connected full nodes.
    Flood {
        /// Nodes that are not chosen.
        exclude: Vec<NodeId>,
    },
    /// A few connected full nodes, chosen at random.
    Broadcast {
        /// Nodes that are not chosen.
        exclude: Vec<NodeId>,
    },
    /// Known full nodes, connected or not, chosen at random.
    Random {
        /// Number of nodes to choose.
        n: usize,
        /// Nodes that are not chosen.
        exclude: Vec<NodeId>,
    },
    /// Exactly these peers, without any check.
    SelectedPeers(Vec<NodeId>),
    /// The nodes closest to a node id.
    ClosestNodes {
        /// Node id to be close to.
        target: NodeId,
        /// Nodes that are not chosen.
        exclude: Vec<NodeId>,
        /// Whether to choose among connected nodes only.
        connected_only: bool,
    },
    /// The peer itself if connected, else the nodes closest to it.
    DirectOrClosestNodes {
        /// Node id to be close to.
        target: NodeId,
        /// Nodes that are not chosen, apart from the target itself.
        exclude: Vec<NodeId>,
        /// Whether to choose among connected nodes only.
        connected_only: bool,
    },
    /// The nodes closest to a destination, or random ones if it is unknown.
    Propagate {
        /// Destination of the message.
        destination: Destination,
        /// Nodes that are not chosen.
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
    /// Whether the message goes to one named peer.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::DirectNodeId(_) | Self::DirectPublicKey(_))
    }

    /// The key of [`Strategy::DirectPublicKey`], `None` for other strategies.
    #[must_use]
    pub const fn direct_public_key(&self) -> Option<&PublicKey> {
        match self {
            Self::DirectPublicKey(key) => Some(key),
            _ => None,
        }
    }

    /// The node id of [`Strategy::DirectNodeId`], `None` for other strategies.
    #[must_use]
    pub const fn direct_node_id(&self) -> Option<&NodeId> {
        match self {
            Self::DirectNodeId(id) => Some(id),
            _ => None,
        }
    }

    /// Short name for logs and metric labels.
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
