//! Received messages on their way to the application: live subscriptions, and those that read the durable inbox.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use dht_stack::BytePermit;
use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

use crate::{channels, received::Received};

/// Longest payload of one message, in bytes: what fits the messaging frame with header, padding and tag.
pub const MAX_PAYLOAD_BYTES: usize = dht_proto::limits::MAX_MESSAGING_FRAME_BYTES - 16 * 1024;

/// Messages for the application, one after the other; see [`Node::subscribe`](crate::Node::subscribe).
///
/// A message is *taken* by the call of [`recv`](Self::recv) that follows the one which returned it, or by
/// [`ack`](Self::ack). Until then it is not delivered: after a restart, or when the subscription is dropped, it may come
/// again.
#[derive(Debug)]
pub struct Subscription(Source);

/// Fate of a message while [`INBOX_CAPACITY`](crate::INBOX_CAPACITY) wait unread for a [`Subscription`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// The subscription [misses](Subscription::missed) it, if another one takes it before there is room.
    #[default]
    Miss,
    /// It is not delivered before there is room, also if another subscription took it: the peers that send are held back.
    HoldBack,
}

#[derive(Debug)]
enum Source {
    Live(Live),
    #[cfg(feature = "spool")]
    Durable(Box<crate::durable_inbox::Reader>),
}

/// The queue of one subscriber of a node without a durable inbox.
#[derive(Debug)]
struct Live {
    queue: mpsc::Receiver<Queued>,
    /// Returned by the last call of `recv` and not taken.
    last: Option<Taken>,
    missed: Arc<AtomicU64>,
}

/// Holds the memory of a message until every subscriber has it.
#[derive(Clone, Debug)]
struct Queued {
    received: Received,
    taken: Taken,
    _permit: Arc<BytePermit>,
}

/// Tells the delivery that a subscriber took the message. Shared by the copies of one message.
#[derive(Clone, Debug)]
struct Taken(Arc<Mutex<Option<oneshot::Sender<()>>>>);

/// The subscriptions of a node.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// `None` once the node has stopped.
    live: Mutex<Option<Vec<Subscriber>>>,
    /// Turns true when the node stops; gone with the node.
    stopped: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Subscriber {
    queue: mpsc::Sender<Queued>,
    when_full: WhenFull,
    missed: Arc<AtomicU64>,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self {
            live: Mutex::new(Some(Vec::new())),
            stopped: watch::Sender::new(false),
        }
    }
}

impl Subscription {
    /// The next message; `None` once the node has stopped. Takes the message that the call before returned.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn recv(&mut self) -> Option<Received> {
        match &mut self.0 {
            Source::Live(live) => {
                live.take();
                let Queued {
                    received, taken, ..
                } = live.queue.recv().await?;
                live.last = Some(taken);
                Some(received)
            }
            #[cfg(feature = "spool")]
            Source::Durable(reader) => reader.recv().await,
        }
    }

    /// Takes the message that the last call of [`recv`](Self::recv) returned. With a durable inbox, the message has left
    /// it once this returns.
    pub async fn ack(&mut self) {
        match &mut self.0 {
            Source::Live(live) => live.take(),
            #[cfg(feature = "spool")]
            Source::Durable(reader) => reader.ack().await,
        }
    }

    /// Number of messages that this subscription did not get, because it had [`INBOX_CAPACITY`](crate::INBOX_CAPACITY)
    /// unread until another one took them. Always 0 with [`WhenFull::HoldBack`] or a durable inbox.
    #[must_use]
    pub fn missed(&self) -> u64 {
        match &self.0 {
            Source::Live(live) => live.missed.load(Relaxed),
            #[cfg(feature = "spool")]
            Source::Durable(_) => 0,
        }
    }
}

impl Live {
    fn take(&mut self) {
        if let Some(taken) = self.last.take() {
            taken.tell();
        }
    }
}

impl Taken {
    fn tell(&self) {
        if let Some(delivery) = self.0.lock().take() {
            // A delivery that was cancelled waits no more.
            let _ = delivery.send(());
        }
    }
}

