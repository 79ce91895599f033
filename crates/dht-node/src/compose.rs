//! The wiring of a node, top to bottom.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dht_core::{
    Address, Clock as _, Entropy as _, FingerprintKey, Network, NodeIdentity, Outbox, SharedEntropy,
};
use dht_dedup::{
    DEFAULT_CAPACITY, DEFAULT_FINGERPRINTS, DedupTable, FingerprintCache, SnapshotFile,
};
use dht_inbound::{
    AnswerCheck, FloodLimits, FloodMeter, Inbound, InboundConfig, InboundFrame, InboundRuntime,
    RateLimiter, run_worker,
};
use dht_outbound::{Connector, Outbound, PipelineParts, SearchLimits, Searcher, pipeline};
use dht_peers::{
    Connections, Directory,
    policy::{BanPolicy, BanTerms},
};
use dht_transport::{InboundMessage, Transport};
use rand_core::Rng as _;
use tokio::sync::{Mutex, Notify};
use tower::ServiceExt as _;

use crate::{
    Builder, Config, Event, Node, StartError,
    adapters::{ToInboxes, ToTransport},
    channels,
    counters::{Counters, Tally},
    discovery::{Answers, Dialler},
    events::Events,
    inbox::Subscribers,
    memory::Memory,
    peer_sync::PeerSync,
    saf,
    supervise::{self, Upkeep, Watcher},
    tasks::Tasks,
};

/// What a node tells others of its software.
const USER_AGENT: &str = concat!("dht-node/", env!("CARGO_PKG_VERSION"));

/// A claim must name an address. One that listens nowhere names this: well formed, and nobody's.
const NOWHERE: &str = "/ip4/127.0.0.1/tcp/18189";

impl Builder {
    /// Starts the node. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        node(self).await
    }
}

