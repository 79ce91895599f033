//! Tells the operator of configured peers and seeds that are not reached, or whose connections end again and again.

use std::collections::HashMap;

use dht_core::{DeliveryError, NodeId, PeerAddress};
use dht_transport::DialError;
use tokio::time::Instant;

use super::flapping::Repetitions;

/// The peers and seeds of the settings. Each failure of one is told once, until a connection to it has been of use.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredPeers {
    peers: HashMap<NodeId, Peer>,
    /// Connections that ended although the peer had accepted this node.
    lost: Repetitions,
}

#[derive(Debug)]
struct Peer {
    address: PeerAddress,
    /// Whether a failure was told since the last connection of use.
    is_told: bool,
}

impl ConfiguredPeers {
    pub(crate) fn new<'a>(me: &NodeId, peers: impl Iterator<Item = &'a PeerAddress>) -> Self {
        let mut configured = Self::default();
        for address in peers {
            let node_id = address.public_key.node_id();
            if node_id == *me {
                tracing::warn!(
                    target: "dht_node::configured",
                    peer = %address,
                    "a configured peer has the key of this node and is not dialled; if it is not this node, two processes use one key"
                );
                continue;
            }
            let (address, is_told) = (address.clone(), false);
            configured.peers.insert(node_id, Peer { address, is_told });
        }
        configured
    }

    /// A dial gave no connection.
    pub(super) fn failed(&mut self, peer: &NodeId, error: &DialError) {
        if *error != DialError::Cancelled {
            self.tell(peer, error);
        }
    }

    /// A connection has ended that this node did not close. The peer `refused` it if it said nothing over it.
    pub(super) fn lost(&mut self, peer: &NodeId, refused: bool, now: Instant) {
        if refused {
            return self.tell(peer, &DeliveryError::Refused);
        }
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        known.is_told = false;
        if self.lost.add(*peer, now) {
            tracing::warn!(
                peer = %peer.short(),
                "connections to a configured peer end again and again: another process may use the key of this node"
            );
        }
    }

    fn tell(&mut self, peer: &NodeId, error: &(dyn std::error::Error + 'static)) {
        if let Some(Peer { address, is_told }) = self.peers.get_mut(peer)
            && !std::mem::replace(is_told, true)
        {
            tracing::warn!(
                target: "dht_node::configured",
                peer = %address,
                error,
                "configured peer not reached; it is tried again, without a further line"
            );
        }
    }
}