impl Subscribers {
    /// A subscription to the messages that arrive from now on.
    pub(crate) fn subscribe(&self, when_full: WhenFull) -> Subscription {
        let (sender, queue) = channels::INBOX.open();
        let missed = Arc::<AtomicU64>::default();
        // On a stopped node the sender is dropped here, and the subscription ends at once.
        if let Some(live) = &mut *self.live.lock() {
            live.retain(|subscriber| !subscriber.queue.is_closed());
            live.push(Subscriber {
                queue: sender,
                when_full,
                missed: Arc::clone(&missed),
            });
        }
        Subscription(Source::Live(Live {
            queue,
            last: None,
            missed,
        }))
    }

    /// A subscription that reads the durable inbox.
    #[cfg(feature = "spool")]
    pub(crate) fn subscribe_to(&self, inbox: &crate::durable_inbox::DurableInbox) -> Subscription {
        let reader = inbox.reader(self.stopped.subscribe());
        Subscription(Source::Durable(Box::new(reader)))
    }

    /// Queues a message for every subscriber, as soon as it has room, and waits until one has taken it; false if none did.
    /// Those that are still full then miss it, or hold it back.
    pub(crate) async fn deliver(&self, received: Received, permit: BytePermit) -> bool {
        let subscribers = self.live.lock().clone().unwrap_or_default();
        let (sender, mut taken) = oneshot::channel();
        let queued = Queued {
            received,
            taken: Taken(Arc::new(Mutex::new(Some(sender)))),
            _permit: Arc::new(permit),
        };
        let mut full = BTreeMap::new();
        let mut waiting = FuturesUnordered::new();
        for (at, subscriber) in subscribers.into_iter().enumerate() {
            // The next subscription removes one that is closed.
            if let Err(TrySendError::Full(copy)) = subscriber.queue.try_send(queued.clone()) {
                let queue = subscriber.queue.clone();
                waiting.push(async move {
                    // Closed meanwhile: the copy is dropped.
                    let _ = queue.send(copy).await;
                    at
                });
                full.insert(at, subscriber);
            }
        }
        // Once no copy is left, none will be taken.
        drop(queued);
        let mut is_taken = None;
        loop {
            let holds_back = |other: &Subscriber| other.when_full == WhenFull::HoldBack;
            if let Some(is_taken) = is_taken
                && !full.values().any(holds_back)
            {
                for behind in full.values() {
                    behind.missed.fetch_add(1, Relaxed);
                }
                return is_taken;
            }
            tokio::select! {
                biased;
                told = &mut taken, if is_taken.is_none() => is_taken = Some(told.is_ok()),
                Some(at) = waiting.next() => {
                    full.remove(&at);
                }
            }
        }
    }

