//! Totals of a node since its start.

use std::{
    array, fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use dht_core::{Disposition, DropReason, NodeId};
use dht_peers::InboundFrame;
use dht_transport::Transport;
use pin_project_lite::pin_project;
use tower::Service;

use crate::events::{Event, Events};

/// Totals since the start of a node, and current sizes; see [`Node::stats`](crate::Node::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of peers connected now.
    pub connections: usize,
    /// Peers in the directory.
    pub known_peers: usize,
    /// Completed handshakes, inbound and outbound.
    pub handshakes: u64,
    /// Bytes read from sockets.
    pub bytes_received: u64,
    /// Bytes written to sockets.
    pub bytes_sent: u64,
    /// Messages received, with any disposition.
    pub messages_received: u64,
    /// Messages delivered to the application.
    pub delivered: u64,
    /// Messages forwarded for other nodes.
    pub forwarded: u64,
    /// Number of protocol messages this node answered.
    pub answered: u64,
    /// Messages stored for offline peers.
    pub stored: u64,
    /// Messages dropped as duplicates.
    pub duplicates_dropped: u64,
    /// Messages dropped for any other reason.
    pub dropped: u64,
    /// Inbound messages dropped, duplicates included, by reason.
    pub drops: Drops,
    /// Outbound messages dropped because the queue of a peer was full or they were too old.
    pub unsent: u64,
    /// Bytes of received messages held in memory now.
    pub memory_used_bytes: usize,
    /// Most bytes of received messages held in memory.
    pub memory_limit_bytes: usize,
    /// Bytes of messages queued for subscriptions, beside these, in a node without a home.
    pub unread_bytes: usize,
    /// Bytes queued for sending.
    pub queued_bytes: usize,
    /// Bytes that the tables of messages seen, of exact copies and of messages received take.
    pub remembered_bytes: usize,
}

/// Dropped messages by reason.
///
/// ```
/// let drops = dht_node::Drops::default();
/// assert_eq!(drops.of(dht_core::DropReason::Duplicate), 0);
/// assert_eq!(drops.iter().count(), 0);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

/// Counters of dispositions.
#[derive(Debug)]
pub(crate) struct Counters {
    received: AtomicU64,
    delivered: AtomicU64,
    forwarded: AtomicU64,
    answered: AtomicU64,
    stored: AtomicU64,
    pub(crate) unsent: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
}

/// Counts the disposition of each message of the inbound stack, and publishes drops as events.
#[derive(Clone, Debug)]
pub(crate) struct Tally<S> {
    /// Hears from which peers the messages came that this node could use.
    pub(crate) transport: Transport,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
    pub(crate) inner: S,
}

pin_project! {
    /// Response future of [`Tally`].
    pub(crate) struct TallyFuture<F> {
        transport: Transport,
        #[pin]
        inner: F,
        from: NodeId,
        counters: Arc<Counters>,
        events: Events,
    }
}

// === impl Drops ===

impl Drops {
    /// Messages dropped for this reason.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason.index()).copied().unwrap_or_default()
    }

    /// Reasons with the number of messages dropped, where it is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.iter().map(|(reason, count)| (reason.name(), count));
        f.debug_map().entries(named).finish()
    }
}

// === impl Counters ===

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            received: zero(),
            delivered: zero(),
            forwarded: zero(),
            answered: zero(),
            stored: zero(),
            unsent: zero(),
            drops: array::from_fn(|_| zero()),
        }
    }
}

impl Counters {
    fn record(&self, disposition: Disposition) {
        self.received.fetch_add(1, Relaxed);
        let counter = match disposition {
            Disposition::Delivered => &self.delivered,
            Disposition::Forwarded => &self.forwarded,
            Disposition::Answered => &self.answered,
            Disposition::Stored => &self.stored,
            Disposition::Dropped(reason) => match self.drops.get(reason.index()) {
                Some(counter) => counter,
                None => return,
            },
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Writes the counters into `stats`.
    pub(crate) fn fill(&self, stats: &mut Stats) {
        stats.messages_received = self.received.load(Relaxed);
        stats.delivered = self.delivered.load(Relaxed);
        stats.forwarded = self.forwarded.load(Relaxed);
        stats.answered = self.answered.load(Relaxed);
        stats.stored = self.stored.load(Relaxed);
        stats.unsent = self.unsent.load(Relaxed);
        stats.drops = Drops(array::from_fn(|at| {
            self.drops
                .get(at)
                .map_or(0, |counter| counter.load(Relaxed))
        }));
        let repeats =
            stats.drops.of(DropReason::Duplicate) + stats.drops.of(DropReason::Rebroadcast);
        let all: u64 = stats.drops.iter().map(|(_, count)| count).sum();
        stats.duplicates_dropped = repeats;
        stats.dropped = all.saturating_sub(repeats);
    }
}

// === impl Tally ===

impl<S> Service<InboundFrame> for Tally<S>
where
    S: Service<InboundFrame, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = TallyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: InboundFrame) -> Self::Future {
        TallyFuture {
            from: received.source.node_id,
            inner: self.inner.call(received),
            transport: self.transport.clone(),
            counters: Arc::clone(&self.counters),
            events: self.events.clone(),
        }
    }
}

impl<F, E> Future for TallyFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        // A part of this node failed, and the message is lost.
        let disposition = match &outcome {
            Ok(disposition) => *disposition,
            Err(_) => Disposition::Dropped(DropReason::Internal),
        };
        this.counters.record(disposition);
        if matches!(
            disposition,
            Disposition::Delivered | Disposition::Forwarded | Disposition::Stored
        ) {
            this.transport.note_useful(this.from);
        }
        if let Disposition::Dropped(reason) = disposition {
            let from = *this.from;
            this.events.publish(|| Event::Dropped { from, reason });
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_is_counted() {
        let counters = Counters::default();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
            for _ in 0..=at {
                counters.record(Disposition::Dropped(reason));
            }
        }
        counters.record(Disposition::Delivered);
        let mut stats = Stats::default();
        counters.fill(&mut stats);
        for (at, (reason, count)) in stats.drops.iter().enumerate() {
            assert_eq!((reason, count), (DropReason::ALL[at], at as u64 + 1));
        }
        let all = stats.dropped + stats.duplicates_dropped + stats.delivered;
        assert_eq!(stats.messages_received, all);
    }
}
