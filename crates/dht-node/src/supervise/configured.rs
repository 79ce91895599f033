//! Tells the operator of configured peers and seeds that are not reached, and of peers whose connections end again and again.

use std::collections::HashMap;

use dht_core::{DeliveryError, NodeId, PeerAddress};
use dht_transport::DialError;
use tokio::time::Instant;

use super::flapping::Losses;

/// The peers and seeds of the settings. Each failure of one is told once, until a connection to it has been of use.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredPeers {
    peers: HashMap<NodeId, Peer>,
    losses: Losses,
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

    /// A connection has ended that this node did not close. The peer `refused` it if it said nothing over it; `is_dialled` says
    /// that this node made it, and `is_kept` whether another that it made has lasted.
    pub(super) fn lost(
        &mut self,
        peer: &NodeId,
        refused: bool,
        is_dialled: bool,
        is_kept: impl FnOnce() -> bool,
        now: Instant,
    ) {
        if refused {
            return self.tell(peer, &DeliveryError::Refused);
        }
        let known = self.peers.get_mut(peer);
        let is_configured = known.map(|known| known.is_told = false).is_some();
        if (is_configured || is_dialled) && self.losses.add(*peer, is_configured, is_kept, now) {
            tracing::warn!(
                peer = %peer.short(),
                "connections to a peer end again and again: another process may use the key of this node"
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
