//! Puts a node together: connections, dedup, outbound, store-and-forward, inbound, supervision, listeners.

mod files;
mod inbound;
mod outbound;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use dht_core::{Address, Clock as _, Entropy as _, FingerprintKey, NodeIdentity};
use dht_dedup::{DEFAULT_CAPACITY, DEFAULT_FINGERPRINTS, DedupTable, FingerprintCache};
#[cfg(feature = "overlay")]
use dht_outbound::Outbound;
use dht_peers::{
    Directory, DirectoryLimits,
    policy::{BanPolicy, BanTerms},
};
#[cfg(feature = "saf")]
use dht_stack::ByteBudget;
use dht_transport::Transport;
use tokio::sync::Notify;

use self::{
    inbound::{InboundWorkers, inbound_config},
    outbound::OutboundParts,
};
#[cfg(feature = "lan")]
use crate::lan::LanDiscovery;
#[cfg(feature = "spool")]
use crate::losses::Losses;
#[cfg(feature = "tor")]
use crate::onion::Onion;
use crate::{
    adapters::ToApplication,
    builder::{Builder, StartError},
    config::Config,
    connection_mirror::ConnectionMirror,
    context::{NodeContext, seed},
    counters::Counters,
    events::{Event, Events},
    expiry_clock::ExpiryClock,
    inbox::Subscribers,
    interfaces::{self, InterfaceWatch},
    known_peers::KnownPeers,
    memory::Memory,
    node::Node,
    outbox::{OutboxHandle, WorkerParts},
    own_addresses::OwnAddresses,
    supervise::{self, ConfiguredPeers, Repetitions, Upkeep, Watcher},
    tasks::Tasks,
};

/// Software name that a node tells its peers.
const USER_AGENT: &str = concat!("dht-node/", env!("CARGO_PKG_VERSION"));

impl Builder {
    /// Starts the node. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        let config = &self.config;
        config.validate()?;
        let is_durable = self.home.is_some() && cfg!(feature = "spool");
        let memory = Memory::new(config.memory_mib, self.stores_in_memory(), is_durable);
        #[cfg(feature = "tor")]
        let onion = self.onion().await?;
        // A node that signs no claim has none to follow.
        let interfaces = self.interfaces.clone().filter(|_| self.claim.is_none());
        let machine = match &interfaces {
            Some(interfaces) => interfaces::read(interfaces, !self.reproducible).await,
            None => None,
        };
        let mut own_addresses = OwnAddresses {
            listening: config.listen.clone(),
            #[cfg(feature = "tor")]
            onion: onion.as_ref().map(Onion::address),
            #[cfg(not(feature = "tor"))]
            onion: None,
            machine: machine.unwrap_or_default().into(),
            is_fixed: self.claim.is_some(),
        };
        let shared = self.shared(&memory, &own_addresses);

        // Connections.
        let mut builder = self.media.iter().cloned().fold(
            transport(&shared, config, &memory),
            dht_transport::Builder::medium,
        );
        if let Some(lookup) = self.lookup.clone() {
            builder = builder.lookup(move |name| lookup(name));
        }
        if self.reproducible {
            builder = builder.reproducible();
        }
        #[cfg(feature = "saf")]
        let (builder, receipts) = crate::saf::receipt::offer(builder, &config.saf);
        #[cfg(feature = "overlay")]
        let (builder, sync_streams) = crate::overlay::offer(builder, self.features);
        let (transport, received) = builder.start()?;
        // After the transport: a start that fails drops the tasks first.
        let tasks = Tasks::new(shared.events.clone());

        let (folder, in_memory) = match &self.home {
            Some(home) => (home.folder(), home.memory()),
            None => (None, None),
        };

        // Peers known before, and their bans: before the first connection.
        let known_peers = KnownPeers::open(self.home.as_ref(), &shared, &tasks).await;

        // Dedup: before the first message, the table has what an earlier run of this home received.
        #[cfg(feature = "spool")]
        let snapshot = files::open_snapshot(folder, &shared, &tasks).await;

        // Outbound.
        let sending = OutboundParts::start(&shared, config, &transport, &tasks);

