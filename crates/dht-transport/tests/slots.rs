//! Choice of the peers that get a connection when there are more peers than connections.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use dht_core::{Address, Deliverer, SourceGroup};
use dht_transport::{
    Accepted, Acceptor, BoxFuture, Config, Medium, Memory, Socket, noise::NoiseStream,
};
use parking_lot::Mutex;
use support::{Node, Setup, identity, peer};
use tokio::{
    io::AsyncReadExt,
    time::{sleep, timeout},
};

/// Memory whose sockets seem to come from the address that is set.
#[derive(Clone)]
struct Sourced {
    memory: Memory,
    from: Arc<Mutex<IpAddr>>,
}

struct SourcedAcceptor {
    inner: Box<dyn Acceptor>,
    from: Arc<Mutex<IpAddr>>,
}

impl Medium for Sourced {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Socket>> {
        self.memory.dial(address)
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Acceptor>>> {
        Box::pin(async {
            let inner = self.memory.listen(address).await?;
            let from = Arc::clone(&self.from);
            Ok(Box::new(SourcedAcceptor { inner, from }) as Box<dyn Acceptor>)
        })
    }

    fn serves(&self, address: &Address) -> bool {
        self.memory.serves(address)
    }
}

impl Acceptor for SourcedAcceptor {
    fn local_address(&self) -> Address {
        self.inner.local_address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let mut accepted = self.inner.accept().await?;
            accepted.source = *self.from.lock();
            Ok(accepted)
        })
    }
}

struct World {
    node: Node,
    medium: Sourced,
    next: u64,
}

type Channel = NoiseStream<Socket>;

impl World {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let memory = Memory::default();
        let medium = Sourced {
            memory: memory.clone(),
            from: Arc::new(Mutex::new(Ipv4Addr::LOCALHOST.into())),
        };
        let mut setup = Setup::memory(1, &memory);
        change(&mut setup.config);
        Self {
            node: setup.start_with(medium.clone()).await,
            medium,
            next: 100,
        }
    }

    /// Another peer comes from an address and says nothing after the handshake; `None` if it is refused.
    async fn connect(&mut self, from: [u8; 4]) -> Option<(u64, Channel)> {
        *self.medium.from.lock() = from.into();
        self.next += 1;
        let seed = self.next;
        let stranger = identity(seed);
        let mut socket = peer::connect(&self.medium.memory, &self.node.address).await;
        // A refused socket is closed at once.
        let closed = timeout(Duration::from_millis(1), socket.read_u8()).await;
        if closed.is_ok() {
            return None;
        }
        drop(socket);
        let channel = peer::identify(&self.medium.memory, &self.node.address, &stranger).await;
        // Connections wait with their beginning and end until these are taken.
        while self.node.outlets.events.try_recv().is_ok() {}
        sleep(Duration::from_secs(1)).await;
        self.is_connected(seed).then_some((seed, channel))
    }

    /// Deliverers that these peers are counted as.
    fn deliverers(&self, held: &[(u64, Channel)]) -> usize {
        let deliverer = |(seed, _): &(u64, Channel)| {
            let connection = self.node.transport.connection(identity(*seed).node_id());
            Deliverer::from(&**connection.unwrap().peer())
        };
        held.iter().map(deliverer).collect::<HashSet<_>>().len()
    }

    fn is_connected(&self, seed: u64) -> bool {
        let connection = self.node.transport.connection(identity(seed).node_id());
        connection.is_some_and(|held| held.is_open())
    }
}

/// One source group gets its share of the slots, and not all of them. Peers behind a gateway that the operator trusts have one
/// address and are all let in; for everything else they are one group.
#[tokio::test(start_paused = true)]
async fn gateway_is_limited_unless_trusted() {
    for (trusted, admitted) in [(vec![], 32), (vec!["203.0.113.0/24".parse().unwrap()], 40)] {
        let is_trusted = !trusted.is_empty();
        let mut world = World::new(|config| config.trusted_sources = trusted).await;
        let mut held = Vec::new();
        for _ in 0..40 {
            held.extend(world.connect([203, 0, 113, 7]).await);
        }
        assert_eq!(held.len(), admitted, "trusted: {is_trusted}");
        assert_eq!(world.deliverers(&held), 1, "trusted: {is_trusted}");
        let other = world.connect([203, 0, 114, 7]).await;
        assert!(other.is_some(), "another network is not affected");
    }
}

