//! Messages that wait for one subscriber.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound::{Excluded, Unbounded},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use dht_core::Deliverer;
use dht_stack::{ByteBudget, BytePermit};
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{channels, received::Received};

/// Time without a read after which no message waits for room any more, until the subscriber reads again.
pub(super) const READER_PATIENCE: Duration = Duration::from_secs(60);

/// The queue of one subscriber, who gets a message of each deliverer in turn.
///
/// A message that is *queued* is paid for out of the budget of all subscribers. One without room *waits*: it goes on holding
/// the memory of arriving messages, and its delivery can withdraw it.
#[derive(Debug)]
pub(super) struct SubscriberQueue {
    state: Mutex<State>,
    /// Notified when there is something to read, or nothing more comes.
    changed: Notify,
    budget: ByteBudget,
    /// Notified when messages that were refused because of this queue can be delivered.
    room: Arc<Notify>,
    missed: AtomicU64,
}

/// A message for one of its subscribers.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    pub(super) received: Received,
    pub(super) taken: Taken,
}

/// Tells the delivery that a subscriber took the message. Shared by the copies of one message.
#[derive(Clone, Debug)]
pub(super) struct Taken(Arc<Mutex<Option<oneshot::Sender<()>>>>);

/// Outcome of an offer.
#[derive(Debug)]
pub(super) enum Offered {
    Queued,
    /// It is read in its turn, unless its place is dropped before.
    Waits(Place),
    /// It has no room, and for [`READER_PATIENCE`] nothing was read.
    Behind,
    /// Nobody reads it.
    Closed,
}

/// Place of a message that waits. Dropped, it withdraws the message.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<SubscriberQueue>,
    deliverer: Deliverer,
    number: u64,
    /// Closed once the message is queued, read, or will not be.
    left: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct State {
    lines: BTreeMap<Deliverer, Line>,
    /// Deliverer of the message that was read last.
    last: Option<Deliverer>,
    /// Bytes of what is queued.
    bytes: usize,
    /// Messages that wait.
    waiting: usize,
    /// Number of the next message that waits.
    number: u64,
    /// Since when messages have waited and nothing was read.
    blocked: Option<Instant>,
    /// A message was refused since the last read.
    has_refused: bool,
    is_closed: bool,
}

/// Messages of one deliverer. Those that wait are younger than those that are queued.
#[derive(Debug, Default)]
struct Line {
    queued: VecDeque<(Copied, BytePermit)>,
    /// Bytes of what is queued.
    bytes: usize,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    copy: Copied,
    bytes: usize,
    /// Dropped with this.
    _place: oneshot::Sender<()>,
}

// === impl SubscriberQueue ===

impl SubscriberQueue {
    pub(super) fn new(budget: ByteBudget, room: Arc<Notify>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            budget,
            room,
            missed: AtomicU64::new(0),
        }
    }

    /// Queues a message of `bytes`, or lets it wait.
    pub(super) fn offer(
        self: &Arc<Self>,
        copy: Copied,
        deliverer: Deliverer,
        bytes: usize,
    ) -> Offered {
        let mut state = self.state.lock();
        if state.is_closed {
            return Offered::Closed;
        }
        let waits = (state.lines.get(&deliverer)).is_some_and(|line| !line.waiting.is_empty());
        let permit = (!waits).then(|| state.permit(&self.budget, deliverer, bytes));
        let offered = match permit.flatten() {
            Some(permit) => {
                let line = state.lines.entry(deliverer).or_default();
                line.queued.push_back((copy, permit));
                Offered::Queued
            }
            None if state.is_behind() => return Offered::Behind,
            None => {
                let (number, left) = state.wait(copy, deliverer, bytes);
                Offered::Waits(Place {
                    queue: Arc::clone(self),
                    deliverer,
                    number,
                    left,
                })
            }
        };
        drop(state);
        self.changed.notify_one();
        offered
    }

    /// The next message; `None` once it is closed and empty.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub(super) async fn read(&self) -> Option<Copied> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(copy) = state.next(&self.budget) {
                    if std::mem::take(&mut state.has_refused) {
                        self.room.notify_one();
                    }
                    return Some(copy);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Whether messages without room do not wait.
    pub(super) fn is_behind(&self) -> bool {
        self.state.lock().is_behind()
    }

    /// Whether it would find itself [behind](Offered::Behind) if this message was offered.
    pub(super) fn would_refuse(&self, deliverer: Deliverer, bytes: usize) -> bool {
        let state = self.state.lock();
        state.is_behind() && !state.has_room(&self.budget, deliverer, bytes)
    }

    /// When messages that wait have waited long enough, unless something is read before.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let blocked = self.state.lock().blocked?;
        blocked.checked_add(READER_PATIENCE)
    }

    /// Notes that a message was refused because of this queue, which says so once it is read again.
    pub(super) fn refuse(&self) {
        let mut state = self.state.lock();
        if state.is_behind() {
            state.has_refused = true;
        } else {
            self.room.notify_one();
        }
    }

    /// Counts a message that the subscriber does not get.
    pub(super) fn miss(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Takes no more messages; what is in can be read.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Takes no more messages, and drops those that nobody has read.
    pub(super) fn leave(&self) {
        let closed = State {
            is_closed: true,
            ..State::default()
        };
        // Dropped with the lock free.
        let left = std::mem::replace(&mut *self.state.lock(), closed);
        if left.has_refused {
            self.room.notify_one();
        }
    }
}

