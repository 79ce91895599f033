//! The queue of messages for one peer. No I/O; time is an argument.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dht_core::{DeliveryError, Priority};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{delivery::Reply, pace::PaceBucket};
use crate::{
    connection::{DialCause, Requester},
    error::EnqueueError,
};

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) frame: Bytes,
    pub(crate) priority: Priority,
    pub(crate) queued_at: Instant,
    pub(crate) resends: u8,
    /// A socket took all of it before its stream ended: the peer may have read it and hung up, or not. It is sent
    /// again where that is possible, and has been sent where it is not.
    pub(crate) taken: bool,
    reply: Option<Reply>,
    /// Gives the bytes back to the count of all peers.
    _bytes: HeldBytes,
}

/// Bounds of one peer's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) lifetime: Duration,
}

/// Bytes queued for all peers together.
///
/// The less important a message, the less of them it may use: gossip half, stored messages three quarters, direct messages
/// seven eighths, control messages all. And of what there is for its importance, a peer leaves a quarter to the others.
#[derive(Clone, Debug)]
pub(crate) struct SharedBytes {
    held: Arc<Held>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    /// Told when the last bytes are given back.
    emptied: Notify,
}

#[derive(Debug)]
struct HeldBytes {
    held: Arc<Held>,
    bytes: usize,
}

/// Messages for one peer: the most important first, of equal ones the oldest first.
///
/// # Policy at the bound
/// A message finds room by dropping less important ones, the least important and of those the oldest first;
/// their deliveries resolve to [`DeliveryError::Dropped`]. If that does not make enough room nothing is
/// dropped and the new message is refused. Equal importance makes no room: what waits longest is not
/// sacrificed to what came last.
#[derive(Debug, Default)]
pub(crate) struct MessageQueue {
    queues: [VecDeque<Entry>; Priority::ALL.len()],
    messages: usize,
    bytes: usize,
}

/// The queue of one peer, shared by senders and the peer's task.
#[derive(Debug, Default)]
pub(crate) struct PeerQueue {
    pub(super) messages: Mutex<MessageQueue>,
    pub(super) waker: AtomicWaker,
    /// Requester of the first message with the most important cause of those that were queued.
    pub(super) requester: Mutex<Option<Requester>>,
    /// Messages that may be written to a peer that bans fast senders.
    pub(super) bucket: PaceBucket,
}

impl PeerQueue {
    pub(super) fn new(bucket: PaceBucket) -> Self {
        Self {
            bucket,
            ..Self::default()
        }
    }

    /// On whose behalf the peer is dialled.
    pub(super) fn requester(&self) -> Requester {
        self.requester.lock().unwrap_or(DialCause::Peer.into())
    }

    pub(super) fn add_requester(&self, requester: Requester) {
        let mut held = self.requester.lock();
        if held.is_none_or(|held| requester.cause < held.cause) {
            *held = Some(requester);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Tells the sender what became of the message.
    pub(crate) fn resolve(mut self, outcome: Result<(), DeliveryError>) {
        let outcome = if self.taken { Ok(()) } else { outcome };
        crate::metrics::delivery(self.priority, outcome);
        if let Some(reply) = self.reply.take() {
            reply.send(outcome);
        }
    }
}

// === impl SharedBytes ===

impl SharedBytes {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            held: Arc::default(),
            limit,
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.bytes.load(Ordering::Relaxed)
    }

    /// Ends when the last bytes are given back that are held after this call.
    pub(super) fn emptied(&self) -> Notified<'_> {
        self.held.emptied.notified()
    }

    /// The rule of the door in front of the pipeline, so that both stages shed in one order.
    const fn limit_for(&self, priority: Priority) -> usize {
        let kept_for_others = dht_stack::reserved(self.limit, priority as usize);
        self.limit.saturating_sub(kept_for_others)
    }

    /// Whether a peer that has `own` bytes waiting may add some, when all have `held`.
    fn admits(&self, bytes: usize, priority: Priority, own: usize, held: usize) -> bool {
        let left = self
            .limit_for(priority)
            .checked_sub(held.saturating_add(bytes));
        // A message of any length may wait alone.
        left.is_some_and(|left| own == 0 || own.saturating_add(bytes) / 3 <= left)
    }

