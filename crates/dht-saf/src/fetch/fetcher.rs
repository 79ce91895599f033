//! Asks peers for stored messages, and reports when everything is here: 05 sections 7 and 9.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dht_core::{
    Clock as _, DedupHash, Distance, Entropy as _, Features, NodeId, NodeIdentity, RemotePeer,
    SendQueue, SendQueueError, SharedClock, SharedEntropy, UnixSeconds,
};
use dht_dedup::DedupTable;
use dht_peers::{
    Connections, Directory,
    policy::{AttributionProfile, BanPolicy},
};
use dht_proto::store_forward::StoredMessagesRequest;
use parking_lot::Mutex;
use rand_core::Rng as _;
use tokio::sync::broadcast;

use super::{
    clock_skew::{ClockSkew, TOLERANCE_SECONDS},
    first_responses::FirstResponses,
    hang_ups::HangUps,
    left_behind::LeftBehind,
    tracker::{FetchSummary, FetchTracker, Request, TrackerConfig},
};
use crate::{
    blocking::blocking,
    config::Config,
    ledger::Ledger,
    metrics,
    receipt::{Decisions, RECEIPT_PROTOCOL},
    send,
};

/// Connected peers asked by one [`Saf::request_from_random_peers`](crate::Saf::request_from_random_peers) (05 section 7,
/// `broadcast_factor`).
pub const PEERS_ASKED: usize = 8;
/// Events queued for one subscriber; a subscriber that falls further behind misses the oldest.
pub const EVENT_CAPACITY: usize = 64;

/// Event of store-and-forward for the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SafEvent {
    /// The first responses after going online are in (05 section 9). At most once in a run.
    Received,
    /// Every peer that was asked has sent all it stores, or was given up.
    CaughtUp(FetchSummary),
}

/// Parts that a [`Fetcher`] works with.
pub(crate) struct FetchParts {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: SharedEntropy,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) send_queue: Arc<dyn SendQueue>,
    pub(crate) bans: BanPolicy,
    pub(crate) dedup: DedupTable,
    pub(crate) decisions: Arc<Decisions>,
}

/// Fetches what other nodes store for this one.
pub(crate) struct Fetcher {
    pub(super) parts: FetchParts,
    pub(super) tracker: Mutex<FetchTracker>,
    pub(super) left: Mutex<LeftBehind>,
    pub(super) hang_ups: Mutex<HangUps>,
    pub(super) skew: Mutex<ClockSkew>,
    /// Seconds by which the clock of a responder may be ahead: none in the legacy profile.
    pub(super) tolerance_seconds: u64,
    /// Most messages asked for and accepted in one response, 1 to 1024.
    pub(super) max_messages: usize,
    /// Age in seconds beyond which a stored message is a replay, and for which received ones are remembered.
    pub(super) max_age_seconds: u64,
    auto_request: bool,
    /// Number of closest connected peers asked on connecting; 0 asks every peer.
    closest: usize,
    /// Seconds before the watermark from which on a responder is read.
    pub(super) margin_seconds: u64,
    first: Mutex<FirstResponses>,
    events: broadcast::Sender<SafEvent>,
    /// Whether the application listens; no peer is asked before.
    listening: AtomicBool,
}

