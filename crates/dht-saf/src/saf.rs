//! Store-and-forward of a running node: the cores, the store and the ledger, and what the layers share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dht_core::{
    AttributionProfile, Clock as _, Entropy as _, Features, MessageType, NodeId, NodeIdentity,
    Outbox, OutboxError, Priority, PublicKey, RemotePeer, SharedClock, SharedEntropy, UnixSeconds,
};
use dht_mailbox::{DEFAULT_MAX_RETURNED, Recipient, Store, StoreError};
use dht_peers::{Connections, Directory};
use dht_proto::{limits::MAX_STORED_MESSAGES, store_forward::StoredMessagesRequest};
use dht_stack::ByteBudget;
use parking_lot::Mutex;
use rand_core::Rng as _;
use tokio::sync::{Semaphore, broadcast};

use crate::{
    admission::Surroundings,
    ask::{AskConfig, AskRule, Asking, FirstReceived, Round},
    bucket::{NeighbourBuckets, Rate},
    handler::SafLayer,
    ledger::Ledger,
    metrics,
    outlets::{BanSink, Duplicates, send_request},
    paging::{Pager, PagerConfig},
    receipts::Receipts,
    store_layer::StoreLayer,
};

/// Neighbours asked at once on request (`broadcast_factor`, section 7).
pub const NEIGHBOURS_ASKED: usize = 8;
/// Events that wait for one listener; a slower one misses the oldest.
pub const EVENT_CAPACITY: usize = 64;

/// Bytes of answers that may be on their way out; beyond it requests are answered with nothing.
pub(crate) const ANSWER_BYTES: usize = 64 << 20;
/// Requests that read from the store at one time, each up to one answer's bytes.
const READERS: usize = 4;

/// Settings of store-and-forward beside those of the [`Store`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SafConfig {
    /// Whom to blame. Defaults to [`AttributionProfile::Strict`].
    pub profile: AttributionProfile,
    /// How requests are answered.
    pub paging: PagerConfig,
    /// Which connected peers are asked.
    pub rule: AskRule,
    /// How long answers may take.
    pub asking: AskConfig,
    /// Messages asked for in one request, and the most that are accepted in one answer
    /// (`saf.max_returned_messages`). Defaults to [`DEFAULT_MAX_RETURNED`]; at least 1 (a request for 0 leaves the
    /// number to the answerer) and at most the 1 024 that are decoded.
    pub max_accepted: usize,
    /// Seconds before the newest message read from a peer from which it is asked again, for rows that became
    /// visible late (defects D3 and D4). Defaults to 30.
    pub margin_seconds: u64,
    /// Known nodes that make up this node's region (`saf.num_neighbouring_nodes`). Defaults to 8.
    pub region_size: usize,
    /// Largest body that is stored (`saf.max_message_size`). Defaults to
    /// [`DEFAULT_MAX_BODY_BYTES`](dht_mailbox::DEFAULT_MAX_BODY_BYTES).
    pub max_body_bytes: u64,
    /// Messages stored for one neighbour. Defaults to 1 000 a second, 20 000 at once.
    pub neighbour_rate: Rate,
    /// Requests of one peer that are answered with messages; others are answered with nothing. Defaults to 2 a
    /// second, 320 at once: a full mailbox takes some 270.
    pub requester_rate: Rate,
    /// Seconds after which a stored message is a replay, and for which received ones are remembered. Defaults to
    /// 4 days: the longest that mail is kept, and a day for clocks that differ.
    pub max_age_seconds: u64,
}

/// What store-and-forward works with.
pub struct SafParts {
    /// This node.
    pub identity: Arc<NodeIdentity>,
    /// Who is known and banned, and how far the region reaches.
    pub directory: Directory,
    /// Who is connected.
    pub connections: Connections,
    /// The time.
    pub clock: SharedClock,
    /// Ids of requests, and which neighbours are asked.
    pub entropy: SharedEntropy,
    /// Mail for others; `None` on a node that stores none.
    pub store: Option<Store>,
    /// What came out of the stores of others.
    pub ledger: Ledger,
    /// Takes what is sent.
    pub outbox: Arc<dyn Outbox>,
    /// Takes bans.
    pub bans: Arc<dyn BanSink>,
    /// Counts what comes out of answers.
    pub duplicates: Arc<dyn Duplicates>,
}

/// What store-and-forward tells the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SafEvent {
    /// The first answers after going online are in (section 9). Once in a run.
    Received,
    /// Everybody who was asked has answered or was given up: what there was, is here.
    CaughtUp(Round),
}