    /// Ends every subscription once it is empty, and every later one at once.
    pub(crate) fn close(&self) {
        *self.live.lock() = None;
        self.stopped.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{Message, NodeId};
    use dht_stack::ByteBudget;
    use futures::FutureExt as _;

    use super::*;
    use crate::INBOX_CAPACITY;

    fn received() -> Received {
        let message = Message {
            message_type: 1,
            payload: Bytes::from_static(b"x"),
        };
        Received {
            sender: None,
            via: NodeId::default(),
            message,
        }
    }

    async fn is_waiting(delivery: impl Future<Output = bool> + Unpin) -> bool {
        let now = std::time::Duration::ZERO;
        tokio::time::timeout(now, delivery).await.is_err()
    }

    #[tokio::test]
    async fn memory_is_held_until_message_taken() {
        let budget = ByteBudget::new(4096);
        let subscribers = Subscribers::default();
        let mut inbox = subscribers.subscribe(WhenFull::Miss);
        let permit = budget.acquire(4096).await;
        let mut delivery = Box::pin(subscribers.deliver(received(), permit));
        assert!(is_waiting(&mut delivery).await);
        assert_eq!(budget.available(), 0);
        assert_eq!(inbox.recv().await, Some(received()));
        assert_eq!(budget.available(), 4096);
        assert!(is_waiting(&mut delivery).await, "returned is not taken");
        inbox.ack().await;
        assert!(delivery.await);
    }

    #[tokio::test]
    async fn the_following_call_takes_a_message() {
        let subscribers = Subscribers::default();
        let mut inbox = subscribers.subscribe(WhenFull::Miss);
        let mut first = Box::pin(subscribers.deliver(received(), BytePermit::none()));
        assert!(is_waiting(&mut first).await);
        inbox.recv().await;
        assert!(inbox.recv().now_or_never().is_none());
        assert!(first.await);
    }

    #[tokio::test]
    async fn nobody_listening_is_told() {
        let subscribers = Subscribers::default();
        drop(subscribers.subscribe(WhenFull::Miss));
        assert!(!subscribers.deliver(received(), BytePermit::none()).await);
        // Neither read nor taken by a subscriber that leaves.
        for read in [false, true] {
            let mut inbox = subscribers.subscribe(WhenFull::Miss);
            let mut delivery = Box::pin(subscribers.deliver(received(), BytePermit::none()));
            assert!(is_waiting(&mut delivery).await);
            if read {
                inbox.recv().await;
            }
            drop(inbox);
            assert!(!delivery.await);
        }
    }

    #[tokio::test]
    async fn full_inbox_holds_sender_back() {
        let subscribers = Subscribers::default();
        let mut inbox = subscribers.subscribe(WhenFull::Miss);
        let mut deliveries = FuturesUnordered::new();
        for _ in 0..=INBOX_CAPACITY {
            deliveries.push(subscribers.deliver(received(), BytePermit::none()));
        }
        assert!(deliveries.next().now_or_never().is_none());
        for _ in 0..=INBOX_CAPACITY {
            assert_eq!(inbox.recv().await, Some(received()));
            let _ = deliveries.next().now_or_never();
        }
        inbox.ack().await;
        while let Some(taken) = deliveries.next().await {
            assert!(taken);
        }
    }

    #[tokio::test]
    async fn idle_subscriber_holds_up_only_itself() {
        let subscribers = Subscribers::default();
        let (idle, mut busy) = (
            subscribers.subscribe(WhenFull::Miss),
            subscribers.subscribe(WhenFull::Miss),
        );
        for _ in 0..INBOX_CAPACITY + 10 {
            let reading = async {
                busy.recv().await;
                busy.ack().await;
            };
            let (taken, ()) =
                tokio::join!(subscribers.deliver(received(), BytePermit::none()), reading);
            assert!(taken);
        }
        assert_eq!((idle.missed(), busy.missed()), (10, 0));
    }

    /// A message for each place in the queue of a subscriber, which is waited for by no other one.
    async fn fill(subscribers: &Subscribers) -> FuturesUnordered<impl Future<Output = bool>> {
        let mut deliveries = FuturesUnordered::new();
        for _ in 0..INBOX_CAPACITY {
            deliveries.push(subscribers.deliver(received(), BytePermit::none()));
        }
        assert!(deliveries.next().now_or_never().is_none());
        deliveries
    }

    #[tokio::test(start_paused = true)]
    async fn late_idle_subscriber_keeps_nothing_back() {
        let subscribers = Subscribers::default();
        let mut busy = subscribers.subscribe(WhenFull::Miss);
        let mut before = fill(&subscribers).await;
        let idle = subscribers.subscribe(WhenFull::Miss);
        let mut delivery = Box::pin(subscribers.deliver(received(), BytePermit::none()));
        assert!(
            is_waiting(&mut delivery).await,
            "only the idle one has room"
        );
        for _ in 0..=INBOX_CAPACITY {
            busy.recv().await;
            let _ = before.next().now_or_never();
            let _ = (&mut delivery).now_or_never();
        }
        busy.ack().await;
        // The clock moves once everything waits: then the delivery would for ever.
        let taken = tokio::time::timeout(std::time::Duration::from_secs(1), delivery).await;
        assert_eq!(taken, Ok(true));
        assert_eq!((idle.missed(), busy.missed()), (0, 0));
    }

    #[tokio::test]
    async fn full_subscriber_holds_back_by_choice() {
        let subscribers = Subscribers::default();
        let mut busy = subscribers.subscribe(WhenFull::HoldBack);
        let _before = fill(&subscribers).await;
        let mut other = subscribers.subscribe(WhenFull::Miss);
        let mut delivery = Box::pin(subscribers.deliver(received(), BytePermit::none()));
        assert!(is_waiting(&mut delivery).await);
        other.recv().await;
        other.ack().await;
        assert!(is_waiting(&mut delivery).await, "taken, and held back");
        busy.recv().await;
        assert!(delivery.await);
        assert_eq!((other.missed(), busy.missed()), (0, 0));
    }
}
