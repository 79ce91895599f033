//! The peers this node is connected to, as a snapshot that is read without a lock.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use dht_core::{NodeId, RemotePeer};
use parking_lot::Mutex;
use rand_core::Rng;

use crate::{
    exclude::Exclude,
    sample::Shuffle,
    xor::{self, SliceWalk},
};

/// Side that opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The peer dialled this node.
    Inbound,
    /// This node dialled the peer.
    Outbound,
}

/// A peer in a [`ConnectedPeers`] snapshot.
#[derive(Clone, Debug)]
pub struct ConnectedPeer {
    /// Peer at the other end, authenticated.
    pub peer: Arc<RemotePeer>,
    /// Side that opened the connection.
    pub direction: Direction,
}

/// The table of live connections. Cloning gives another handle to the same table.
///
/// Readers take a [`snapshot`](Self::snapshot) and never wait; a change copies the table, O(connections).
/// The number of entries is bounded by the connection limits of the transport that fills it.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{Features, NodeId, RemotePeer, SecretKey};
/// use dht_peers::{Connections, Direction};
///
/// let connections = Connections::new();
/// let key = SecretKey::from_bytes(&[7; 32]).unwrap_or_else(|_| unreachable!()).public_key();
/// let peer = Arc::new(RemotePeer::new(key, Features::NODE));
/// connections.insert(Arc::clone(&peer), Direction::Outbound);
///
/// let now = connections.snapshot();
/// assert_eq!(now.closest(&NodeId::default(), 8, &[]), [peer]);
/// ```
#[derive(Clone, Default)]
pub struct Connections(Arc<Table>);

#[derive(Default)]
struct Table {
    current: ArcSwap<ConnectedPeers>,
    /// Writers take turns; readers never come here.
    writing: Mutex<()>,
}

/// The peers connected at one moment, sorted by node id.
#[derive(Clone, Default)]
pub struct ConnectedPeers {
    keys: Vec<u128>,
    peers: Vec<ConnectedPeer>,
    /// The same for full nodes only, the only ones most strategies may choose.
    node_keys: Vec<u128>,
    nodes: Vec<Arc<RemotePeer>>,
}

// === impl Connections ===

impl Connections {
    /// A table without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a peer, or replaces the entry of the same node id. True if it was not there.
    pub fn insert(&self, peer: Arc<RemotePeer>, direction: Direction) -> bool {
        self.change(|table| table.insert(ConnectedPeer { peer, direction }))
    }

    /// Takes a peer out. False if it was not there.
    pub fn remove(&self, id: &NodeId) -> bool {
        self.change(|table| table.remove(id))
    }

    /// Takes all peers out.
    pub fn clear(&self) {
        self.change(|table| *table = ConnectedPeers::default());
    }

    /// The peers connected now. Later changes do not show in it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ConnectedPeers> {
        self.0.current.load_full()
    }

    /// Whether a peer of any role is connected now.
    #[must_use]
    pub fn contains(&self, id: &NodeId) -> bool {
        self.0.current.load().contains(id)
    }

    fn change<T>(&self, change: impl FnOnce(&mut ConnectedPeers) -> T) -> T {
        let _turn = self.0.writing.lock();
        let mut table = ConnectedPeers::clone(&self.0.current.load());
        let answer = change(&mut table);
        self.0.current.store(Arc::new(table));
        answer
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections")
            .field(&self.0.current.load())
            .finish()
    }
}

// === impl ConnectedPeers ===

impl ConnectedPeers {
    /// Number of peers of any role.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True if no peer is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether a peer of any role is connected.
    #[must_use]
    pub fn contains(&self, id: &NodeId) -> bool {
        self.keys.binary_search(&xor::key(id)).is_ok()
    }

    /// The entry of a peer of any role.
    #[must_use]
    pub fn find(&self, id: &NodeId) -> Option<&ConnectedPeer> {
        self.peers.get(self.keys.binary_search(&xor::key(id)).ok()?)
    }

    /// All connected peers, by node id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConnectedPeer> {
        self.peers.iter()
    }

    /// The full nodes, by node id.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<RemotePeer>] {
        &self.nodes
    }

    /// The `n` full nodes closest to `target` that are not excluded, nearest first: O(n + log size).
    #[must_use]
    pub fn closest(&self, target: &NodeId, n: usize, exclude: &[NodeId]) -> Vec<Arc<RemotePeer>> {
        self.nearest(target, exclude).take(n).cloned().collect()
    }

    /// Full nodes that are not excluded, nearest to `target` first. Each step costs the logarithm of their number.
    pub fn nearest<'a>(
        &'a self,
        target: &NodeId,
        exclude: &'a [NodeId],
    ) -> impl Iterator<Item = &'a Arc<RemotePeer>> {
        let exclude = Exclude::new(exclude);
        SliceWalk::new(&self.node_keys, target)
            .filter_map(|at| self.nodes.get(at))
            .filter(move |node| !exclude.contains(&node.node_id))
    }

    /// Up to `n` full nodes that are not excluded, uniformly at random without replacement.
    #[must_use]
    pub fn random(&self, n: usize, exclude: &[NodeId], rng: &mut impl Rng) -> Vec<Arc<RemotePeer>> {
        let exclude = Exclude::new(exclude);
        Shuffle::new(self.nodes.len(), rng)
            .filter_map(|at| self.nodes.get(at))
            .filter(|node| !exclude.contains(&node.node_id))
            .take(n)
            .cloned()
            .collect()
    }

    fn insert(&mut self, entry: ConnectedPeer) -> bool {
        let known = self.remove(&entry.peer.node_id);
        let key = xor::key(&entry.peer.node_id);
        if entry.peer.features.is_node() {
            let at = self.node_keys.partition_point(|other| *other < key);
            self.node_keys.insert(at, key);
            self.nodes.insert(at, Arc::clone(&entry.peer));
        }
        let at = self.keys.partition_point(|other| *other < key);
        self.keys.insert(at, key);
        self.peers.insert(at, entry);
        !known
    }

    fn remove(&mut self, id: &NodeId) -> bool {
        let key = xor::key(id);
        if let Ok(at) = self.node_keys.binary_search(&key) {
            self.node_keys.remove(at);
            self.nodes.remove(at);
        }
        let found = self.keys.binary_search(&key);
        if let Ok(at) = found {
            self.keys.remove(at);
            self.peers.remove(at);
        }
        found.is_ok()
    }
}

impl fmt::Debug for ConnectedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.peers.iter().map(|entry| entry.peer.node_id))
            .finish()
    }
}

#[cfg(test)]
mod tests;
