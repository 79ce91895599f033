//! Does what [`Sending`] decides, for every message of the outbox: one task.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dht_core::{
    Clock as _, DedupHash, DeliveryError, Entropy as _, Message, NodeId, PublicKey, SendRequest,
    Strategy, UnixSeconds,
};
use dht_outbound::{Candidates, Outbound, Searcher, SelectConfig, SendError, select};
use dht_spool::{
    Entry, EntryContent, EntryFilter, EntryId, SendState, SpoolError, StateKind, Transition,
};
use dht_transport::Transport;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    Fresh, Shared, Signals,
    delivery::Progress,
    places::Place,
    sealed::SealedFrame,
    sending::{Action, Answer, Copy, Event, Now, Sending},
};
#[cfg(feature = "saf")]
use crate::saf::receipt::ReceiptAskers;
use crate::{Received, adapters::ToApplication, shared::Shared as NodeShared};

/// Messages of the spool that are tried again at one time.
const RETRYING: usize = 64;
/// Recipients searched for at one time.
const SEARCHING: usize = 32;
/// How often expiry is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two times at which entries that ended long ago are removed.
const TICKS_A_CLEAN_UP: u32 = 60;
/// Entries read at once when the node starts.
const PAGE: usize = 1_000;
/// Time a connection must be old for a stock peer to have taken its streams.
const YOUNG: Duration = Duration::from_millis(500);

/// What the driver works with.
#[derive(Clone)]
pub(crate) struct DriverParts {
    pub(crate) node: NodeShared,
    pub(crate) transport: Transport,
    pub(crate) outbound: Outbound,
    pub(crate) searcher: Searcher,
    pub(crate) select: SelectConfig,
    pub(crate) application: ToApplication,
    #[cfg(feature = "saf")]
    pub(crate) receipts: ReceiptAskers,
}

/// Sends every message of the outbox.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    parts: DriverParts,
    arriving: mpsc::Receiver<Fresh>,
    listing: watch::Sender<()>,
    start: Instant,
    /// Messages that have not ended. Bounded by the rows of the spool.
    messages: HashMap<EntryId, Tracked>,
    timers: BTreeSet<(Duration, EntryId)>,
    expiry: BTreeSet<(UnixSeconds, EntryId)>,
    /// Messages whose next attempt is due and waits for a place.
    ready: VecDeque<EntryId>,
    retrying: usize,
    searches: Arc<Semaphore>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// A message of the outbox.
struct Tracked {
    sending: Sending,
    recipient: PublicKey,
    expires_at: UnixSeconds,
    timer: Option<Duration>,
    load: Load,
}

/// Whether the frame is in memory.
enum Load {
    OnDisk,
    /// In [`Driver::ready`], or being read.
    Wanted,
    Held {
        sealed: SealedFrame,
        /// `None` for a message that is tried again, which are few.
        place: Option<Place>,
    },
}