impl Fetcher {
    pub(crate) fn new(parts: FetchParts, config: &Config) -> Self {
        let tracker = FetchTracker::new(TrackerConfig {
            match_ids: parts.bans.profile() == AttributionProfile::Strict,
            answer_seconds: config.answer_seconds,
            patience_seconds: config.patience_seconds,
        });
        let tolerance_seconds = match parts.bans.profile() {
            AttributionProfile::Strict => TOLERANCE_SECONDS,
            AttributionProfile::Legacy => 0,
        };
        Self {
            parts,
            tracker: Mutex::new(tracker),
            left: Mutex::default(),
            hang_ups: Mutex::default(),
            skew: Mutex::default(),
            tolerance_seconds,
            max_messages: config.max_messages(),
            max_age_seconds: config.max_age_seconds,
            auto_request: config.auto_request,
            closest: config.auto_request_closest,
            margin_seconds: config.margin_seconds,
            first: Mutex::default(),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            listening: AtomicBool::new(false),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<SafEvent> {
        self.events.subscribe()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    /// The application listens from now on: asks the connected peers, and every peer that connects.
    pub(crate) fn listen(self: &Arc<Self>) {
        if self.listening.swap(true, Ordering::AcqRel) {
            let now = self.parts.clock.now();
            self.left.lock().hasten(now);
            self.ask_for_left(now);
            return;
        }
        let connected = self.parts.connections.snapshot();
        // First, as each call of `connected` counts as going online with one peer.
        if !connected.is_empty() {
            self.online(connected.len());
        }
        for entry in connected.iter() {
            self.connected(&entry.peer);
        }
    }

    /// Messages have left the inbox: what had no place in it may have one now. Asks within ten seconds the peers that have
    /// such messages.
    pub(crate) fn room_made(&self) {
        self.left.lock().room_made();
    }

    /// A peer has connected: asks it, if the settings say so.
    pub(crate) fn connected(self: &Arc<Self>, peer: &RemotePeer) {
        if self.listening.load(Ordering::Acquire) {
            self.ask(peer);
            self.online(1);
        }
    }

    /// Asks a peer, if the settings say so.
    fn ask(self: &Arc<Self>, peer: &RemotePeer) {
        if !self.listening.load(Ordering::Acquire) {
            return;
        }
        let known = self.parts.directory.find(&peer.node_id);
        let features = known.map(|known| known.features());
        let active = self.parts.connections.snapshot();
        let active = active.iter().map(|entry| entry.peer.node_id);
        let me = self.parts.identity.node_id();
        let stores = features.is_some_and(|it| it.contains(Features::DHT_STORE_FORWARD));
        if self.auto_request && stores && is_close(me, &peer.node_id, active, self.closest) {
            let now = self.parts.clock.now();
            if self.hang_ups.lock().may_ask(&peer.node_id, now) {
                // A refusal is counted, and ends the fetch.
                let _ = self.request_from(peer);
            }
        }
    }

    /// The connection to a peer has ended.
    pub(crate) fn disconnected(&self, peer: &NodeId) {
        if self.tracker.lock().is_pending(peer) {
            let now = self.parts.clock.now();
            self.hang_ups.lock().note(*peer, now);
        }
        self.left.lock().restart(peer);
        self.give_up(peer);
    }

    /// Asks a peer for everything new.
    pub(crate) fn request_from(self: &Arc<Self>, peer: &RemotePeer) -> Result<(), SendQueueError> {
        let now = self.parts.clock.now();
        if !self.tracker.lock().begin(peer.node_id, now) {
            return Ok(());
        }
        self.request_since(peer, self.since(peer))
    }

    /// The second from which on a peer is asked first.
    pub(super) fn since(&self, peer: &RemotePeer) -> u64 {
        if self.deletes_for_all(&peer.node_id) {
            return 0;
        }
        let read = self.parts.ledger.watermark(&peer.public_key);
        read.map_or(0, |at| at.0.saturating_sub(self.margin_seconds))
    }

    /// Whether a request with a `since` makes this peer delete what it stores for other nodes, as stock nodes do (05
    /// defect D2): a peer that gives no receipts.
    pub(super) fn deletes_for_all(&self, peer: &NodeId) -> bool {
        let known = self.parts.directory.find(peer);
        known.is_none_or(|known| !known.protocols().contains(&RECEIPT_PROTOCOL))
    }

    /// Asks the connected peers again that have messages this node had no place for, or that have hung up before, if their
    /// time has come.
    fn ask_for_left(self: &Arc<Self>, now: UnixSeconds) {
        let mut due = self.left.lock().due(now);
        due.append(&mut self.hang_ups.lock().due(now));
        let connected = self.parts.connections.snapshot();
        for entry in connected
            .iter()
            .filter(|entry| due.contains(&entry.peer.node_id))
        {
            // A refusal ends the fetch.
            let _ = self.request_from(&entry.peer);
        }
    }

    /// Asks up to [`PEERS_ASKED`] connected peers at random; returns how many.
    pub(crate) fn request_from_random_peers(self: &Arc<Self>) -> usize {
        let mut rng = self.parts.entropy.rng();
        let connected = self.parts.connections.snapshot();
        let chosen = connected.random(PEERS_ASKED, &[], &mut rng);
        chosen
            .iter()
            .filter(|peer| self.request_from(peer).is_ok())
            .count()
    }

    /// This node is online with `n` peers.
    pub(crate) fn online(&self, n: usize) {
        if self.first.lock().online(n) {
            self.emit(SafEvent::Received);
        }
    }

    pub(crate) fn is_fetching(&self) -> bool {
        !self.tracker.lock().is_idle()
    }

    /// Gives up silent peers, and writes received messages down.
    pub(crate) async fn tick(self: &Arc<Self>) {
        self.ask_for_left(self.parts.clock.now());
        let summary = self.tracker.lock().tick(self.parts.clock.now());
        self.report(summary);
        let ledger = Arc::clone(&self.parts.ledger);
        blocking("ledger", ledger.blocks(), move || ledger.flush()).await;
    }

    /// Forgets received messages that no peer can store any more.
    pub(crate) async fn forget_old(&self) {
        let now = self.parts.clock.now();
        let ledger = Arc::clone(&self.parts.ledger);
        blocking("ledger", ledger.blocks(), move || {
            ledger.prune(now).map(drop)
        })
        .await;
    }

    /// Forgets that these messages were received, and reads every responder again from the oldest message on that may be
    /// one of them. False if that could not be written.
    pub(crate) async fn forget_lost(
        &self,
        is_lost: impl Fn(&DedupHash) -> bool + Send + 'static,
    ) -> bool {
        let (ledger, seconds) = (Arc::clone(&self.parts.ledger), self.max_age_seconds);
        let forgetting = move || ledger.forget(is_lost, seconds);
        let forgotten = blocking("ledger", self.parts.ledger.blocks(), forgetting).await;
        forgotten.is_some()
    }

    /// Asks the connected peers as if they had connected now; none before the application listens.
    pub(crate) fn ask_connected(self: &Arc<Self>) {
        for entry in self.parts.connections.snapshot().iter() {
            self.ask(&entry.peer);
        }
    }

    /// Registers and sends a request for messages stored from second `since` on.
    pub(super) fn request_since(
        self: &Arc<Self>,
        peer: &RemotePeer,
        since: u64,
    ) -> Result<(), SendQueueError> {
        self.request(peer, since, self.max_messages, None)
    }

    /// Registers and sends a request for at most `limit` messages stored from second `since` on. With `left`, it continues
    /// behind the last page, off which messages from that second on were not taken.
    pub(super) fn request(
        self: &Arc<Self>,
        peer: &RemotePeer,
        since: u64,
        limit: usize,
        left: Option<UnixSeconds>,
    ) -> Result<(), SendQueueError> {
        let parts = &self.parts;
        // The dedup table knows messages by their bytes: equal requests of two peers would be one.
        let id = parts.entropy.rng().next_u32().max(1);
        let now = parts.clock.now();
        let asked = Request {
            id,
            since,
            limit,
            left,
        };
        self.tracker.lock().register(peer.node_id, asked, now);
        let request = StoredMessagesRequest {
            since,
            request_id: id,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            continued: left.is_some(),
        };
        let (fetcher, to) = (Arc::downgrade(self), peer.node_id);
        let request = send::ask(peer, dht_proto::encode(&request));
        let sent = parts.send_queue.try_send_reporting(
            request,
            Box::new(move |sent| {
                if !sent && let Some(fetcher) = fetcher.upgrade() {
                    fetcher.give_up(&to);
                }
            }),
        );
        metrics::asked(if sent.is_ok() { "sent" } else { "unsent" });
        if sent.is_err() {
            self.give_up(&peer.node_id);
        }
        sent
    }

    /// A response was taken as a whole.
    pub(super) fn answered(&self) {
        if self.first.lock().answered() {
            self.emit(SafEvent::Received);
        }
    }

    pub(super) fn give_up(&self, peer: &NodeId) {
        let summary = self.tracker.lock().given_up(peer);
        self.report(summary);
    }

    pub(super) fn report(&self, summary: Option<FetchSummary>) {
        if let Some(summary) = summary {
            tracing::info!(?summary, "fetched stored messages");
            self.emit(SafEvent::CaughtUp(summary));
        }
    }

    fn emit(&self, event: SafEvent) {
        // Without a subscriber the event is of no use.
        let _ = self.events.send(event);
    }
}

/// Whether `peer` is no farther from `me` than the `closest`-th of the connected peers; true for all if `closest` is 0.
fn is_close(
    me: &NodeId,
    peer: &NodeId,
    connected: impl IntoIterator<Item = NodeId>,
    closest: usize,
) -> bool {
    let Some(at) = closest.checked_sub(1) else {
        return true;
    };
    let mut distances: Vec<Distance> = connected
        .into_iter()
        .map(|other| me.distance(&other))
        .collect();
    distances.sort_unstable();
    let bound = distances.get(at).or_else(|| distances.last()).copied();
    me.distance(peer) <= bound.unwrap_or(Distance::MAX)
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("tracker", &self.tracker)
            .finish_non_exhaustive()
    }
}
