//! Does what [`Sending`] decides, for every message of the outbox: one task.

mod reading;
mod record;
mod withdrawal;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use dht_core::Clock as _;
use dht_outbound::SearchCause;
use dht_spool::{Entry, EntryId, SendState, SpoolError, Transition};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Fresh, OutboxShared, Signals, Withdrawal,
    actions::{Actions, WorkerParts},
    delivery::DeliveryStatus,
    event::{Now, SendingAction, SendingEvent},
    listings::Listings,
    messages::{Load, Messages},
    send_budget::SendPermit,
    sending::Sending,
    stored::Stored,
};

/// How often expiry is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two times at which entries that ended long ago are removed.
const TICKS_A_CLEAN_UP: u32 = 60;

/// Sends every message of the outbox.
pub(crate) struct OutboxWorker {
    shared: Arc<OutboxShared>,
    actions: Actions,
    arriving: mpsc::Receiver<Fresh>,
    listing: watch::Sender<()>,
    start: Instant,
    messages: Messages,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    listings: Listings,
    /// Messages to be withdrawn that are not known yet, and whom to tell. Bounded by the calls of `Node::withdraw` under way.
    withdrawn: BTreeMap<EntryId, Vec<Withdrawal>>,
    /// Messages whose withdrawal is being written down, and whom to tell. Bounded as `withdrawn`.
    withdrawing: BTreeMap<EntryId, Vec<Withdrawal>>,
    /// Messages that are complete, while the spool could not write that down. They are kept, so that no listing takes them up
    /// again, and written at the next clean-up. Bounded by the rows of the spool.
    unwritten: BTreeSet<EntryId>,
    /// Whether a peer has connected since the last tick.
    peer_appeared: bool,
}

/// The end of something the worker began.
enum Done {
    /// The answer to an action of this attempt.
    Answer(EntryId, u64, SendingEvent),
    /// Result of an update, and whether it was to end the message.
    Persisted(EntryId, bool, Result<DeliveryStatus, SpoolError>),
    /// The time to live of these is over.
    Expired(Vec<EntryId>, Result<(), SpoolError>),
    Read(EntryId, Result<Stored, SpoolError>, SendPermit),
    Listed(Result<Vec<Entry>, SpoolError>),
    /// One entry that a caller asked for.
    Found(EntryId, Result<Option<Entry>, SpoolError>),
    Nothing,
}