        // Store-and-forward.
        #[cfg(feature = "saf")]
        let saf = {
            let store = self.stores().then(|| match memory.stored {
                0 => config.saf.store(),
                bytes => config.saf.store_in_memory(bytes as u64),
            });
            let (send_queue, responses) = (sending.send_queue(), ByteBudget::new(memory.queued));
            let home = self.home.as_ref();
            let started =
                crate::saf::start(home, config, store, &shared, send_queue, responses, &tasks)
                    .await;
            started.map_err(|source| StartError::Store {
                path: folder.map(crate::saf::saf_folder).unwrap_or_default(),
                source,
            })?
        };
        #[cfg(not(feature = "saf"))]
        let saf = crate::saf::SafHandle;

        // Inbound.
        #[cfg(feature = "spool")]
        let durable_inbox =
            files::open_durable_inbox(self.home.as_ref(), config, &shared, &tasks).await?;
        // Before the first message and the first question for stored ones.
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &durable_inbox {
            let losses = Losses {
                inbox: durable_inbox.inbox.clone(),
                saf: saf.clone(),
                dedup: shared.dedup.clone(),
                snapshot: snapshot.clone(),
            };
            losses.forget().await;
            tasks.spawn("inbox losses", losses.watch());
        }
        let subscribers = Arc::new(Subscribers::new(memory.subscribers.clone()));
        let application = ToApplication {
            subscribers: Arc::clone(&subscribers),
            #[cfg(feature = "spool")]
            durable_inbox: durable_inbox.clone(),
        };
        #[cfg(feature = "saf")]
        if let Some(receipts) = receipts {
            receipts.serve(&saf, application.clone(), &tasks);
        }
        let inbound_config = inbound_config(config, self.validation_deadline);
        let runtime = self.inbound_runtime(&shared, &sending);
        let (meter, limiter) = (runtime.meter.clone(), runtime.limiter.clone());

        // Outbox.
        let entries = match in_memory {
            Some(home) => home.outbox.clone(),
            None => {
                let folder = folder.map(PathBuf::from);
                files::open_outbox(folder, memory.queued, shared.clock.now()).await?
            }
        };
        #[cfg(feature = "spool")]
        let received_at = durable_inbox.as_ref().and_then(|it| it.inbox.newest_at());
        #[cfg(not(feature = "spool"))]
        let received_at = None;
        shared.expiry.compare(entries.newest_at().max(received_at));
        let parts = WorkerParts {
            node: shared.clone(),
            transport: transport.clone(),
            outbound: sending.door.clone(),
            discoveries: sending.discoveries.clone(),
            connector: sending.retry_connector,
            select: sending.config.select.clone(),
            application: application.clone(),
            #[cfg(feature = "saf")]
            receipts: crate::saf::receipt::ReceiptAskers::new(transport.clone()),
        };
        let (outbox, worker) = OutboxHandle::new(
            entries,
            is_durable,
            in_memory.is_some(),
            parts,
            memory.queued,
        );
        tasks.spawn("outbox", worker.run());
        tasks.spawn("outbox file", outbox.failed());

        // Peer sync.
        #[cfg(feature = "overlay")]
        if let Some(streams) = sync_streams {
            streams.serve(&shared, memory.sync_sessions, &tasks);
        }

        // Workers.
        #[cfg(feature = "overlay")]
        let (overlay, overlay_events) = crate::overlay::events();
        let peers = ConnectionMirror {
            transport: transport.clone(),
            outbox: outbox.clone(),
            shared: shared.clone(),
            saf: saf.clone(),
            #[cfg(feature = "overlay")]
            overlay,
            claims: config.claim_policy(),
        };
        let workers = InboundWorkers {
            config: inbound_config,
            runtime,
            saf: saf.clone(),
            deliver: application,
            peers: peers.clone(),
            shared: shared.clone(),
            most: memory.messages(),
            count: match self.reproducible {
                true => 1,
                false => std::thread::available_parallelism().map_or(1, usize::from),
            },
        };
        workers.start(received.messages, &tasks);

        // Supervision.
        tasks.spawn(
            "watcher",
            watcher(config, &shared, &peers).run(received.events),
        );
        let upkeep = Upkeep {
            shared: shared.clone(),
            meter,
        };
        tasks.spawn("upkeep", upkeep.run());

