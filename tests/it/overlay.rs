//! Networks that form from one seed and heal, over connections in memory and on a paused clock.

use std::{sync::Arc, time::Duration};

use dht_core::{Address, Clock, PeerAddress, SecretKey, SeededEntropy, UnixSeconds};
use dht_node::{Config, Event, Node, OverlayConfig, OverlayNotice, OverlayStatus, OverlaySummary};
use dht_transport::{Medium as _, Memory};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Wall-clock time that passes as the timers do.
struct TimerClock(Instant);

impl Clock for TimerClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(1_700_000_000).saturating_add(self.0.elapsed().as_secs())
    }
}

/// Nodes that reach each other, each with its place in the list.
struct Net {
    memory: Memory,
    clock: Arc<TimerClock>,
    nodes: Vec<Option<Node>>,
    overlay: OverlayConfig,
}

fn secret(place: usize) -> SecretKey {
    SecretKey::from_uniform_bytes(&[u8::try_from(place + 1).unwrap(); 64]).unwrap()
}

fn address(place: usize) -> Address {
    Address::memory(u64::try_from(place).unwrap() + 1)
}

fn peer_address(place: usize) -> PeerAddress {
    PeerAddress {
        public_key: secret(place).public_key(),
        addresses: vec![address(place)],
    }
}

impl Net {
    fn new(neighbours: usize, random_peers: usize) -> Self {
        Self {
            memory: Memory::default(),
            clock: Arc::new(TimerClock(Instant::now())),
            nodes: Vec::new(),
            overlay: OverlayConfig {
                neighbours,
                random_peers,
                ..OverlayConfig::default()
            },
        }
    }

    /// Starts the node at this place, which begins at these others.
    async fn start(&mut self, place: usize, seeds: impl IntoIterator<Item = usize>) {
        let mut transport = dht_transport::Config::default();
        transport.identity.addresses.allow_test = true;
        let config = Config {
            transport,
            listen: vec![address(place)],
            seeds: seeds.into_iter().map(peer_address).collect(),
            overlay: self.overlay.clone(),
            memory_mib: 64,
            ..Config::default()
        };
        let entropy = SeededEntropy::new(u64::try_from(place).unwrap());
        let node = Node::builder(secret(place))
            .config(config)
            .medium(self.memory.clone())
            .clock(Arc::clone(&self.clock) as _)
            .entropy(Arc::new(entropy));
        let node = node.start().await.unwrap();
        self.nodes
            .resize_with(self.nodes.len().max(place + 1), || None);
        self.nodes[place] = Some(node);
    }

    /// So many nodes, each of which knows only the first.
    async fn of(nodes: usize, neighbours: usize, random_peers: usize) -> Self {
        let mut net = Self::new(neighbours, random_peers);
        for place in 0..nodes {
            net.start(place, (place > 0).then_some(0)).await;
        }
        net
    }

    fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    fn summaries(&self) -> Vec<OverlaySummary> {
        self.alive().map(|node| node.overlay().unwrap()).collect()
    }

    /// Whether every pool has so many peers.
    fn is_full(&self, neighbours: usize, random_peers: usize) -> bool {
        self.summaries().iter().all(|summary| {
            summary.neighbours.len() >= neighbours && summary.random.len() >= random_peers
        })
    }

