//! The wiring of a node, top to bottom.

use std::sync::{Arc, atomic::AtomicBool};

use dht_core::{
    Address, Clock as _, Entropy as _, FingerprintKey, MAX_BATCH, NodeIdentity, SharedClock,
    SharedEntropy,
};
use dht_inbound::{
    Authenticated, Bans, DEFAULT_CAPACITY, DEFAULT_SEEN_CAPACITY, DedupTable, DirectoryBans,
    FloodLimits, FloodMeter, InboundConfig, InboundParts, Inline, Received, Seen, inbound_stack,
};
use dht_outbound::{
    Driver, DriverLimits, InlineSealer, OutboundConfig, OutboundParts, Requester, outbound,
};
use dht_peers::{Connections, Directory};
use dht_stack::{Batch, ByteBudget};
use dht_transport::{InboundMessage, Transport};
use rand_core::Rng as _;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    Builder, Event, Node, StartError,
    adapters::{Book, NoDiscovery, Seeds, ToInboxes, ToOutbound, ToTransport},
    counters::{Counters, Tally},
    events::Events,
    inbox::Subscribers,
    pump,
    roster::Roster,
    supervise::{self, Tasks, Upkeep, Watcher},
    verifier::BatchVerifier,
};

const MIB: usize = 1024 * 1024;

/// Requests of the node's own parts that wait for the outbound pipeline. What finds no room is shed.
const OUTBOUND_QUEUE: usize = 1_024;

/// What a node tells others of its software.
const USER_AGENT: &str = concat!("dht-node/", env!("CARGO_PKG_VERSION"));

/// A claim must name an address. One that listens nowhere names this: well formed, and nobody's.
const NOWHERE: &str = "/ip4/127.0.0.1/tcp/18189";