async fn node(builder: Builder) -> Result<Node, StartError> {
    let Builder {
        secret,
        features,
        config,
        home,
        clock,
        entropy,
        validator,
        validation_deadline,
    } = builder;
    config.validate()?;
    let addresses = claimed(&config.public_addresses, &config.listen);
    let identity = NodeIdentity::new(secret, features, addresses, clock.now(), &mut entropy.rng());
    let identity = Arc::new(identity);
    let directory = Directory::new(*identity.node_id());
    let connections = Connections::new();
    let memory = Memory::new(config.memory_mib);
    let budget = memory.arriving.clone();
    let tasks = Tasks::default();

    // Connections.
    let bans = BanPolicy::new(
        config.attribution,
        BanTerms::default(),
        directory.clone(),
        Arc::clone(&clock),
    );
    let mut transport_config = dht_transport::Config::default();
    transport_config.max_queued_bytes_total = memory.queued;
    transport_config.max_unread_bytes_total = memory.unread;
    let builder = Transport::builder(
        Arc::clone(&identity),
        config.network,
        Arc::clone(&entropy),
        Arc::clone(&clock),
        budget.clone(),
    )
    .config(transport_config)
    .directory(directory.clone())
    .bans(bans.clone())
    .user_agent(USER_AGENT);
    let (builder, receipts) = saf::Receipts::offer(builder, &config, features);
    let (transport, outlets) = builder.start()?;

    // Duplicates: counted on the way in, seeded on the way out.
    let dedup = DedupTable::new(DEFAULT_CAPACITY, seed(&entropy));
    let seen = match &home {
        Some(home) => SnapshotFile::open(home, &dedup, clock.now()).await,
        None => None,
    };
    if let Some(file) = &seen {
        tasks.spawn(file.clone().keep());
    }
    let limits = FloodLimits {
        messages: config.flood_messages,
        seconds: config.flood_seconds,
    };
    let meter = FloodMeter::new(limits, seed(&entropy));
    let counters = Arc::new(Counters::default());
    let events = Events::new();

    // Outbound: one door. Searches leave through a handle that does not search.
    let outbound_config = dht_outbound::Config {
        discovery_seconds: config.discovery_seconds,
        max_requests: channels::REQUESTS.capacity,
        ..dht_outbound::Config::default()
    };
    let parts = PipelineParts {
        identity: Arc::clone(&identity),
        connections: connections.clone(),
        directory: directory.clone(),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        dedup: dedup.clone(),
    };
    let sink = ToTransport {
        transport: transport.clone(),
        counters: Arc::clone(&counters),
        events: events.clone(),
    };
    let pipeline = pipeline(parts, &outbound_config, sink);
    let (door, worker) = Outbound::new(&outbound_config, pipeline);
    tasks.spawn(worker.run());
    let limits = SearchLimits {
        timeout: Duration::from_secs(config.discovery_seconds),
        ..SearchLimits::default()
    };
    let (seeker, chance) = (Arc::clone(&identity), Arc::clone(&entropy));
    let searcher = Searcher::new(door.clone(), seeker, chance, limits);
    let connector = Connector::new(
        Dialler(transport.clone()),
        Arc::new(searcher.clone()),
        directory.clone(),
        Arc::clone(&clock),
        limits.timeout,
    );
    let outbound = door.with_discovery(Arc::new(connector.clone()));
    let outbox: Arc<dyn Outbox> = Arc::new(door);

    // The way in.
    let subscribers = Arc::new(Subscribers::default());
    let inbound_config = inbound_config(&config, validation_deadline);
    let claims = inbound_config.claims.under(bans.profile());
    let answers = Answers {
        searcher: searcher.clone(),
        check: AnswerCheck {
            directory: directory.clone(),
            bans: bans.clone(),
            clock: Arc::clone(&clock),
            claims,
        },
    };
    let (mail, store, serve) = saf::start(
        home.as_deref(),
        &config,
        saf::MailParts {
            identity: Arc::clone(&identity),
            directory: directory.clone(),
            connections: connections.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            bans: bans.clone(),
            dedup: dedup.clone(),
            outbox: Arc::clone(&outbox),
            receipts,
        },
    )
    .await?;
    mail.spawn_upkeep(&tasks, &events);
    let runtime = InboundRuntime {
        identity: Arc::clone(&identity),
        directory: directory.clone(),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        meter: meter.clone(),
        limiter: RateLimiter::new(config.rates.limits(), seed(&entropy)),
        dedup: dedup.clone(),
        fingerprints: FingerprintCache::new(
            DEFAULT_FINGERPRINTS,
            FingerprintKey::random(&mut entropy.rng()),
        ),
        bans: bans.clone(),
        outbox,
        discovery: Arc::new(answers),
        validator,
    };
    let peer_sync = PeerSync {
        transport: transport.clone(),
        directory: directory.clone(),
        connections: connections.clone(),
        clock: Arc::clone(&clock),
        saf: mail.clone(),
        claims,
    };
    let messages = Arc::new(Mutex::new(outlets.messages));
    // A worker for each core, each with batches of its own: one that waited for a batch in another worker's hands would
    // leave its core idle.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..workers {
        let deliver = ToInboxes(Arc::clone(&subscribers));
        let stack = Inbound::new(inbound_config, runtime.clone(), deliver)
            .push_protocol()
            // Outside the protocol, which ends unreadable answers; messages it unpacks go on from here.
            .push_option(serve.clone())
            .push_forward()
            // Outside `forward`, which sends stored messages another way.
            .push_option(store.clone())
            .push_crypto()
            .push_filters()
            .into_inner();
        let peer_sync = peer_sync.clone();
        let tally = Tally {
            counters: Arc::clone(&counters),
            events: events.clone(),
            inner: stack,
        };
        let service = tally.map_request(move |message: InboundMessage| {
            peer_sync.ensure(&message.peer.node_id);
            frame(message)
        });
        tasks.spawn(run_worker(
            service,
            Arc::clone(&messages),
            memory.messages(),
        ));
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
        peers: peer_sync,
        meter: meter.clone(),
        banned,
    };
    tasks.spawn(watcher.run(outlets.events));
    let upkeep = Upkeep {
        bans,
        meter,
        dedup: dedup.clone(),
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
        outbound,
        searcher,
        connector,
        select: outbound_config.select,
        entropy,
        subscribers,
        counters,
        events,
        budget,
        clock,
        saf: mail,
        seen,
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

fn inbound_config(config: &Config, validation_deadline: Duration) -> InboundConfig {
    let mut inbound = InboundConfig {
        forward: config.forward,
        relay_gossip: config.relay_gossip,
        validation_deadline,
        allowed_occurrences: config.allowed_occurrences,
        ..InboundConfig::default()
    };
    // Nodes of one machine are found at addresses no other network would accept.
    inbound.claims.addresses.allow_test = config.network == Network::LocalNet;
    inbound
}

fn frame(message: InboundMessage) -> InboundFrame {
    let InboundMessage { peer, body, permit } = message;
    InboundFrame {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_the_inbound_stack() {
        let config = Config {
            network: Network::Esmeralda,
            allowed_occurrences: 3,
            forward: false,
            relay_gossip: true,
            ..Config::default()
        };
        let deadline = Duration::from_secs(7);
        let set = inbound_config(&config, deadline);
        let expected = InboundConfig {
            allowed_occurrences: 3,
            forward: false,
            relay_gossip: true,
            validation_deadline: deadline,
            ..InboundConfig::default()
        };
        assert_eq!(set, expected);
        let local = inbound_config(&Config::default(), deadline);
        assert!(local.forward && local.claims.addresses.allow_test);
    }
}
