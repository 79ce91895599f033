//! A connected peer.

use crate::{features::Features, keys::PublicKey, node_id::NodeId};

/// A connected peer whose key the transport has authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemotePeer {
    /// Public key that the peer proved to hold.
    pub public_key: PublicKey,
    /// Node id of the public key.
    pub node_id: NodeId,
    /// Features that the peer claims in the identity exchange.
    pub features: Features,
}

impl RemotePeer {
    /// Derives the node id from the key.
    #[must_use]
    pub fn new(public_key: PublicKey, features: Features) -> Self {
        Self {
            public_key,
            node_id: public_key.node_id(),
            features,
        }
    }
}
