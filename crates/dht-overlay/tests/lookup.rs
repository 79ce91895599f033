//! Lookups by key over sessions of the peer-sync service, in memory and on a paused clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dht_core::{Address, Features, ManualClock, NodeId, SeededEntropy, UnixSeconds};
use dht_overlay::{
    lookup::{Finder, LookupConfig, LookupError, SyncNetwork},
    sync::{Learner, SyncCaller, peer_sync_server},
};
use dht_peers::{
    ClaimPolicy, Directory, NetGroup, PeerFilter, PeerRecord,
    policy::{AttributionProfile, BanPolicy, BanTerms},
    test_util::{claim, public_key},
};
use dht_proto::dht_rpc::{GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo};
use dht_rpc::{Caller, Router, Server, ServerConfig};
use futures::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{io::DuplexStream, time::advance};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
/// Seed of the node that looks for others.
const ME: u64 = 0;
/// Time a dial takes.
const DIAL: Duration = Duration::from_millis(50);

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

/// Claim that a node signed at a time, with its address of that time.
fn record(seed: u64, at: UnixSeconds) -> PeerRecord {
    let address = format!(
        "/ip4/60.{}.{}.1/tcp/{}",
        seed % 250,
        seed / 250,
        at.0 % 60_000 + 1
    );
    let claim = Arc::new(claim(seed, &[&address], Features::NODE, at));
    PeerRecord::from_claim(public_key(seed), claim, NOW)
}

/// Nodes with the peers that each has proven, and what the one that looks for others did.
#[derive(Default)]
struct World {
    nodes: BTreeMap<NodeId, Directory>,
    /// Whether they have `get_peers` only, as stock nodes of version 6.
    only_get_peers: bool,
    connected: Mutex<BTreeSet<NodeId>>,
    dialled: Mutex<Vec<NodeId>>,
    released: Mutex<Vec<NodeId>>,
}

#[derive(Clone)]
struct Link {
    world: Arc<World>,
    me: Directory,
}

impl World {
    /// A node that has proven these.
    fn node(&mut self, seed: u64, knows: impl IntoIterator<Item = u64>) {
        let directory = Directory::new(id(seed));
        for other in knows {
            directory.authenticated(record(other, NOW), NetGroup::Unknown, NOW);
        }
        self.nodes.insert(id(seed), directory);
    }

    /// A finder of a node that has proven these.
    fn finder(self, knows: impl IntoIterator<Item = u64>) -> (Arc<Self>, Finder<Link>) {
        let me = Directory::new(id(ME));
        for other in knows {
            me.authenticated(record(other, NOW), NetGroup::Unknown, NOW);
        }
        let world = Arc::new(self);
        let link = Link {
            world: Arc::clone(&world),
            me: me.clone(),
        };
        let clock = Arc::new(ManualClock::new(NOW));
        let (profile, terms) = (AttributionProfile::default(), BanTerms::default());
        let learner = Learner {
            bans: BanPolicy::new(profile, terms, me.clone(), clock.clone()),
            directory: me,
            clock,
            claims: ClaimPolicy::default(),
        };
        (
            world,
            Finder::new(link, learner, LookupConfig::default(), 2),
        )
    }
}

impl SyncNetwork for Link {
    type Stream = DuplexStream;

    fn is_connected(&self, peer: &NodeId) -> bool {
        self.world.connected.lock().contains(peer)
    }

    async fn connect(&self, peer: NodeId) -> bool {
        if self.is_connected(&peer) {
            return true;
        }
        self.world.dialled.lock().push(peer);
        tokio::time::sleep(DIAL).await;
        // Where it is now, not where it was.
        let known = self.me.find(&peer).unwrap();
        let is_current = known.claim().unwrap().signature.updated_at() == NOW.0 as i64;
        let is_there = self.world.nodes.contains_key(&peer) && is_current;
        is_there && self.world.connected.lock().insert(peer)
    }

    async fn open(&self, peer: NodeId) -> Option<DuplexStream> {
        let directory = self.world.nodes.get(&peer)?.clone();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let caller = Caller {
            peer: id(ME),
            source: None,
        };
        let streams = stream::iter([(caller, far)]).chain(stream::pending());
        if self.world.only_get_peers {
            let router = some_peers(&directory);
            tokio::spawn(Server::new(router, ServerConfig::default()).serve(streams));
        } else {
            let (clock, entropy) = (ManualClock::new(NOW), SeededEntropy::new(7));
            let server = peer_sync_server(directory, Arc::new(clock), Arc::new(entropy), 10);
            tokio::spawn(server.serve(streams));
        }
        Some(near)
    }

    fn release(&self, peer: &NodeId) {
        self.world.connected.lock().remove(peer);
        self.world.released.lock().push(*peer);
    }
}