    fn hold(&self, bytes: usize) -> HeldBytes {
        self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        HeldBytes {
            held: Arc::clone(&self.held),
            bytes,
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let before = self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if before == self.bytes {
            self.held.emptied.notify_waiters();
        }
    }
}

// === impl MessageQueue ===

impl MessageQueue {
    /// Queues a message. One at a time for all that share `shared`.
    ///
    /// # Errors
    /// [`EnqueueError::QueueFull`] if neither this peer's bounds nor the shared one leave room.
    pub(crate) fn push(
        &mut self,
        frame: Bytes,
        priority: Priority,
        reply: Reply,
        now: Instant,
        limits: &Limits,
        shared: &SharedBytes,
    ) -> Result<(), EnqueueError> {
        self.expire(now, limits.lifetime);
        if !self.make_room(frame.len(), priority, limits, shared) {
            return Err(EnqueueError::QueueFull);
        }
        let bytes = shared.hold(frame.len());
        self.messages += 1;
        self.bytes += frame.len();
        let entry = Entry {
            frame,
            priority,
            queued_at: now,
            resends: 0,
            taken: false,
            reply: Some(reply),
            _bytes: bytes,
        };
        self.queue(priority).push_back(entry);
        Ok(())
    }

    /// The next message that is not too old.
    pub(crate) fn pop(&mut self, now: Instant, lifetime: Duration) -> Option<Entry> {
        loop {
            let entry = self.queues.iter_mut().find_map(VecDeque::pop_front)?;
            self.uncount(&entry);
            if now.saturating_duration_since(entry.queued_at) <= lifetime {
                return Some(entry);
            }
            entry.resolve(Err(DeliveryError::Expired));
        }
    }

    /// Puts a message back whose stream broke. It keeps its place in time; bounds do not apply, because it
    /// was counted before.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.messages += 1;
        self.bytes += entry.frame.len();
        self.queue(entry.priority).push_front(entry);
    }

    /// Fails every message.
    pub(crate) fn fail_all(&mut self, error: DeliveryError) {
        for entry in self.queues.iter_mut().flat_map(std::mem::take) {
            entry.resolve(Err(error));
        }
        (self.messages, self.bytes) = (0, 0);
    }

    /// Fails what is too old. Each queue is in order of time.
    pub(crate) fn expire(&mut self, now: Instant, lifetime: Duration) {
        let expired = |entry: &Entry| now.saturating_duration_since(entry.queued_at) > lifetime;
        for priority in Priority::ALL {
            while self.queue(priority).front().is_some_and(expired)
                && let Some(entry) = self.queue(priority).pop_front()
            {
                self.uncount(&entry);
                entry.resolve(Err(DeliveryError::Expired));
            }
        }
    }

