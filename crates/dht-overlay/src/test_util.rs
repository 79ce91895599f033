//! A directory, connections and time for the tests of cores.

use std::{sync::Arc, time::Duration};

use dht_core::{Features, NodeId, RemotePeer, UnixSeconds};
use dht_peers::{
    ConnectedPeers, Connections, Direction, Directory, NetGroup, PeerRecord,
    test_util::{claim, peer_at, public_key, record},
};
use tokio::time::Instant;

use crate::view::View;

const START: UnixSeconds = UnixSeconds(1_700_000_000);

/// View of a core, to be changed by a test. The node itself has the id 0.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) directory: Directory,
    connections: Connections,
    connected: Arc<ConnectedPeers>,
    start: Instant,
    passed: Duration,
}

impl Net {
    pub(crate) fn new() -> Self {
        let directory = Directory::new(NodeId::default());
        let connections = directory.connections();
        Self {
            connected: connections.snapshot(),
            connections,
            directory,
            start: Instant::now(),
            passed: Duration::ZERO,
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            directory: &self.directory,
            connected: &self.connected,
            at: self.at(),
            now: self.now(),
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.start + self.passed
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        START.saturating_add(self.passed.as_secs())
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    pub(crate) fn id(&self, seed: u64) -> NodeId {
        public_key(seed).node_id()
    }

    /// A proven node, which is not connected.
    pub(crate) fn know(&self, seed: u64) -> NodeId {
        let record = record(seed, Features::NODE, self.now());
        self.directory
            .authenticated(record, NetGroup::Memory, self.now());
        self.id(seed)
    }

    /// A proven node with this address.
    pub(crate) fn know_at(&self, seed: u64, address: &str) -> NodeId {
        let record = self.claimed(seed, address);
        let group = NetGroup::of_address(&address.parse().unwrap());
        self.directory.authenticated(record, group, self.now());
        self.id(seed)
    }

    /// A node that others told of.
    pub(crate) fn hear_of(&self, seed: u64) -> NodeId {
        let record = self.claimed(seed, &format!("/memory/{seed}"));
        self.directory.hear(
            record,
            &NodeId::from_bytes(&[0xee; 13]).unwrap(),
            self.now(),
        );
        self.id(seed)
    }

    /// A node that others told of, one of many next to this one.
    pub(crate) fn know_near(&self, n: u8) {
        // Keys next to a node take long to find: enough are drawn that the nearest of them are near.
        for seed in 0..200 {
            let seed = 10_000 + u64::from(n) * 200 + seed;
            if self.id(seed).as_bytes()[0] == 0 {
                self.know(seed);
            }
        }
    }

    fn claimed(&self, seed: u64, address: &str) -> PeerRecord {
        let claim = claim(seed, &[address], Features::NODE, self.now());
        let claim = Arc::new(claim);
        PeerRecord::from_claim(public_key(seed), claim, self.now())
    }

    pub(crate) fn connect(&mut self, peer: RemotePeer) {
        self.connections.insert(Arc::new(peer), Direction::Outbound);
        self.connected = self.connections.snapshot();
    }

    pub(crate) fn connect_node(&mut self, seed: u64) -> NodeId {
        let id = self.id(seed);
        self.connect(peer_at(id, Features::NODE));
        id
    }

    pub(crate) fn disconnect(&mut self, seed: u64) {
        self.connections.remove(&self.id(seed));
        self.connected = self.connections.snapshot();
    }

    pub(crate) fn disconnect_all(&mut self) {
        self.connections.clear();
        self.connected = self.connections.snapshot();
    }
}