/// The end of something the driver began.
enum Done {
    Event(EntryId, Event),
    Persisted(EntryId, Result<StateKind, SpoolError>),
    Loaded(EntryId, Result<Option<EntryContent>, SpoolError>),
    Listed(Result<Vec<Entry>, SpoolError>),
    Nothing,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        parts: DriverParts,
        arriving: mpsc::Receiver<Fresh>,
        listing: watch::Sender<()>,
    ) -> Self {
        Self {
            shared,
            parts,
            arriving,
            listing,
            start: Instant::now(),
            messages: HashMap::new(),
            timers: BTreeSet::new(),
            expiry: BTreeSet::new(),
            ready: VecDeque::new(),
            retrying: 0,
            searches: Arc::new(Semaphore::new(SEARCHING)),
            running: FuturesUnordered::new(),
        }
    }

    /// Runs until every handle is gone.
    ///
    /// # Cancel safety
    /// Dropping the future drops what is under way; the spool has every message that has not ended.
    pub(crate) async fn run(mut self) {
        self.list(None);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        let mut tick = 0_u32;
        loop {
            let next = self.timers.first().map(|(at, _)| self.start + *at);
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.running.next(), if !self.running.is_empty() => self.on_done(done),
                fresh = self.arriving.recv() => match fresh {
                    Some(fresh) => self.on_fresh(fresh),
                    None => return,
                },
                () = timer => self.on_timers(),
                () = shared.signalled.notified() => {
                    let signals = std::mem::take(&mut *shared.signals.lock());
                    self.on_signals(&signals);
                }
                _ = ticks.tick() => {
                    tick = tick.wrapping_add(1);
                    self.on_tick(tick.is_multiple_of(TICKS_A_CLEAN_UP));
                }
            }
            self.load_ready();
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.start.elapsed(),
            unix: self.parts.node.clock.now(),
        }
    }

    fn spawn(&self, task: impl Future<Output = Done> + Send + 'static) {
        self.running.push(task.boxed());
    }

    /// Reads the entries above `after`.
    fn list(&self, after: Option<EntryId>) {
        let spool = self.shared.spool.clone();
        self.spawn(async move {
            let list = move || spool.list(EntryFilter::default(), after, PAGE);
            let entries = tokio::task::spawn_blocking(list).await;
            Done::Listed(entries.unwrap_or(Err(SpoolError::Closed)))
        });
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Event(id, event) => self.handle(id, event),
            Done::Persisted(id, outcome) => self.on_persisted(id, outcome),
            Done::Loaded(id, content) => self.on_loaded(id, content),
            Done::Listed(entries) => {
                self.on_listed(entries);
                self.listing.send_replace(());
            }
            Done::Nothing => {}
        }
    }

    fn on_fresh(&mut self, fresh: Fresh) {
        let Fresh {
            entry,
            sealed,
            place,
        } = fresh;
        if self.messages.contains_key(&entry.id) {
            // Somebody asked for it in between.
            return;
        }
        let held = Load::Held {
            sealed,
            place: Some(place),
        };
        self.track(&entry, held);
        self.begin(entry.id);
    }

    fn on_listed(&mut self, entries: Result<Vec<Entry>, SpoolError>) {
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "messages of the outbox are not tried until the next start");
                return;
            }
        };
        if let Some(last) = entries.last()
            && entries.len() == PAGE
        {
            self.list(Some(last.id));
        }
        for entry in &entries {
            if entry.ended_at.is_none() && !self.messages.contains_key(&entry.id) {
                drop(self.shared.watch(entry));
                self.track(entry, Load::OnDisk);
                self.settle(entry.id);
            }
        }
    }

    fn track(&mut self, entry: &Entry, load: Load) {
        let wanted = self.parts.select.neighbouring_nodes;
        let me = self.parts.node.directory.me();
        let sending = Sending::new(entry, me, wanted, self.now());
        self.expiry.insert((entry.expires_at, entry.id));
        let tracked = Tracked {
            sending,
            recipient: entry.recipient,
            expires_at: entry.expires_at,
            timer: None,
            load,
        };
        if tracked.is_busy() {
            self.shared.busy.fetch_add(1, Ordering::AcqRel);
        }
        self.messages.insert(entry.id, tracked);
    }

    fn on_timers(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now.at
        {
            self.timers.pop_first();
            let Some(tracked) = self.messages.get_mut(&id) else {
                continue;
            };
            tracked.timer = None;
            if tracked.sending.is_waiting() {
                if matches!(tracked.load, Load::OnDisk) {
                    tracked.load = Load::Wanted;
                    self.ready.push_back(id);
                }
            } else {
                self.handle(id, Event::Tick);
            }
        }
    }

    fn on_signals(&mut self, signals: &Signals) {
        for id in signals.wanted.iter().copied() {
            let spool = self.shared.spool.clone();
            self.spawn(async move {
                let entry = tokio::task::spawn_blocking(move || spool.get(id)).await;
                let entry = entry.unwrap_or(Err(SpoolError::Closed));
                Done::Listed(entry.map(Vec::from_iter))
            });
        }
        for id in &signals.withdrawn {
            self.fail(*id, "withdrawn");
        }
        if signals.appeared.is_empty() && signals.ended.is_empty() {
            return;
        }
        let mut concerned = Vec::new();
        for (id, tracked) in &self.messages {
            let recipient = tracked.sending.recipient();
            // Unless it is connected again.
            if signals.ended.contains(recipient) && !self.is_connected(recipient) {
                concerned.push((*id, Event::ConnectionEnded));
            }
            if !signals.appeared.is_empty() {
                let recipient = signals.appeared.contains(recipient);
                concerned.push((*id, Event::Appeared { recipient }));
            }
        }
        for (id, event) in concerned {
            self.handle(id, event);
        }
    }

    fn on_tick(&mut self, clean_up: bool) {
        let now = self.now();
        let mut over = Vec::new();
        while let Some((at, id)) = self.expiry.first().copied()
            && at < now.unix
        {
            self.expiry.pop_first();
            over.push(id);
        }
        if !over.is_empty() || clean_up {
            let expiring = self.shared.spool.expire(now.unix);
            self.spawn(async move {
                if let Err(error) = expiring.await {
                    tracing::warn!(%error, "expired messages were not written down");
                }
                Done::Nothing
            });
        }
        for id in over {
            if let Some(tracked) = self.messages.get_mut(&id) {
                let state = match tracked.sending.state() {
                    SendState::Queued => SendState::Expired,
                    SendState::Sent if !tracked.sending.is_settled() => SendState::Expired,
                    state => state.clone(),
                };
                if tracked.is_busy() {
                    self.shared.busy.fetch_sub(1, Ordering::AcqRel);
                }
                tracked.sending.end(state);
                self.settle(id);
                self.forget(id);
            }
        }
        // A caller that gave up while its message was written down left one that nobody has taken.
        let known = self.messages.len() as u64;
        if clean_up && self.shared.spool.stats().rows > known {
            self.list(None);
        }
    }

    /// Reads as many of the messages that are due as may be tried at one time.
    fn load_ready(&mut self) {
        while self.retrying < RETRYING
            && let Some(id) = self.ready.pop_front()
        {
            if !self.messages.contains_key(&id) {
                continue;
            }
            self.retrying += 1;
            let spool = self.shared.spool.clone();
            self.spawn(async move {
                let content = tokio::task::spawn_blocking(move || spool.content(id)).await;
                Done::Loaded(id, content.unwrap_or(Err(SpoolError::Closed)))
            });
        }
    }

    fn on_loaded(&mut self, id: EntryId, content: Result<Option<EntryContent>, SpoolError>) {
        self.retrying -= 1;
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        tracked.load = Load::OnDisk;
        let frame = content.map(|content| content.and_then(|content| content.frame));
        let sealed = frame.map(|frame| frame.and_then(SealedFrame::read));
        match sealed {
            Ok(Some(sealed)) => {
                tracked.load = Load::Held {
                    sealed,
                    place: None,
                };
                self.retrying += 1;
                self.begin(id);
            }
            Ok(None) | Err(SpoolError::Damaged) => {
                self.fail(id, "the stored message is damaged");
            }
            Err(error) => {
                tracing::warn!(%error, "a message of the outbox cannot be read");
                self.settle(id);
            }
        }
    }

    fn fail(&mut self, id: EntryId, reason: &str) {
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        let was_busy = tracked.is_busy();
        let reason = reason.to_owned();
        tracked.sending.end(SendState::Failed {
            reason: reason.clone(),
        });
        if was_busy {
            self.shared.busy.fetch_sub(1, Ordering::AcqRel);
        }
        self.persist(id, Transition::Failed { reason });
        self.settle(id);
    }

    fn begin(&mut self, id: EntryId) {
        let Some(tracked) = self.messages.get(&id) else {
            return;
        };
        let connected = self.is_connected(tracked.sending.recipient());
        self.handle(id, Event::Start { connected });
    }

    fn is_connected(&self, peer: &NodeId) -> bool {
        self.parts.transport.connection(peer).is_some()
    }

    fn handle(&mut self, id: EntryId, event: Event) {
        let now = self.now();
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        let was_busy = tracked.is_busy();
        let actions = tracked.sending.handle(event, now);
        match (was_busy, tracked.is_busy()) {
            (false, true) => self.shared.busy.fetch_add(1, Ordering::AcqRel),
            (true, false) => self.shared.busy.fetch_sub(1, Ordering::AcqRel),
            _ => 0,
        };
        for action in actions {
            self.act(id, action);
        }
        self.settle(id);
    }

    /// Brings timer, memory and watchers in step with the state of a message.
    fn settle(&mut self, id: EntryId) {
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        if !tracked.sending.is_trying()
            && let Load::Held { place, .. } = std::mem::replace(&mut tracked.load, Load::OnDisk)
            && place.is_none()
        {
            self.retrying -= 1;
        }
        let timer = match tracked.load {
            // It will be tried anyway.
            Load::Wanted => None,
            _ => tracked.sending.deadline(),
        };
        if timer != tracked.timer {
            if let Some(at) = tracked.timer.take() {
                self.timers.remove(&(at, id));
            }
            tracked.timer = timer;
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
        }
        if let Some(progress) = self.shared.live.lock().get(&id) {
            tracked.tell(progress);
        }
    }

    fn persist(&self, id: EntryId, transition: Transition) {
        let now = self.parts.node.clock.now();
        let update = self.shared.spool.update(id, transition, now);
        self.spawn(async move { Done::Persisted(id, update.await) });
    }

    fn on_persisted(&mut self, id: EntryId, outcome: Result<StateKind, SpoolError>) {
        if let Err(error) = outcome
            && error != SpoolError::Ended
        {
            // At worst it is sent again after a restart, and recognised.
            tracing::warn!(%error, id, "the state of a message was not written down");
        }
        if let Some(tracked) = self.messages.get(&id)
            && tracked.sending.is_ended()
        {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: EntryId) {
        let Some(tracked) = self.messages.remove(&id) else {
            return;
        };
        if let Some(at) = tracked.timer {
            self.timers.remove(&(at, id));
        }
        if tracked.is_busy() {
            self.shared.busy.fetch_sub(1, Ordering::AcqRel);
        }
        self.expiry.remove(&(tracked.expires_at, id));
        self.shared.live.lock().remove(&id);
    }

    fn act(&self, id: EntryId, action: Action) {
        match action {
            Action::Persist(transition) => self.persist(id, transition),
            Action::DeliverLocally => self.deliver_locally(id),
            Action::SendDirect(wait) => self.send_direct(id, wait),
            Action::SendToHolders { most, except } => self.send_to_holders(id, most, except),
            Action::SendAgain(holder, wait) => self.send_to_holder(id, holder, wait),
            Action::Ask(peer, wait) => self.ask(id, peer, wait),
        }
    }

    fn held(&self, id: EntryId) -> Option<(&Tracked, &SealedFrame)> {
        let tracked = self.messages.get(&id)?;
        match &tracked.load {
            Load::Held { sealed, .. } => Some((tracked, sealed)),
            _ => None,
        }
    }

    fn deliver_locally(&self, id: EntryId) {
        let spool = self.shared.spool.clone();
        let application = self.parts.application.clone();
        let hash = self.held(id).map(|(_, sealed)| sealed.hash);
        let me = *self.parts.node.identity.public_key();
        self.spawn(async move {
            let read = move || Some((spool.get(id).ok()??, spool.content(id).ok()??));
            let read = tokio::task::spawn_blocking(read).await.ok().flatten();
            let taken = match read.zip(hash) {
                Some(((entry, content), hash)) => {
                    let received = Received {
                        sender: Some(me),
                        via: me.node_id(),
                        message: Message {
                            message_type: entry.message_type,
                            payload: content.payload,
                        },
                    };
                    application.deliver_own(received, hash).await
                }
                None => false,
            };
            Done::Event(id, Event::Local(taken))
        });
    }

    fn send_direct(&self, id: EntryId, wait: Duration) {
        let Some((tracked, sealed)) = self.held(id) else {
            return;
        };
        let (to, peer) = (tracked.recipient, *tracked.sending.recipient());
        let strategy = Strategy::DirectPublicKey(to);
        let request = SendRequest::sealed(sealed.frame.clone(), strategy, sealed.tag);
        let (parts, shared) = (self.parts.clone(), Arc::clone(&self.shared));
        let searches = Arc::clone(&self.searches);
        self.spawn(async move {
            pause(wait).await;
            let known = parts.node.directory.find(&peer).is_some();
            if !known && let Err(error) = find(&parts, &searches, to).await {
                return Done::Event(id, Event::Direct(Copy::Failed(error)));
            }
            let copy = send(&parts, request, &peer).await;
            if copy == (Copy::Written { receipts: false }) {
                shared.linger_for(&parts.transport, &peer);
            }
            Done::Event(id, Event::Direct(copy))
        });
    }

    fn send_to_holders(&self, id: EntryId, most: usize, mut except: Vec<NodeId>) {
        let Some((tracked, sealed)) = self.held(id) else {
            return;
        };
        let target = *tracked.sending.recipient();
        except.push(target);
        let now = self.parts.node.clock.now();
        let closest = Strategy::ClosestNodes {
            target,
            exclude: except,
            connected_only: false,
        };
        let candidates = Candidates {
            me: self.parts.node.directory.me(),
            connected: &self.parts.node.connections.snapshot(),
            directory: &self.parts.node.directory,
            now,
        };
        let mut rng = self.parts.node.entropy.rng();
        let selection = select(&closest, candidates, &self.parts.select, &mut rng);
        let holders: Vec<_> = selection.ids().into_iter().take(most).collect();
        // Copies may come back.
        self.parts.node.dedup.seed(&sealed.hash, sealed.meta, now);
        let count = holders.len();
        self.spawn(async move { Done::Event(id, Event::Chosen(count)) });
        for holder in holders {
            self.send_to_holder(id, holder, Duration::ZERO);
        }
        self.search_stale(tracked.recipient);
    }

    fn send_to_holder(&self, id: EntryId, holder: NodeId, wait: Duration) {
        let Some((_, sealed)) = self.held(id) else {
            return;
        };
        let strategy = Strategy::SelectedPeers(vec![holder]);
        let request = SendRequest::sealed(sealed.frame.clone(), strategy, sealed.tag);
        let parts = self.parts.clone();
        self.spawn(async move {
            pause(wait).await;
            let copy = send(&parts, request, &holder).await;
            Done::Event(id, Event::Holder(holder, copy))
        });
    }

    /// Searches for a recipient whose known addresses do not answer. It appears when it is found and dialled.
    fn search_stale(&self, to: PublicKey) {
        let peer = to.node_id();
        if self.is_connected(&peer) || self.parts.node.directory.find(&peer).is_none() {
            return;
        }
        let (parts, searches) = (self.parts.clone(), Arc::clone(&self.searches));
        self.spawn(async move {
            if find(&parts, &searches, to).await.is_ok() {
                let _reached = parts.transport.dial_known(&peer).await;
            }
            Done::Nothing
        });
    }

    fn ask(&self, id: EntryId, peer: NodeId, wait: Duration) {
        let Some(hash) = self.held(id).map(|(_, sealed)| sealed.hash) else {
            return;
        };
        let parts = self.parts.clone();
        self.spawn(async move {
            pause(wait).await;
            Done::Event(id, Event::Receipt(peer, parts.ask(&peer, hash).await))
        });
    }
}