/// Onion circuits cost nothing: whoever comes through the service is one group, while its sockets, which come from this machine,
/// are not limited. Peers of another listener that come from this machine have no group.
#[tokio::test(start_paused = true)]
async fn onion_clients_are_one_group() {
    let mut world = World::new(|_| {}).await;
    for deliverers in [40, 1] {
        let mut held = Vec::new();
        for _ in 0..40 {
            held.extend(world.connect([127, 0, 0, 1]).await);
        }
        assert_eq!((held.len(), world.deliverers(&held)), (40, deliverers));
        let (onion, group) = (Address::memory(0), SourceGroup::ONION_SERVICE);
        let listening = world.node.transport.listen_as(&onion, group).await;
        world.node.address = listening.unwrap();
    }
}

/// Idle peers of one source group fill all slots; those that were there and are of use keep theirs, and others still get in.
#[tokio::test(start_paused = true)]
async fn idle_network_displaces_no_useful_peers() {
    let mut world = World::new(|config| {
        config.max_connections = 64;
        config.max_connections_per_source = 1_000;
    })
    .await;
    let mut honest = Vec::new();
    for third in 0..16 {
        honest.extend(world.connect([198, 51, third, 1]).await);
    }
    assert_eq!(honest.len(), 16);
    let mut idle = Vec::new();
    for n in 0..150 {
        for (seed, _) in &honest {
            world.node.transport.note_useful(identity(*seed).node_id());
        }
        idle.extend(world.connect([203, 0, 113, n]).await);
    }
    assert!(idle.len() > 48, "{}", idle.len());
    for (seed, _) in &honest {
        assert!(world.is_connected(*seed), "{seed} made room");
    }
    let newcomer = world.connect([198, 51, 100, 1]).await;
    let stats = world.node.transport.stats();
    assert!(newcomer.is_some(), "{stats:?}");
    assert!(stats.connections <= 64 && stats.evicted >= 100, "{stats:?}");
}

/// A connection that lost against another one of its peer holds a slot until it has ended, and can be closed for others.
#[tokio::test(start_paused = true)]
async fn second_connections_make_room() {
    const PEERS: u8 = 32;
    let mut world = World::new(|config| {
        config.max_connections = 2 * usize::from(PEERS);
        config.max_connections_per_source = 1_000;
    })
    .await;
    let mut held = Vec::new();
    for host in 0..PEERS {
        held.extend(world.connect([203, 0, 113, host]).await);
    }
    let (memory, to) = (world.medium.memory.clone(), world.node.address.clone());
    let seeds: Vec<_> = held.iter().map(|(seed, _)| *seed).collect();
    for seed in seeds {
        held.push((seed, peer::identify(&memory, &to, &identity(seed)).await));
    }
    while world.node.outlets.events.try_recv().is_ok() {}
    let newcomer = world.connect([198, 51, 100, 1]).await;
    let stats = world.node.transport.stats();
    assert!(newcomer.is_some(), "{stats:?}");
    assert!(stats.evicted > 0, "{stats:?}");
}

/// The protections of a large node are more connections than a small one has.
#[tokio::test(start_paused = true)]
async fn full_small_node_lets_newcomers_in() {
    for most in [2, 8, 32] {
        let mut world = World::new(|config| config.max_connections = most).await;
        let mut held = Vec::new();
        for n in 0..most + 4 {
            let third = u8::try_from(n).unwrap();
            held.extend(world.connect([198, 51, third, 1]).await);
        }
        assert_eq!(held.len(), most + 4, "of {most}");
        assert!(world.node.transport.stats().evicted >= 4);
    }
}

/// A peer that the operator configured keeps its connection, also an idle one of the fullest network.
#[tokio::test(start_paused = true)]
async fn configured_peer_is_not_evicted() {
    let mut world = World::new(|config| {
        config.max_connections = 48;
        config.max_connections_per_source = 1_000;
    })
    .await;
    let mut held = Vec::new();
    for n in 0..47 {
        held.extend(world.connect([203, 0, 113, n]).await);
    }
    let configured = identity(world.next + 1);
    (world.node).knows_at(configured.public_key(), [Address::memory(9_999)]);
    held.extend(world.connect([203, 0, 113, 200]).await);
    for n in 0..20 {
        held.extend(world.connect([198, 51, n, 1]).await);
    }
    assert!(world.node.transport.stats().evicted >= 20);
    let kept = world.node.transport.connection(configured.node_id());
    assert!(kept.is_some_and(|kept| kept.is_open()));
}