        // Listeners last: every part is there when the first peer connects.
        let listen = match self.claim {
            Some(_) => &[],
            None => &*config.listen,
        };
        open_listeners(&transport, listen).await?;
        own_addresses.listening = transport.listen_addresses();
        own_addresses.sign(config, &shared);
        let own_addresses = Arc::new(own_addresses);
        let config_in_force = Arc::new(parking_lot::Mutex::new(config.clone()));
        if let Some(interfaces) = interfaces {
            let watch = InterfaceWatch {
                interfaces,
                blocks: !self.reproducible,
                own_addresses: Arc::clone(&own_addresses),
                config: Arc::clone(&config_in_force),
                peers: peers.clone(),
            };
            tasks.spawn("interfaces", watch.run());
        }
        #[cfg(feature = "lan")]
        if config.lan_discovery && self.claim.is_none() {
            let (key, listening) = (*shared.identity.public_key(), &own_addresses.listening);
            let (clock, entropy) = (Arc::clone(&shared.clock), Arc::clone(&shared.entropy));
            let lan = LanDiscovery::new(config, key, listening, peers.clone(), clock, entropy);
            tasks.spawn("local networks", lan.run());
        }
        #[cfg(feature = "overlay")]
        let overlay = self.new_overlay(&peers, &sending.outbound);
        // After the claim, which does not name the listener that Tor connects to.
        #[cfg(feature = "tor")]
        let onion = match onion {
            Some(onion) => {
                let started = onion.start(&transport, &shared.entropy, &tasks).await;
                Some(started.map_err(|source| StartError::Listen {
                    address: Onion::listener(),
                    source,
                })?)
            }
            None => None,
        };
        let node = Node {
            shared,
            transport,
            outbound: sending.outbound,
            discoveries: sending.discoveries,
            connector: sending.connector,
            select: sending.config.select,
            connection_mirror: peers,
            #[cfg(feature = "overlay")]
            overlay: overlay.as_ref().map(|overlay| overlay.summary()),
            limiter,
            config: config_in_force,
            subscribers,
            #[cfg(feature = "spool")]
            durable_inbox,
            budget: memory.arriving,
            saf,
            outbox,
            known_peers,
            own_addresses,
            #[cfg(feature = "spool")]
            snapshot,
            #[cfg(feature = "tor")]
            onion,
            tasks,
            stopping: AtomicBool::new(false),
        };
        // The inbox takes messages whether or not an application reads it.
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &node.durable_inbox {
            node.saf.listen();
            let saf = node.saf.clone();
            let room = durable_inbox.clone().watch_room(move || saf.room_made());
            node.tasks.spawn("inbox room", room);
        }
        #[cfg(feature = "saf")]
        if !is_durable {
            let (subscribers, saf) = (Arc::clone(&node.subscribers), node.saf.clone());
            let room = async move {
                loop {
                    subscribers.room_made().await;
                    saf.room_made();
                }
            };
            node.tasks.spawn("subscribers' room", room);
        }
        node.ban_listed(&[], &config.banned);
        for peer in config.peers.iter().chain(&config.seeds) {
            node.add_peer(peer);
        }
        let me = node.public_key();
        let others = config.peers.iter().filter(|peer| peer.public_key != *me);
        let peers: Vec<_> = others.cloned().collect();
        if !peers.is_empty() {
            let dials = supervise::keep_connected(node.transport.clone(), peers);
            node.tasks.spawn("dials", dials);
        }
        // After the peers that it may dial are known.
        #[cfg(feature = "overlay")]
        if let Some(overlay) = overlay {
            node.tasks.spawn("overlay", overlay.run(overlay_events));
        }
        Ok(node)
    }

    /// The onion service, for a node that signs claims.
    #[cfg(feature = "tor")]
    async fn onion(&self) -> Result<Option<Onion>, dht_tor::KeyError> {
        // Without one nothing waits for a thread, so that a run with a seed can be repeated.
        if self.claim.is_some() || self.config.tor.control.is_none() {
            return Ok(None);
        }
        let home = self.home.as_ref().and_then(crate::home::Home::folder);
        let (config, home) = (self.config.tor.clone(), home.map(PathBuf::from));
        let entropy = Arc::clone(&self.entropy);
        let preparing = move || Onion::prepare(&config, home.as_deref(), &entropy);
        // It only ends early when the runtime does.
        tokio::task::spawn_blocking(preparing)
            .await
            .unwrap_or(Ok(None))
    }

    /// Whether the node stores messages for offline peers.
    #[cfg(feature = "saf")]
    fn stores(&self) -> bool {
        let features = self.config.features(self.features);
        self.claim.is_none() && features.contains(dht_core::Features::DHT_STORE_FORWARD)
    }

    /// Whether it stores them without files.
    fn stores_in_memory(&self) -> bool {
        #[cfg(feature = "saf")]
        if self.stores() {
            return self
                .home
                .as_ref()
                .is_none_or(|home| home.folder().is_none());
        }
        false
    }

    fn shared(&self, memory: &Memory, own_addresses: &OwnAddresses) -> NodeContext {
        let (config, clock, entropy) = (&self.config, &self.clock, &self.entropy);
        let secret = self.secret.clone();
        let identity = match &self.claim {
            Some(claim) => NodeIdentity::with_claim(secret, claim.clone()),
            None => {
                let addresses = own_addresses.claimed(config);
                let (now, mut rng) = (clock.now(), entropy.rng());
                let features = config.features(self.features);
                NodeIdentity::new(secret, features, addresses, now, &mut rng)
            }
        };
        let limits = DirectoryLimits::within(memory.directory);
        let directory = Directory::with_limits(*identity.node_id(), limits);
        let key = FingerprintKey::random(&mut entropy.rng());
        let bans = BanPolicy::new(
            config.attribution,
            BanTerms::default(),
            directory.clone(),
            Arc::clone(clock),
        );
        NodeContext {
            identity: Arc::new(identity),
            connections: directory.connections(),
            directory,
            bans,
            dedup: DedupTable::new(DEFAULT_CAPACITY, seed(entropy)),
            fingerprints: FingerprintCache::new(DEFAULT_FINGERPRINTS, key),
            clock: Arc::clone(clock),
            expiry: Arc::new(ExpiryClock::new(Arc::clone(clock))),
            entropy: Arc::clone(entropy),
            counters: Arc::new(Counters::default()),
            events: Events::new(),
        }
    }

    /// The overlay of a full node that listens, unless its settings turn it off.
    #[cfg(feature = "overlay")]
    fn new_overlay(
        &self,
        peers: &ConnectionMirror,
        outbound: &Outbound,
    ) -> Option<crate::overlay::Overlay> {
        let runs = self.config.overlay.enabled && self.claim.is_none();
        let is_full = self.features == dht_core::Features::NODE;
        (runs && is_full)
            .then(|| crate::overlay::Overlay::new(&self.config, peers.clone(), outbound.clone()))
    }
}