/// Store-and-forward of one node. Cheap to clone.
#[derive(Clone)]
pub struct Saf(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: SafConfig,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    connections: Connections,
    pub(crate) clock: SharedClock,
    entropy: SharedEntropy,
    pub(crate) store: Option<Store>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) bans: Arc<dyn BanSink>,
    pub(crate) duplicates: Arc<dyn Duplicates>,
    pub(crate) pager: Mutex<Pager>,
    pub(crate) asking: Mutex<Asking>,
    pub(crate) neighbours: Mutex<NeighbourBuckets>,
    pub(crate) requesters: Mutex<NeighbourBuckets>,
    pub(crate) answers: ByteBudget,
    /// Bytes of them by requester.
    pub(crate) answering: Mutex<HashMap<Recipient, usize>>,
    pub(crate) readers: Semaphore,
    pub(crate) receipts: Receipts,
    first: Mutex<FirstReceived>,
    events: broadcast::Sender<SafEvent>,
    /// Whether the application listens: nobody is asked before.
    listening: AtomicBool,
}

impl Default for SafConfig {
    fn default() -> Self {
        Self {
            profile: AttributionProfile::default(),
            paging: PagerConfig::default(),
            rule: AskRule::default(),
            asking: AskConfig::default(),
            max_accepted: DEFAULT_MAX_RETURNED,
            margin_seconds: 30,
            region_size: 8,
            max_body_bytes: dht_mailbox::DEFAULT_MAX_BODY_BYTES,
            neighbour_rate: Rate {
                per_second: 1_000,
                burst: 20_000,
            },
            requester_rate: Rate {
                per_second: 2,
                burst: 320,
            },
            max_age_seconds: 4 * 24 * 60 * 60,
        }
    }
}

// === impl Saf ===

impl Saf {
    /// Puts the parts together. Nobody is asked before [`Saf::listen`].
    #[must_use]
    pub fn new(mut config: SafConfig, parts: SafParts) -> Self {
        let SafParts {
            identity,
            directory,
            connections,
            clock,
            entropy,
            store,
            ledger,
            outbox,
            bans,
            duplicates,
        } = parts;
        // Whoever answers what was asked must not be banned for it.
        config.max_accepted = config.max_accepted.clamp(1, MAX_STORED_MESSAGES);
        let stores = identity.features().contains(Features::DHT_STORE_FORWARD);
        let asking = AskConfig {
            profile: config.profile,
            ..config.asking
        };
        Self(Arc::new(Inner {
            identity,
            directory,
            connections,
            clock,
            entropy,
            store: store.filter(|_| stores),
            ledger: Arc::new(ledger),
            outbox,
            bans,
            duplicates,
            pager: Mutex::new(Pager::new(config.paging)),
            asking: Mutex::new(Asking::new(asking)),
            neighbours: Mutex::new(NeighbourBuckets::new(config.neighbour_rate)),
            requesters: Mutex::new(NeighbourBuckets::new(config.requester_rate)),
            answers: ByteBudget::new(ANSWER_BYTES),
            answering: Mutex::default(),
            readers: Semaphore::new(READERS),
            receipts: Receipts::default(),
            first: Mutex::default(),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            listening: AtomicBool::new(false),
            config,
        }))
    }

    /// The layer that stores others' mail, outside the forward layer; `None` on a node that stores none.
    #[must_use]
    pub fn store_layer(&self) -> Option<StoreLayer> {
        self.0
            .store
            .clone()
            .map(|store| StoreLayer::new(self.clone(), store))
    }

    /// The layer that serves requests and accepts answers, inside the forward layer.
    #[must_use]
    pub fn layer(&self) -> SafLayer {
        SafLayer::new(self.clone())
    }