impl DriverParts {
    /// Whether a connected peer answers when it is asked for a receipt.
    #[cfg(feature = "saf")]
    fn gives_receipts(&self, peer: &NodeId) -> bool {
        let connection = self.transport.connection(peer);
        connection.is_some_and(|connection| {
            connection
                .info()
                .protocols
                .contains(&dht_saf::RECEIPT_PROTOCOL)
        })
    }

    #[cfg(feature = "saf")]
    async fn ask(&self, peer: &NodeId, hash: DedupHash) -> Answer {
        use dht_saf::Receipt;
        match self.receipts.ask(peer, hash).await {
            Some(Receipt::Received) => Answer::Received,
            Some(Receipt::Stored) => Answer::Stored,
            Some(Receipt::Neither) => Answer::Neither,
            None => Answer::Silent,
        }
    }

    #[cfg(not(feature = "saf"))]
    const fn gives_receipts(&self, _peer: &NodeId) -> bool {
        false
    }

    #[cfg(not(feature = "saf"))]
    async fn ask(&self, _peer: &NodeId, _hash: DedupHash) -> Answer {
        Answer::Silent
    }
}

impl Tracked {
    /// Whether a stop should wait for it.
    fn is_busy(&self) -> bool {
        self.sending.is_reaching_recipient()
    }

