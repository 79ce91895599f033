//! Received messages on their way to the application: live subscriptions, and those that read the durable inbox.

mod queue;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{Deliverer, Disposition, DropReason};
use dht_stack::{ByteBudget, BytePermit};
use dht_transport::limits::MESSAGE_OVERHEAD_BYTES;
use futures::future::OptionFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::sleep_until,
};

use self::queue::{Copied, Offered, Place, SubscriberQueue, Taken};
use crate::received::Received;

/// Longest payload of one message, in bytes: what fits the messaging frame with header, padding and tag.
pub const MAX_PAYLOAD_BYTES: usize = dht_proto::limits::MAX_MESSAGING_FRAME_BYTES - 16 * 1024;

/// Messages for the application, one after the other; see [`Node::subscribe`](crate::Node::subscribe).
///
/// A message is *taken* by the call of [`recv`](Self::recv) that follows the one which returned it, or by
/// [`ack`](Self::ack). Until then it is not delivered: after a restart, or when the subscription is dropped, it may come
/// again.
#[derive(Debug)]
pub struct Subscription(Source);

/// Fate of a message for which the queue of a [`Subscription`] has no room. It has none for a deliverer - a source
/// group, or the key of a peer whose address says nothing - of which [`INBOX_CAPACITY`](crate::INBOX_CAPACITY) messages are
/// unread, or more bytes than are free beside them of a sixteenth of [`memory_mib`](crate::Config::memory_mib).
///
/// A subscription that reads nothing for a minute meanwhile holds up nobody any longer, until it reads again: messages
/// without room are then refused ([`DropReason::InboxFull`]), and stay with their senders and the nodes that store them. Those
/// that other subscriptions take are missed, or refused with [`HoldBack`](Self::HoldBack).
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

/// Reads the queue of one subscriber of a node without a durable inbox.
#[derive(Debug)]
struct Live {
    queue: Arc<SubscriberQueue>,
    /// Returned by the last call of `recv` and not taken.
    last: Option<Taken>,
}