// === impl Taken ===

impl Taken {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, taken) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), taken)
    }

    pub(super) fn tell(&self) {
        if let Some(delivery) = self.0.lock().take() {
            // A delivery that was cancelled waits no more.
            let _ = delivery.send(());
        }
    }
}

// === impl Place ===

impl Place {
    /// Ready once the message is queued or read, or will not be.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.left.poll_unpin(cx).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Dropped with the lock free.
        let _withdrawn = self
            .queue
            .state
            .lock()
            .withdraw(self.deliverer, self.number);
    }
}

// === impl State ===

impl State {
    /// Whether a message may be queued: as the first one any, which takes the whole budget if it is longer; otherwise one whose
    /// deliverer thereafter has no more queued than is free of the budget beside what the subscriber has.
    fn has_room(&self, budget: &ByteBudget, deliverer: Deliverer, bytes: usize) -> bool {
        if self.bytes == 0 {
            return bytes.min(budget.total()) <= budget.available();
        }
        let line = self.lines.get(&deliverer);
        let (rows, held) = line.map_or((0, 0), |line| (line.queued.len(), line.bytes));
        let used = self.bytes.saturating_add(bytes.saturating_mul(2));
        let free = budget.available().saturating_sub(used);
        rows < channels::INBOX.capacity && held.saturating_add(bytes) <= free
    }

    /// The right to queue a message, which is counted.
    fn permit(
        &mut self,
        budget: &ByteBudget,
        deliverer: Deliverer,
        bytes: usize,
    ) -> Option<BytePermit> {
        if !self.has_room(budget, deliverer, bytes) {
            return None;
        }
        let permit = budget.try_acquire(bytes)?;
        let line = self.lines.entry(deliverer).or_default();
        line.bytes = line.bytes.saturating_add(permit.bytes());
        self.bytes = self.bytes.saturating_add(permit.bytes());
        Some(permit)
    }

    /// Lets a message wait; its number, and what ends with the wait.
    fn wait(
        &mut self,
        copy: Copied,
        deliverer: Deliverer,
        bytes: usize,
    ) -> (u64, oneshot::Receiver<()>) {
        let (place, left) = oneshot::channel();
        let number = self.number;
        self.number = number.wrapping_add(1);
        let waiting = Waiting {
            copy,
            bytes,
            _place: place,
        };
        let line = self.lines.entry(deliverer).or_default();
        line.waiting.insert(number, waiting);
        self.waiting = self.waiting.saturating_add(1);
        self.blocked.get_or_insert_with(Instant::now);
        (number, left)
    }

    /// Takes the oldest message of the deliverer after the last one, and queues the next of its deliverer that waits.
    fn next(&mut self, budget: &ByteBudget) -> Option<Copied> {
        let after = (self.last.map_or(Unbounded, Excluded), Unbounded);
        let next = self.lines.range(after).next();
        let deliverer = *next.or_else(|| self.lines.first_key_value())?.0;
        let line = self.lines.get_mut(&deliverer)?;
        let copy = match line.queued.pop_front() {
            Some((copy, permit)) => {
                line.bytes = line.bytes.saturating_sub(permit.bytes());
                self.bytes = self.bytes.saturating_sub(permit.bytes());
                drop(permit);
                copy
            }
            None => {
                self.waiting = self.waiting.saturating_sub(1);
                line.waiting.pop_first()?.1.copy
            }
        };
        self.last = Some(deliverer);
        self.queue_waiting(budget, deliverer);
        self.blocked = (self.waiting > 0).then(Instant::now);
        Some(copy)
    }

    /// Queues messages of a deliverer that wait, as far as there is room.
    fn queue_waiting(&mut self, budget: &ByteBudget, deliverer: Deliverer) {
        loop {
            let Some(line) = self.lines.get(&deliverer) else {
                return;
            };
            let Some((&number, waiting)) = line.waiting.first_key_value() else {
                if line.queued.is_empty() {
                    self.lines.remove(&deliverer);
                }
                return;
            };
            let bytes = waiting.bytes;
            let Some(permit) = self.permit(budget, deliverer, bytes) else {
                return;
            };
            if let Some(line) = self.lines.get_mut(&deliverer)
                && let Some(Waiting { copy, .. }) = line.waiting.remove(&number)
            {
                line.queued.push_back((copy, permit));
                self.waiting = self.waiting.saturating_sub(1);
            }
        }
    }

    fn withdraw(&mut self, deliverer: Deliverer, number: u64) -> Option<Waiting> {
        let line = self.lines.get_mut(&deliverer)?;
        let withdrawn = line.waiting.remove(&number)?;
        self.waiting = self.waiting.saturating_sub(1);
        if line.queued.is_empty() && line.waiting.is_empty() {
            self.lines.remove(&deliverer);
        }
        Some(withdrawn)
    }

    fn is_behind(&self) -> bool {
        self.blocked
            .is_some_and(|blocked| blocked.elapsed() >= READER_PATIENCE)
    }
}