    fn tell(&self, progress: &watch::Sender<Progress>) {
        let sending = &self.sending;
        progress.send_if_modified(|told| {
            let changed = told.state != *sending.state()
                || told.settled != sending.is_settled()
                || told.last_error.as_deref() != sending.last_error();
            if changed {
                told.state = sending.state().clone();
                told.settled = sending.is_settled();
                told.last_error = sending.last_error().map(Arc::from);
            }
            changed
        });
    }
}

impl Shared {
    /// A stock peer takes a stream only while its own table has the connection, which is so a moment after it is made.
    fn linger_for(&self, transport: &Transport, peer: &NodeId) {
        let age = transport
            .connection(peer)
            .map(|connection| connection.age());
        if let Some(left) = age.and_then(|age| YOUNG.checked_sub(age)) {
            let until = Instant::now() + left;
            let mut linger = self.linger.lock();
            *linger = Some(linger.map_or(until, |before| before.max(until)));
        }
    }
}

/// Waits; not at all for a time of zero, which a timer rounds up to a millisecond.
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// Sends one copy and waits until a socket took it.
async fn send(parts: &DriverParts, request: SendRequest, peer: &NodeId) -> Copy {
    let sent = match parts.outbound.send(request).await {
        Ok(deliveries) => deliveries.wait_single_result().await,
        Err(SendError::Full | SendError::TimedOut) => return Copy::NoRoom,
        Err(SendError::NobodySelected) => {
            return Copy::Failed("the peer is not known, or is banned".to_owned());
        }
        Err(error) => return Copy::Failed(error.to_string()),
    };
    match sent {
        Ok(()) => Copy::Written {
            receipts: parts.gives_receipts(peer),
        },
        Err(DeliveryError::Dropped | DeliveryError::Expired) => Copy::NoRoom,
        Err(failure) => Copy::Failed(failure.to_string()),
    }
}

/// Searches for a node, if not too many are being searched for.
async fn find(parts: &DriverParts, searches: &Semaphore, key: PublicKey) -> Result<(), String> {
    let Ok(_searching) = searches.try_acquire() else {
        return Err("too many recipients are being searched for".to_owned());
    };
    let found = parts.searcher.discover(&key).await;
    found.map_err(|error| format!("recipient not found: {error}"))
}