impl OutboxWorker {
    pub(super) fn new(
        shared: Arc<OutboxShared>,
        parts: WorkerParts,
        arriving: mpsc::Receiver<Fresh>,
        listing: watch::Sender<()>,
    ) -> Self {
        Self {
            actions: Actions::new(parts, Arc::clone(&shared)),
            messages: Messages::new(shared.busy.clone(), Arc::clone(&shared.reachability)),
            shared,
            arriving,
            listing,
            start: Instant::now(),
            running: FuturesUnordered::new(),
            listings: Listings::default(),
            withdrawn: BTreeMap::new(),
            withdrawing: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            peer_appeared: false,
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
            let next = self.messages.next_timer().map(|at| self.start + at);
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Rare events first, and begun work before more is taken.
                biased;
                _ = ticks.tick() => {
                    tick = tick.wrapping_add(1);
                    self.on_tick(tick.is_multiple_of(TICKS_A_CLEAN_UP));
                }
                () = timer => self.on_timers(),
                () = shared.signalled.notified() => {
                    let signals = std::mem::take(&mut *shared.signals.lock());
                    self.on_signals(signals);
                }
                Some(done) = self.running.next(), if !self.running.is_empty() => self.on_done(done),
                fresh = self.arriving.recv() => match fresh {
                    Some(fresh) => self.on_fresh(fresh),
                    None => return,
                },
            }
            self.read_ready();
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.start.elapsed(),
            unix: self.actions.parts.node.clock.now(),
        }
    }

    fn spawn(&self, task: impl Future<Output = Done> + Send + 'static) {
        self.running.push(task.boxed());
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Answer(id, attempt, event) => self.on_answer(id, attempt, event),
            Done::Persisted(id, is_end, outcome) => self.on_persisted(id, is_end, outcome),
            Done::Expired(ids, outcome) => self.on_expired(ids, outcome),
            Done::Read(id, stored, permit) => self.on_read(id, stored, permit),
            Done::Listed(entries) => self.on_listed(entries),
            Done::Found(id, entry) => self.on_found(id, entry),
            Done::Nothing => {}
        }
    }

    fn on_fresh(&mut self, fresh: Fresh) {
        let Fresh {
            entry,
            sealed,
            permit,
        } = fresh;
        // A caller asked for it in between, or withdrew it.
        let has_ended = !self.shared.live.lock().contains_key(&entry.id);
        if has_ended || self.messages.contains(entry.id) {
            return;
        }
        let held = Load::Held {
            sealed,
            _permit: permit,
        };
        self.track(&entry, held);
        self.begin(entry.id);
    }

    /// Whether the wall clock may end a message; it may end those of this life, whose time it began.
    fn may_expire(&self, id: EntryId) -> bool {
        self.shared.spool.is_new(id) || self.actions.parts.node.expiry.is_believed()
    }

    fn track(&mut self, entry: &Entry, load: Load) {
        let parts = &self.actions.parts;
        let (me, wanted) = (parts.node.directory.me(), parts.select.neighbouring_nodes);
        let sending = Sending::new(entry, me, wanted, self.now());
        self.messages.insert(entry, sending, load);
    }

    fn on_timers(&mut self) {
        for id in self.messages.take_due(self.now().at) {
            let sending = self.messages.get(id).map(|tracked| &tracked.sending);
            let is_paced = sending.is_some_and(|sending| {
                sending.is_writing_direct() && self.actions.is_paced(sending.recipient())
            });
            let event = if is_paced {
                SendingEvent::Paced
            } else {
                SendingEvent::Tick
            };
            self.handle(id, event);
        }
    }

    fn on_signals(&mut self, signals: Signals) {
        // They may be about messages that have just arrived.
        while let Ok(fresh) = self.arriving.try_recv() {
            self.on_fresh(fresh);
        }
        for id in signals.wanted {
            self.find(id);
        }
        for (id, answer) in signals.withdrawn {
            if self.messages.contains(id) {
                self.withdraw(id, vec![answer]);
            } else {
                // Its caller waits for room in the channel, or has given up.
                self.withdrawn.entry(id).or_default().push(answer);
                self.find(id);
            }
        }
        for recipient in &signals.ended {
            let is_connected = self.actions.is_connected(recipient);
            for id in self.messages.of(recipient) {
                let tracked = self.messages.get(id);
                // One that gives receipts is asked again once it is connected again; another may have lost the copy.
                if !is_connected || tracked.is_some_and(|it| it.sending.is_unconfirmed()) {
                    self.handle(id, SendingEvent::ConnectionEnded);
                }
            }
        }
        for recipient in &signals.appeared {
            self.messages.promote(recipient);
            for id in self.messages.of(recipient) {
                self.handle(id, SendingEvent::Appeared { recipient: true });
            }
        }
        self.peer_appeared |= !signals.appeared.is_empty();
    }

    fn on_tick(&mut self, clean_up: bool) {
        let now = self.now().unix;
        let is_believed = self.actions.parts.node.expiry.is_believed();
        let spool = &self.shared.spool;
        let may_end = |id| is_believed || spool.is_new(id);
        let mut expired = self.messages.take_expired(now, may_end);
        for id in &expired {
            self.messages.change(*id, Sending::expire);
            self.messages.refresh(*id);
        }
        if clean_up {
            for id in std::mem::take(&mut self.unwritten) {
                let tracked = self.messages.get(id);
                match tracked.and_then(|tracked| tracked.sending.ending()) {
                    Some(ending) => self.persist(id, ending),
                    None => expired.push(id),
                }
            }
        }
        if !expired.is_empty() || clean_up {
            self.expire(expired);
        }
        if std::mem::take(&mut self.peer_appeared) {
            for id in self.messages.queued() {
                self.handle(id, SendingEvent::Appeared { recipient: false });
            }
        }
        // A caller that gave up while its message was written down left one that no task has taken.
        if clean_up && self.shared.spool.stats().rows > self.messages.tried() as u64 {
            self.list(None);
        }
    }

    fn fail(&mut self, id: EntryId, reason: &str) {
        let reason = reason.to_owned();
        let failed = SendState::Failed {
            reason: reason.clone(),
        };
        if self
            .messages
            .change(id, |sending| sending.end(failed))
            .is_some()
        {
            self.persist(id, Transition::Failed { reason });
            self.messages.refresh(id);
        }
    }

    fn begin(&mut self, id: EntryId) {
        if let Some(tracked) = self.messages.get(id) {
            let connected = self.actions.is_connected(tracked.sending.recipient());
            self.handle(id, SendingEvent::Start { connected });
        }
    }

    /// The frame of a message has been read: its attempt begins, or goes on.
    fn resume(&mut self, id: EntryId) {
        for action in self.messages.take_deferred(id) {
            self.act(id, action);
        }
        if self.messages.is_due(id, self.now().at) {
            self.begin(id);
        }
        self.messages.refresh(id);
    }

    fn handle(&mut self, id: EntryId, event: SendingEvent) {
        let now = self.now();
        self.change(id, |sending| sending.handle(event, now));
    }

    fn on_answer(&mut self, id: EntryId, attempt: u64, event: SendingEvent) {
        let now = self.now();
        if let Some(tracked) = self.messages.get_mut(id) {
            tracked.answers = tracked.answers.saturating_sub(1);
        }
        self.change(id, |sending| {
            if attempt == sending.number() || event.is_of_message() {
                sending.handle(event, now)
            } else {
                sending.handle_late(event, now)
            }
        });
        self.forget_if_over(id);
    }

    fn change(
        &mut self,
        id: EntryId,
        change: impl FnOnce(&mut Sending) -> VecDeque<SendingAction>,
    ) {
        for action in self.messages.change(id, change).into_iter().flatten() {
            self.act(id, action);
        }
        self.refresh(id);
    }

    fn act(&mut self, id: EntryId, action: SendingAction) {
        let Some(tracked) = self.messages.get(id) else {
            return;
        };
        let attempt = tracked.sending.number();
        let running = &self.running;
        let mut begun = 0;
        let mut begin = |event: BoxFuture<'static, SendingEvent>| {
            begun += 1;
            running.push(
                event
                    .map(move |event| Done::Answer(id, attempt, event))
                    .boxed(),
            );
        };
        let (actions, to) = (self.actions.clone(), tracked.recipient);
        match (action, self.messages.held(id).cloned()) {
            (SendingAction::Persist(transition), _) => self.persist(id, transition),
            // Also for a copy that was written after its attempt, whose frame is no longer in memory.
            (SendingAction::Ask(peer, wait), _) => {
                if let Some(hash) = tracked.hash {
                    begin(actions.ask(peer, hash, wait).boxed());
                }
            }
            (SendingAction::Ping(connection), _) => {
                begin(actions.ping(to.node_id(), connection).boxed());
            }
            (SendingAction::Search, _) => {
                let searching = actions.search_stale(to);
                self.spawn(searching.map(|()| Done::Nothing));
            }
            (SendingAction::DeliverLocally, Some(sealed)) => {
                begin(actions.deliver_locally(sealed).boxed());
            }
            (SendingAction::SendDirect(wait), Some(sealed)) => {
                begin(actions.send_direct(to, sealed, wait).boxed());
            }
            (SendingAction::Find, _) => {
                let cause = if tracked.sending.is_first_attempt() {
                    SearchCause::Application
                } else {
                    SearchCause::Retry
                };
                begin(actions.find_recipient(to, cause).boxed());
            }
            (SendingAction::SendToHolders { most, except }, Some(sealed)) => {
                let holders = actions.choose_holders(to.node_id(), except, most, &sealed);
                begin(std::future::ready(SendingEvent::Chosen(holders.clone())).boxed());
                for holder in holders {
                    let actions = actions.clone();
                    let sending = actions.send_to_holder(holder, sealed.clone(), Duration::ZERO);
                    begin(sending.boxed());
                }
            }
            (SendingAction::SendAgain(holder, wait), Some(sealed)) => {
                begin(actions.send_to_holder(holder, sealed, wait).boxed());
            }
            (action @ SendingAction::SendToHolders { .. }, None) => self.messages.defer(id, action),
            // The attempt is over.
            (_, None) => {}
        }
        if let Some(tracked) = self.messages.get_mut(id) {
            tracked.answers += begun;
        }
    }
}