    /// The store, on a node that has one.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.0.store.as_ref()
    }

    /// What came out of the stores of others.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<SafEvent> {
        self.0.events.subscribe()
    }

    // --- asking ---

    /// The application listens from now on: asks those connected, and whoever connects.
    ///
    /// Before, answers would be handed to nobody, and could not be had again.
    pub fn listen(&self) {
        if self.0.listening.swap(true, Ordering::AcqRel) {
            return;
        }
        let connected = self.0.connections.snapshot();
        // First, as each of them counts as going online with one.
        if !connected.is_empty() {
            self.online(connected.len());
        }
        for entry in connected.iter() {
            self.connected(&entry.peer);
        }
    }

    /// A peer has connected, in either direction, and is in the connection table: asks it, if the rule says so.
    pub fn connected(&self, peer: &RemotePeer) {
        let inner = &*self.0;
        if !inner.listening.load(Ordering::Acquire) {
            return;
        }
        let known = inner.directory.find(&peer.node_id);
        let features = known.map(|known| known.features());
        let active = inner.connections.snapshot();
        let active = active.iter().map(|entry| entry.peer.node_id);
        let me = inner.identity.node_id();
        if inner.config.rule.asks(me, &peer.node_id, features, active) {
            // A refusal is counted, and the round closed.
            let _ = self.request_from(peer);
        }
        self.online(1);
    }

    /// The connection to a peer has ended.
    pub fn disconnected(&self, peer: &NodeId, key: Option<&PublicKey>) {
        if let Some(key) = key {
            self.0.pager.lock().disconnected(Recipient::from(key));
        }
        let round = self.0.asking.lock().given_up(peer);
        self.report(round);
    }

    /// Asks a peer for everything new, whatever the rule says.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub fn request_from(&self, peer: &RemotePeer) -> Result<(), OutboxError> {
        let inner = &*self.0;
        let margin = inner.config.margin_seconds;
        let since = inner.ledger.watermark(&peer.public_key);
        let since = since.map_or(0, |at| at.0.saturating_sub(margin));
        inner.asking.lock().begin(peer.node_id, inner.clock.now());
        self.ask(peer, since)
    }

    /// Asks up to [`NEIGHBOURS_ASKED`] connected nodes at random. Answers how many.
    pub fn request_from_neighbours(&self) -> usize {
        let mut rng = self.0.entropy.rng();
        let connected = self.0.connections.snapshot();
        let chosen = connected.random(NEIGHBOURS_ASKED, &[], &mut rng);
        chosen
            .iter()
            .filter(|peer| self.request_from(peer).is_ok())
            .count()
    }

    /// This node went online with `n` peers; fixes how many answers the event [`SafEvent::Received`] waits for.
    pub fn online(&self, n: usize) {
        if self.0.first.lock().online(n) {
            self.emit(SafEvent::Received);
        }
    }

    /// Whether an answer is waited for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.0.asking.lock().is_idle()
    }

    // --- upkeep ---

    /// Gives up whoever is silent, and writes down what came. Call it every second or so.
    pub async fn tick(&self) {
        let round = self.0.asking.lock().tick(self.0.clock.now());
        self.report(round);
        let ledger = Arc::clone(&self.0.ledger);
        blocking("ledger", move || ledger.flush()).await;
    }

    /// Deletes mail whose time is over, and forgets received messages nobody can have any more. Call it at start and
    /// then every ten minutes (section 4).
    pub async fn clean_up(&self) {
        let now = self.0.clock.now();
        if let Some(store) = &self.0.store
            && let Err(error) = store.expire(now).await
        {
            tracing::warn!(%error, "expired mail was not deleted");
        }
        let ledger = Arc::clone(&self.0.ledger);
        blocking("ledger", move || ledger.prune(now).map(drop)).await;
    }

    // --- for the layers ---

    /// Registers a request and sends it.
    pub(crate) fn ask(&self, peer: &RemotePeer, since: u64) -> Result<(), OutboxError> {
        let inner = &*self.0;
        // Answers are counted by their bytes: two equal ones, from two peers, would be one.
        let request_id = inner.entropy.rng().next_u32().max(1);
        let limit = u32::try_from(inner.config.max_accepted).unwrap_or(u32::MAX);
        inner
            .asking
            .lock()
            .register(peer.node_id, request_id, inner.clock.now());
        let request = StoredMessagesRequest {
            since,
            request_id,
            limit,
        };
        let (saf, to) = (Arc::downgrade(&self.0), peer.node_id);
        let request = send_request(
            peer,
            MessageType::SafRequestMessages,
            Priority::Control,
            dht_proto::encode(&request),
        );
        let sent = inner.outbox.try_send_reporting(
            request,
            Box::new(move |sent| {
                if !sent && let Some(inner) = saf.upgrade() {
                    let saf = Self(inner);
                    let round = saf.0.asking.lock().given_up(&to);
                    saf.report(round);
                }
            }),
        );
        metrics::asked(if sent.is_ok() { "sent" } else { "unsent" });
        if sent.is_err() {
            let round = inner.asking.lock().given_up(&peer.node_id);
            self.report(round);
        }
        sent
    }

    /// An answer was taken as a whole.
    pub(crate) fn answered(&self) {
        if self.0.first.lock().answered() {
            self.emit(SafEvent::Received);
        }
    }

    pub(crate) fn report(&self, round: Option<Round>) {
        if let Some(round) = round {
            tracing::info!(?round, "caught up with stored mail");
            self.emit(SafEvent::CaughtUp(round));
        }
    }

    fn emit(&self, event: SafEvent) {
        // Nobody needs to listen.
        let _ = self.0.events.send(event);
    }
}

impl Surroundings for Inner {
    fn stores(&self) -> bool {
        self.store.is_some()
    }

    fn own_key(&self) -> &PublicKey {
        self.identity.public_key()
    }

    fn is_banned(&self, key: &PublicKey) -> bool {
        self.directory.is_banned(&key.node_id(), self.clock.now())
    }

    fn in_region(&self, key: &PublicKey) -> bool {
        let now: UnixSeconds = self.clock.now();
        self.directory
            .in_region(&key.node_id(), self.config.region_size, now)
    }
}

impl fmt::Debug for Saf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saf")
            .field("config", &self.0.config)
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SafParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafParts")
            .field("identity", &self.identity)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Runs work that reads or writes files where blocking is allowed, and logs its failure.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            metrics::failed(&error);
            tracing::warn!(%error, what, "store-and-forward cannot use its files");
            None
        }
        // Only when the runtime shuts down.
        Err(_) => None,
    }
}