/// A watcher of connections that is told of every ban, as are subscribers to events.
fn watcher(config: &Config, shared: &NodeContext, peers: &ConnectionMirror) -> Watcher {
    let banned = Arc::new(Notify::new());
    shared.directory.on_ban({
        let (banned, events) = (Arc::clone(&banned), shared.events.clone());
        move |ban| {
            banned.notify_one();
            events.publish(|| Event::Banned(Arc::clone(ban)));
        }
    });
    Watcher {
        peers: peers.clone(),
        banned,
        replaced: Repetitions::default(),
        configured: ConfiguredPeers::new(
            shared.directory.me(),
            config.peers.iter().chain(&config.seeds),
        ),
        events: shared.events.clone(),
    }
}

async fn open_listeners(transport: &Transport, addresses: &[Address]) -> Result<(), StartError> {
    for address in addresses {
        let listening = transport.listen(address).await;
        listening.map_err(|source| StartError::Listen {
            address: address.clone(),
            source,
        })?;
    }
    Ok(())
}

fn transport(shared: &NodeContext, config: &Config, memory: &Memory) -> dht_transport::Builder {
    let mut settings = config.transport.clone();
    settings.max_queued_bytes_total = memory.queued;
    settings.max_unread_bytes_total = memory.unread;
    Transport::builder(
        Arc::clone(&shared.identity),
        config.network,
        Arc::clone(&shared.entropy),
        Arc::clone(&shared.clock),
        memory.arriving.clone(),
    )
    .config(settings)
    .directory(shared.directory.clone())
    .bans(shared.bans.clone())
    .user_agent(USER_AGENT)
}