    /// When the oldest message was queued.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.queues
            .iter()
            .filter_map(VecDeque::front)
            .map(|entry| entry.queued_at)
            .min()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.messages == 0
    }

    fn make_room(
        &mut self,
        bytes: usize,
        priority: Priority,
        limits: &Limits,
        shared: &SharedBytes,
    ) -> bool {
        if bytes > limits.bytes {
            return false;
        }
        let of_others = shared.held().saturating_sub(self.bytes);
        let lower = || {
            Priority::ALL
                .into_iter()
                .rev()
                .filter(|lower| *lower > priority)
        };
        let fits = |messages: usize, held: usize| {
            messages < limits.messages
                && held.saturating_add(bytes) <= limits.bytes
                && shared.admits(bytes, priority, held, of_others.saturating_add(held))
        };
        if fits(self.messages, self.bytes) {
            return true;
        }
        // Only drop if that helps.
        let (mut messages, mut held) = (self.messages, self.bytes);
        for class in lower() {
            let queue = self.queue(class);
            messages -= queue.len();
            held -= queue.iter().map(|entry| entry.frame.len()).sum::<usize>();
        }
        if !fits(messages, held) {
            return false;
        }
        for class in lower() {
            while !fits(self.messages, self.bytes)
                && let Some(entry) = self.queue(class).pop_front()
            {
                self.uncount(&entry);
                entry.resolve(Err(DeliveryError::Dropped));
            }
        }
        true
    }

    fn uncount(&mut self, entry: &Entry) {
        self.messages -= 1;
        self.bytes -= entry.frame.len();
    }

    fn queue(&mut self, priority: Priority) -> &mut VecDeque<Entry> {
        let [control, direct, stored, gossip] = &mut self.queues;
        match priority {
            Priority::Control => control,
            Priority::Direct => direct,
            Priority::Stored => stored,
            Priority::Gossip => gossip,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::Queued;

    const LIMITS: Limits = Limits {
        messages: 3,
        bytes: 100,
        lifetime: Duration::from_secs(60),
    };

    struct Bench {
        queue: MessageQueue,
        shared: SharedBytes,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                queue: MessageQueue::default(),
                shared: SharedBytes::new(1000),
                now: Instant::now(),
            }
        }

        fn push(&mut self, bytes: usize, priority: Priority) -> Result<Queued, EnqueueError> {
            let (reply, delivery) = Queued::new();
            let frame = vec![0; bytes].into();
            self.queue
                .push(frame, priority, reply, self.now, &LIMITS, &self.shared)?;
            Ok(delivery)
        }

        fn pop(&mut self) -> Option<(usize, Priority)> {
            let entry = self.queue.pop(self.now, LIMITS.lifetime)?;
            Some((entry.frame.len(), entry.priority))
        }
    }

    #[tokio::test]
    async fn importance_first_then_age() {
        let mut bench = Bench::new();
        let mut keep = Vec::new();
        for (bytes, priority) in [
            (1, Priority::Gossip),
            (2, Priority::Control),
            (3, Priority::Control),
        ] {
            keep.push(bench.push(bytes, priority).unwrap());
        }
        assert_eq!(bench.pop(), Some((2, Priority::Control)));
        assert_eq!(bench.pop(), Some((3, Priority::Control)));
        assert_eq!(bench.pop(), Some((1, Priority::Gossip)));
        assert_eq!(bench.pop(), None);
    }

    #[tokio::test]
    async fn full_count_sheds_oldest_least_important() {
        let mut bench = Bench::new();
        let first = bench.push(1, Priority::Gossip).unwrap();
        let second = bench.push(2, Priority::Gossip).unwrap();
        let stored = bench.push(3, Priority::Stored).unwrap();
        assert!(
            bench.push(4, Priority::Gossip).is_err(),
            "itself the least important"
        );
        let direct = bench.push(5, Priority::Direct).unwrap();
        assert_eq!(first.now_or_never(), Some(Err(DeliveryError::Dropped)));
        assert_eq!(bench.pop(), Some((5, Priority::Direct)));
        assert_eq!(bench.pop(), Some((3, Priority::Stored)));
        assert_eq!(bench.pop(), Some((2, Priority::Gossip)));
        drop((second, stored, direct));
    }

    #[tokio::test]
    async fn nothing_is_dropped_in_vain() {
        let mut bench = Bench::new();
        let gossip = bench.push(10, Priority::Gossip).unwrap();
        let control = bench.push(80, Priority::Control).unwrap();
        assert_eq!(
            bench.push(30, Priority::Direct).err(),
            Some(EnqueueError::QueueFull)
        );
        assert_eq!(
            bench.push(101, Priority::Control).err(),
            Some(EnqueueError::QueueFull)
        );
        assert_eq!(bench.queue.messages, 2);
        assert_eq!(bench.queue.bytes, 90);
        drop((gossip, control));
    }

    #[tokio::test]
    async fn bytes_of_peers_are_bounded() {
        let mut bench = Bench::new();
        bench.shared = SharedBytes::new(50);
        let first = bench.push(40, Priority::Direct).unwrap();
        assert!(bench.push(20, Priority::Direct).is_err());
        assert_eq!(bench.pop(), Some((40, Priority::Direct)));
        assert_eq!(bench.shared.held(), 0);
        assert!(bench.push(20, Priority::Control).is_ok());
        drop(first);
    }

    /// The bytes shared by all peers are shed by priority too, and nothing is shed for a message that would not fit anyway.
    #[tokio::test]
    async fn shared_bytes_are_shed_by_priority() {
        let mut bench = Bench::new();
        bench.shared = SharedBytes::new(80);
        let others = bench.shared.hold(40);
        // Gossip may use half, which is gone.
        assert!(bench.push(1, Priority::Gossip).is_err());
        drop(others);
        let gossip = bench.push(20, Priority::Gossip).unwrap();
        let others = bench.shared.hold(50);
        // Direct messages may use seventy: only without the gossip is there room.
        assert!(bench.push(21, Priority::Direct).is_err());
        assert_eq!(bench.queue.messages, 1, "nothing was dropped in vain");
        let direct = bench.push(20, Priority::Direct).unwrap();
        assert_eq!(gossip.now_or_never(), Some(Err(DeliveryError::Dropped)));
        drop((direct, others));
    }

    #[tokio::test]
    async fn one_peer_leaves_others_room() {
        let (mut deaf, mut well) = (Bench::new(), Bench::new());
        deaf.shared = SharedBytes::new(100);
        well.shared = deaf.shared.clone();
        let mut kept = Vec::new();
        while let Ok(delivery) = deaf.push(5, Priority::Control) {
            kept.push(delivery);
            deaf.queue.messages = 1; // Bytes are what counts here.
        }
        assert_eq!(deaf.shared.held(), 75);
        assert!(well.push(25, Priority::Control).is_ok());
    }

    #[tokio::test]
    async fn old_messages_expire() {
        let mut bench = Bench::new();
        let old = bench.push(1, Priority::Direct).unwrap();
        bench.now += Duration::from_secs(61);
        let young = bench.push(2, Priority::Gossip).unwrap();
        assert_eq!(bench.pop(), Some((2, Priority::Gossip)));
        assert_eq!(old.now_or_never(), Some(Err(DeliveryError::Expired)));
        assert!(bench.queue.is_empty());
        drop(young);
    }
}