pub(crate) async fn node(builder: Builder) -> Result<Node, StartError> {
    let Builder {
        secret,
        features,
        config,
        clock,
        entropy,
        judge,
        verdict_deadline,
    } = builder;
    let addresses = claimed(&config.public_addresses, &config.listen);
    let identity = NodeIdentity::new(secret, features, addresses, clock.now(), &mut entropy.rng());
    let identity = Arc::new(identity);
    let directory = Directory::new(*identity.node_id());
    let connections = Connections::new();
    let budget = ByteBudget::new(config.memory_mib.saturating_mul(MIB));
    let tasks = Tasks::default();

    // Connections.
    let book = Book {
        directory: directory.clone(),
        clock: Arc::clone(&clock),
    };
    let (transport, outlets) = Transport::builder(
        Arc::clone(&identity),
        config.network,
        Arc::clone(&entropy),
        Arc::clone(&clock),
        budget.clone(),
    )
    .book(Arc::new(book))
    .user_agent(USER_AGENT)
    .start()?;

    // Duplicates: counted on the way in, seeded on the way out.
    let dedup = Arc::new(DedupTable::new(DEFAULT_CAPACITY, seed(&entropy)));
    let limits = FloodLimits {
        messages: config.flood_messages,
        seconds: config.flood_seconds,
    };
    let meter = FloodMeter::new(limits, seed(&entropy));
    let counters = Arc::new(Counters::default());
    let events = Events::new();

    // The way out.
    let parts = OutboundParts {
        identity: Arc::clone(&identity),
        connections: connections.clone(),
        directory: directory.clone(),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        config: OutboundConfig::default(),
        sealer: InlineSealer,
        dedup: Seeds {
            table: Arc::clone(&dedup),
            clock: Arc::clone(&clock),
        },
        discover: None,
    };
    let sink = ToTransport {
        transport: transport.clone(),
        reports: TaskTracker::new(),
        counters: Arc::clone(&counters),
        events: events.clone(),
    };
    let pipeline = BoxCloneSyncService::new(outbound(parts, sink));
    let (requests, queue) = mpsc::channel(OUTBOUND_QUEUE);
    let requester = Requester::new(requests);
    tasks.spawn(Driver::new(queue, pipeline.clone(), DriverLimits::default()).run());

    // The way in.
    let subscribers = Arc::new(Subscribers::default());
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let inbound = InboundConfig {
        profile: config.attribution,
        relay_gossip: config.relay_gossip,
        verdict_deadline,
        ..InboundConfig::default()
    };
    let sink = DirectoryBans::new(directory.clone(), SharedClock::clone(&clock));
    let stack = inbound_stack(
        inbound,
        InboundParts {
            identity: Arc::clone(&identity),
            directory: directory.clone(),
            clock: Arc::clone(&clock),
            meter: meter.clone(),
            dedup: Arc::clone(&dedup),
            seen: Seen::new(
                DEFAULT_SEEN_CAPACITY,
                FingerprintKey::random(&mut entropy.rng()),
            ),
            verifier: Batch::new(BatchVerifier::new(Arc::clone(&entropy)), MAX_BATCH, lanes),
            pool: Inline,
            bans: sink.clone(),
            outbox: Arc::new(ToOutbound(requester.clone())),
            discovery: NoDiscovery,
            judge,
            sources: Authenticated,
        },
        // Store-and-forward's two layers come here.
        None::<tower::layer::util::Identity>,
        None::<tower::layer::util::Identity>,
        ToInboxes(Arc::clone(&subscribers)),
    );
    let roster = Roster {
        transport: transport.clone(),
        directory: directory.clone(),
        connections: connections.clone(),
        clock: Arc::clone(&clock),
    };
    let messages = Arc::new(Mutex::new(outlets.messages));
    for _ in 0..lanes {
        let roster = roster.clone();
        let tally = Tally {
            counters: Arc::clone(&counters),
            events: events.clone(),
            inner: stack.clone(),
        };
        let lane = tally.map_request(move |message: InboundMessage| {
            roster.ensure(&message.peer.node_id);
            received(message)
        });
        tasks.spawn(pump::run(lane, Arc::clone(&messages)));
    }

    // Who is there, and who may stay.
    let banned = Arc::new(Notify::new());
    directory.on_ban({
        let (banned, events) = (Arc::clone(&banned), events.clone());
        move |ban| {
            banned.notify_one();
            events.publish(|| Event::Banned(Arc::clone(ban)));
        }
    });
    let watcher = Watcher {
        roster,
        meter: meter.clone(),
        banned,
    };
    tasks.spawn(watcher.run(outlets.events));
    let upkeep = Upkeep {
        bans: Bans::new(inbound.profile, inbound.ban_terms, sink),
        meter,
        dedup,
        clock: Arc::clone(&clock),
    };
    tasks.spawn(upkeep.run());

    // Open the doors last.
    for address in &config.listen {
        transport
            .listen(address)
            .await
            .map_err(|source| StartError::Listen {
                address: address.clone(),
                source,
            })?;
    }
    let addresses = claimed(&config.public_addresses, &transport.listen_addresses());
    identity.set_addresses(addresses, clock.now(), &mut entropy.rng());
    let node = Node {
        identity,
        directory,
        connections,
        transport: transport.clone(),
        pipeline,
        requester,
        subscribers,
        counters,
        events,
        budget,
        clock,
        tasks,
        stopping: AtomicBool::new(false),
    };
    for peer in &config.peers {
        node.add_peer(peer);
    }
    if !config.peers.is_empty() {
        node.tasks
            .spawn(supervise::keep_connected(transport, config.peers));
    }
    Ok(node)
}

fn received(message: InboundMessage) -> Received {
    let InboundMessage { peer, body, permit } = message;
    Received {
        source: peer,
        frame: body,
        permit,
    }
}

/// A secret seed for tables keyed by what peers send.
fn seed(entropy: &SharedEntropy) -> [u8; 16] {
    let mut seed = [0; 16];
    entropy.rng().fill_bytes(&mut seed);
    seed
}

/// What to tell others: public addresses if there are any, else those listened on. An unspecified address
/// (0.0.0.0) is no claim a peer accepts, and stands for loopback too.
fn claimed(public: &[Address], listening: &[Address]) -> Vec<Address> {
    use dht_core::Host;
    let addresses = if public.is_empty() { listening } else { public };
    let specific = |address: &Address| match address.host() {
        Some(Host::Ip(ip, port)) if ip.is_unspecified() => {
            Address::tcp(std::net::Ipv4Addr::LOCALHOST.into(), port)
        }
        _ => address.clone(),
    };
    let mut claimed: Vec<Address> = addresses
        .iter()
        .take(dht_proto::limits::MAX_CLAIM_ADDRESSES)
        .map(specific)
        .collect();
    if claimed.is_empty() {
        claimed.extend(NOWHERE.parse());
    }
    claimed
}