/// The subscriptions of a node.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// `None` once the node has stopped.
    live: Mutex<Option<Vec<Subscriber>>>,
    /// Pays for what is queued.
    budget: ByteBudget,
    /// Notified when messages that were refused can be delivered.
    room: Arc<Notify>,
    /// Turns true when the node stops; gone with the node.
    stopped: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Subscriber {
    queue: Arc<SubscriberQueue>,
    when_full: WhenFull,
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
                let Copied { received, taken } = live.queue.read().await?;
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

    /// Number of messages that this subscription did not get, because it had [no room](WhenFull) for them until another one
    /// took them. Always 0 with [`WhenFull::HoldBack`] or a durable inbox.
    #[must_use]
    pub fn missed(&self) -> u64 {
        match &self.0 {
            Source::Live(live) => live.queue.missed(),
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

impl Drop for Live {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

impl Subscribers {
    /// The subscriptions of a node that has `budget` for what is queued.
    pub(crate) fn new(budget: ByteBudget) -> Self {
        Self {
            live: Mutex::new(Some(Vec::new())),
            budget,
            room: Arc::default(),
            stopped: watch::Sender::new(false),
        }
    }

    /// A subscription to the messages that arrive from now on.
    pub(crate) fn subscribe(&self, when_full: WhenFull) -> Subscription {
        let queue = SubscriberQueue::new(self.budget.clone(), Arc::clone(&self.room));
        let queue = Arc::new(queue);
        match &mut *self.live.lock() {
            Some(live) => {
                live.retain(|subscriber| !subscriber.queue.is_closed());
                live.push(Subscriber {
                    queue: Arc::clone(&queue),
                    when_full,
                });
            }
            // The node has stopped.
            None => queue.close(),
        }
        Subscription(Source::Live(Live { queue, last: None }))
    }

    /// A subscription that reads the durable inbox.
    #[cfg(feature = "spool")]
    pub(crate) fn subscribe_to(&self, inbox: &crate::durable_inbox::DurableInbox) -> Subscription {
        let reader = inbox.reader(self.stopped.subscribe());
        Subscription(Source::Durable(Box::new(reader)))
    }

    /// Queues a message for every subscriber, as soon as it has room, and waits until one has taken it. Those that are still
    /// without room then miss it, or hold it back.
    pub(crate) async fn deliver(
        &self,
        received: Received,
        deliverer: Deliverer,
        permit: BytePermit,
    ) -> Disposition {
        let subscribers = self.live.lock().clone().unwrap_or_default();
        let least = received.message.payload.len() + MESSAGE_OVERHEAD_BYTES;
        let bytes = permit.bytes().max(least);
        let (taken, mut told) = Taken::new();
        let copy = Copied { received, taken };
        let holds_back = |subscriber: &Subscriber| subscriber.when_full == WhenFull::HoldBack;
        // Before another one takes it.
        let refuses =
            |one: &&Subscriber| holds_back(one) && one.queue.would_refuse(deliverer, bytes);
        if let Some(one) = subscribers.iter().find(refuses) {
            return refused(std::slice::from_ref(one));
        }
        // Held as long as the message is without room somewhere.
        let mut permit = Some(permit);
        let (mut waiting, mut behind) = (Vec::new(), Vec::new());
        for subscriber in subscribers {
            match subscriber.queue.offer(copy.clone(), deliverer, bytes) {
                // The next subscription removes one that is closed.
                Offered::Queued | Offered::Closed => {}
                Offered::Behind => behind.push(subscriber),
                Offered::Waits(place) => waiting.push((subscriber, place)),
            }
        }
        // Once no copy is left, none will be taken.
        drop(copy);
        let mut is_taken = None;
        loop {
            if waiting.is_empty() {
                drop(permit.take());
            }
            if let Some(is_taken) = is_taken
                && !waiting.iter().any(|(one, _)| holds_back(one))
            {
                return match is_taken {
                    true => {
                        let others = waiting.iter().map(|(one, _)| one);
                        others.chain(&behind).for_each(|one| one.queue.miss());
                        Disposition::Delivered
                    }
                    false if behind.is_empty() => DropReason::NobodyListens.into(),
                    false => refused(&behind),
                };
            }
            let ends = waiting.iter().map(|(one, _)| one.queue.patience_ends());
            let patience = OptionFuture::from(ends.flatten().min().map(sleep_until));
            tokio::select! {
                biased;
                told = &mut told, if is_taken.is_none() => is_taken = Some(told.is_ok()),
                () = poll_fn(|cx| poll_left(&mut waiting, cx)) => {}
                Some(()) = patience => {
                    let idle = waiting.extract_if(.., |(one, _)| one.queue.is_behind());
                    let idle: Vec<_> = idle.map(|(one, _withdrawn)| one).collect();
                    if idle.iter().any(holds_back) {
                        return refused(&idle);
                    }
                    behind.extend(idle);
                }
            }
        }
    }

    /// Bytes of what is queued.
    pub(crate) fn unread_bytes(&self) -> usize {
        (self.budget.total()).saturating_sub(self.budget.available())
    }

    /// Waits until messages that were refused can be delivered.
    #[cfg(any(feature = "saf", test))]
    pub(crate) async fn room_made(&self) {
        self.room.notified().await;
    }

    /// Ends every subscription once it is empty, and every later one at once.
    pub(crate) fn close(&self) {
        for subscriber in self.live.lock().take().into_iter().flatten() {
            subscriber.queue.close();
        }
        self.stopped.send_replace(true);
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.close();
    }
}

/// A message was refused because of these.
fn refused(behind: &[Subscriber]) -> Disposition {
    behind.iter().for_each(|one| one.queue.refuse());
    DropReason::InboxFull.into()
}

/// Ready once a message that waits has left its place, with those that have not.
fn poll_left(waiting: &mut Vec<(Subscriber, Place)>, cx: &mut Context<'_>) -> Poll<()> {
    let before = waiting.len();
    waiting.retain_mut(|(_, place)| place.poll_left(cx).is_pending());
    match waiting.len() < before {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}

#[cfg(test)]
mod tests;