/// `get_peers` with all that a node has proven, in any order.
fn some_peers(directory: &Directory) -> Router<SyncCaller> {
    let bytes = |address: &Address| Bytes::copy_from_slice(address.as_bytes());
    let known = directory.list(usize::MAX, &PeerFilter::everybody(NOW));
    let told = known.into_iter().map(|peer| {
        let claim = peer.claim().unwrap();
        let claim = PeerIdentityClaim {
            addresses: claim.addresses.iter().map(bytes).collect(),
            peer_features: claim.features.bits(),
            identity_signature: Some((&claim.signature).into()),
        };
        let peer = PeerInfo {
            public_key: Bytes::copy_from_slice(peer.public_key().as_bytes()),
            claims: vec![claim],
        };
        Ok(GetPeersResponse { peer: Some(peer) })
    });
    let told: Vec<_> = told.collect();
    Router::new().streaming(10, move |_: SyncCaller, _: GetPeersRequest| {
        let told = told.clone();
        async move { Ok(stream::iter(told)) }
    })
}

/// A row of nodes, each of which knows those next to it.
fn row(seeds: std::ops::RangeInclusive<u64>) -> World {
    let mut world = World::default();
    for seed in seeds {
        world.node(
            seed,
            [seed - 1, seed + 1].into_iter().filter(|other| *other > 0),
        );
    }
    world
}

#[tokio::test(start_paused = true)]
async fn stranger_is_found_through_others() {
    let (world, finder) = row(1..=10).finder([1]);
    finder.find(&public_key(10)).await.unwrap();
    assert!(world.connected.lock().contains(&id(10)));
    // The connections on the way are of no further use.
    assert_eq!(*world.connected.lock(), [id(10)].into());
    let released = world.released.lock().len();
    assert_eq!(released, 9);
}

/// Stock nodes of version 6 have no `get_closer_peers`.
#[tokio::test(start_paused = true)]
async fn stranger_is_found_through_get_peers() {
    let nodes = World {
        only_get_peers: true,
        ..row(1..=10)
    };
    let (world, finder) = nodes.finder([1]);
    finder.find(&public_key(10)).await.unwrap();
    assert_eq!(*world.connected.lock(), [id(10)].into());
}

#[tokio::test(start_paused = true)]
async fn lost_key_is_soon_given_up() {
    let (world, finder) = row(1..=5).finder([1]);
    // Known to its neighbour, and gone.
    let gone = public_key(6);
    let found = finder.find(&gone).await;
    assert_eq!(found, Err(LookupError::NotFound { asked: 6 }));
    assert_eq!(finder.find(&gone).await, Err(LookupError::Repeated));
    let dials = world.dialled.lock().len();
    advance(Duration::from_secs(60)).await;
    let found = finder.find(&gone).await;
    // Its neighbour tells nothing new.
    assert_eq!(found, Err(LookupError::NotFound { asked: 5 }));
    assert_eq!(world.dialled.lock().len(), dials + 5);
}

/// A caller that gives up takes nothing from one that waits for the same node.
#[tokio::test(start_paused = true)]
async fn callers_share_a_lookup() {
    let (world, finder) = row(1..=10).finder([1]);
    let key = public_key(10);
    let mut first = Box::pin(finder.find(&key));
    assert!((&mut first).now_or_never().is_none());
    let other = finder.clone();
    let second = tokio::spawn(async move { other.find(&key).await });
    let third = finder.find(&key);
    tokio::time::timeout(DIAL * 2, &mut first)
        .await
        .unwrap_err();
    drop(first);
    assert_eq!(third.await, Ok(()));
    assert_eq!(second.await.unwrap(), Ok(()));
    let dialled = world.dialled.lock().clone();
    assert_eq!(dialled.len(), dialled.iter().collect::<BTreeSet<_>>().len());
}

#[tokio::test(start_paused = true)]
async fn lookups_have_places() {
    let (_world, finder) = row(1..=3).finder([1]);
    let keys = [7, 8, 9].map(public_key);
    let mut running: Vec<_> = keys.iter().map(|key| Box::pin(finder.find(key))).collect();
    for lookup in &mut running[..2] {
        assert!(lookup.now_or_never().is_none());
    }
    assert_eq!(
        (&mut running[2]).now_or_never(),
        Some(Err(LookupError::TooMany))
    );
    let others = finder.with_places(1);
    assert!(others.find(&public_key(9)).now_or_never().is_none());
}

/// One node tells of an address at which the sought node no longer is, another of the one where it is.
#[tokio::test(start_paused = true)]
async fn newer_claim_is_tried_again() {
    let mut world = World::default();
    world.node(1, [2]);
    world.node(2, [1, 3]);
    world.node(3, []);
    world.node(9, []);
    let stale = record(9, UnixSeconds(NOW.0 - 1_000));
    let first = &world.nodes[&id(1)];
    first.authenticated(stale, NetGroup::Unknown, NOW);
    world.nodes[&id(3)].authenticated(record(9, NOW), NetGroup::Unknown, NOW);
    let (world, finder) = world.finder([1]);
    finder.find(&public_key(9)).await.unwrap();
    let dialled = world.dialled.lock();
    assert_eq!(dialled.iter().filter(|peer| **peer == id(9)).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn closest_nodes_are_those_that_answered() {
    let (_world, finder) = row(1..=8).finder([1]);
    let target = id(100);
    let mut expected: Vec<_> = (1..=8).map(id).collect();
    expected.sort_by_key(|id| target.distance(id));
    assert_eq!(finder.closest(&target).await, expected);
}