    /// Waits until every pool has so many peers, at most so many seconds of the nodes' time.
    async fn fills(&self, neighbours: usize, random_peers: usize, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !self.is_full(neighbours, random_peers) {
            assert!(Instant::now() < end, "{:#?}", self.summaries());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every node connects to every other by its key.
    async fn all_find_each_other(&self) {
        for node in self.alive() {
            for other in self.alive() {
                if node.public_key() != other.public_key() {
                    node.dial_or_discover(other.public_key()).await.unwrap();
                }
            }
        }
    }
}

/// Twelve nodes that know one seed know each other within half a minute.
#[tokio::test(start_paused = true)]
async fn nodes_converge_from_one_seed() {
    let net = Net::of(12, 8, 3).await;
    net.fills(8, 3, 30).await;
    let is_online = |summary: &OverlaySummary| {
        matches!(summary.status, OverlayStatus::Online { .. }) && !summary.is_crowded
    };
    assert!(net.summaries().iter().all(is_online));
    net.all_find_each_other().await;
}

/// A seed that takes connections and never says a word discards nothing of what another one tells.
#[tokio::test(start_paused = true)]
async fn silent_seed_delays_nobody() {
    let mut net = Net::of(8, 4, 2).await;
    net.fills(4, 2, 30).await;
    let _silent = net.memory.listen(&address(100)).await.unwrap();
    net.start(8, [100, 0]).await;
    net.fills(4, 2, 10).await;
}

/// The pools hold the nearest nodes, whoever came first.
#[tokio::test(start_paused = true)]
async fn pools_hold_the_nearest() {
    let net = Net::of(12, 4, 2).await;
    net.fills(4, 2, 30).await;
    // A neighbour is replaced by a nearer one at a time.
    sleep(Duration::from_secs(60)).await;
    for node in net.alive() {
        let me = node.public_key().node_id();
        let others = net.alive().map(|other| other.public_key().node_id());
        let mut others: Vec<_> = others.filter(|id| *id != me).collect();
        others.sort_by_key(|id| me.distance(id));
        assert_eq!(node.overlay().unwrap().neighbours, others[..4]);
    }
}

/// A third of the nodes ends at once, the seed among them, and never comes back.
#[tokio::test(start_paused = true)]
async fn network_heals_after_a_third_dies() {
    let mut net = Net::of(12, 4, 2).await;
    net.fills(4, 2, 30).await;
    sleep(Duration::from_secs(120)).await;
    for place in [0, 3, 6, 9] {
        net.nodes[place] = None;
    }
    let dead = [0, 3, 6, 9].map(|place| secret(place).public_key().node_id());
    let end = Instant::now() + Duration::from_secs(180);
    let is_whole = |net: &Net| {
        let holds_dead = net.summaries().iter().any(|summary| {
            let mut pools = summary.neighbours.iter().chain(&summary.random);
            pools.any(|id| dead.contains(id))
        });
        net.is_full(4, 2) && !holds_dead
    };
    while !is_whole(&net) {
        assert!(Instant::now() < end, "{:#?}", net.summaries());
        sleep(Duration::from_millis(100)).await;
    }
    // A newcomer gets in through any of them.
    net.start(12, Some(7)).await;
    net.fills(4, 2, 30).await;
    net.all_find_each_other().await;
}

/// A node whose public addresses change announces them as soon as joins have cooled down.
#[tokio::test(start_paused = true)]
async fn other_addresses_are_announced() {
    let net = Net::of(2, 4, 2).await;
    let [seed, node] = [0, 1].map(|place| net.nodes[place].as_ref().unwrap());
    let knows = |address: &Address| {
        let known = seed.directory().find_by_key(node.public_key());
        known.is_some_and(|known| {
            let mut addresses = known.addresses().iter();
            addresses.any(|known| known.address == *address)
        })
    };
    while !knows(&address(1)) {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(60)).await;
    let mut config = node.config();
    config.public_addresses = vec![address(50)];
    node.reload(&config).unwrap();
    assert_eq!(node.claim().addresses, [address(50)]);
    let start = Instant::now();
    while !knows(&address(50)) {
        assert!(start.elapsed() < Duration::from_secs(11 * 60));
        sleep(Duration::from_secs(1)).await;
    }
}

/// The interface of a machine goes and returns, with the address it had and with another one.
#[tokio::test(start_paused = true)]
async fn returning_interfaces_lead_to_joins() {
    const COOLED_DOWN: Duration = Duration::from_secs(11 * 60);
    let net = Net::of(1, 4, 2).await;
    let seed = net.nodes[0].as_ref().unwrap();
    let mut config = seed.config();
    config.listen = vec![address(1)];
    config.seeds = vec![peer_address(0)];
    config.public_addresses = vec!["/ip4/0.0.0.0/tcp/7".parse().unwrap()];
    let machine = Arc::new(Mutex::new(vec!["8.8.8.8"]));
    let source = Arc::clone(&machine);
    let node = Node::builder(secret(1))
        .config(config)
        .medium(net.memory.clone())
        .clock(Arc::clone(&net.clock) as _)
        .reproducible()
        .interfaces(move || Ok(source.lock().iter().map(|ip| ip.parse().unwrap()).collect()));
    let node = node.start().await.unwrap();
    let set = async |addresses: &[&'static str]| {
        *machine.lock() = addresses.to_vec();
        sleep(Duration::from_secs(20)).await;
        let claim = node.claim();
        claim
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(set(&["8.8.8.8"]).await, ["/ip4/8.8.8.8/tcp/7"]);
    sleep(COOLED_DOWN).await;
    // The join is all that the node sends.
    let joins = || seed.stats().messages_received;
    let before = joins();
    assert_eq!(set(&[]).await, ["/ip4/8.8.8.8/tcp/7"], "until one comes");
    sleep(COOLED_DOWN).await;
    assert_eq!(joins(), before);
    assert_eq!(set(&["8.8.8.8"]).await, ["/ip4/8.8.8.8/tcp/7"]);
    assert_eq!(joins(), before + 1);

    let mut events = node.events();
    let other = set(&["9.9.9.9", "169.254.0.1"]).await;
    assert_eq!(other, ["/ip4/9.9.9.9/tcp/7"]);
    assert!(matches!(events.recv().await, Some(Event::AddressesChanged)));
    sleep(COOLED_DOWN).await;
    assert_eq!(joins(), before + 2);
    let known = seed.directory().find_by_key(node.public_key()).unwrap();
    let announced = known.claim().unwrap().addresses.clone();
    assert_eq!(announced, node.claim().addresses);
    node.shutdown().await;
}

/// A home in memory keeps the peers, the bans and the allow list of its node.
#[tokio::test(start_paused = true)]
async fn memory_homes_keep_the_directory() {
    let home = dht_node::MemoryHome::default();
    let net = Net::of(1, 4, 2).await;
    let seed = net.nodes[0].as_ref().unwrap();
    let start = || {
        let mut config = seed.config();
        config.listen = vec![address(1)];
        Node::builder(secret(1))
            .config(config)
            .medium(net.memory.clone())
            .clock(Arc::clone(&net.clock) as _)
            .memory_home(home.clone())
            .start()
    };
    let node = start().await.unwrap();
    node.connect(&peer_address(0)).await.unwrap();
    let (friend, known) = (secret(7).public_key().node_id(), secret(0).public_key());
    assert!(node.allow(friend).await.unwrap() && !node.allow(friend).await.unwrap());
    node.shutdown().await;
    let node = start().await.unwrap();
    assert!(node.directory().find_by_key(&known).unwrap().is_proven());
    assert_eq!(node.directory().allowed(), [friend]);
    assert!(node.disallow(&friend).await.unwrap());
    node.shutdown().await;
}

/// A node that loses everybody comes back through those that it knows, its seed being gone.
#[tokio::test(start_paused = true)]
async fn connections_and_status_are_events() {
    let mut net = Net::of(1, 4, 2).await;
    let mut events = net.nodes[0].as_ref().unwrap().events();
    net.start(1, Some(0)).await;
    let other = secret(1).public_key().node_id();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match events.recv().await.unwrap() {
            Event::Connected(peer) => seen.push(format!("connected {}", peer.node_id == other)),
            Event::Overlay(OverlayNotice::Status(status)) => seen.push(status.to_string()),
            _ => {}
        }
    }
    assert_eq!(seen, ["connected true", "online, 1 nodes"]);
    net.nodes[1] = None;
    seen.clear();
    while seen.len() < 2 {
        match events.recv().await.unwrap() {
            Event::Disconnected { peer } => seen.push(format!("disconnected {}", peer == other)),
            Event::Overlay(OverlayNotice::Status(status)) => seen.push(status.to_string()),
            _ => {}
        }
    }
    assert_eq!(seen, ["disconnected true", "offline"]);
}
