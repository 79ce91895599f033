//! Counts shared between the task of a connection and its streams.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

/// How far the bytes of one stream have come on their way to the socket.
///
/// The multiplexer reports a write as done when it is queued. A message counts as sent when the socket took
/// it, so the messaging stream of a connection is followed through the multiplexer's frames.
#[derive(Debug, Default)]
pub(crate) struct SendMeter {
    /// Stream id; 0 is none.
    stream: AtomicU32,
    /// Payload bytes of followed streams that entered the channel, ever.
    accepted: AtomicU64,
    /// Of these, bytes the socket has taken.
    sent: AtomicU64,
    /// The peer's multiplexer has said something. Each end pings the other at the start, so this takes one round trip.
    heard: AtomicBool,
    /// Wakes the task that sends messages.
    waker: AtomicWaker,
    probe: Probe,
}

/// A question whether the peer is still there.
#[derive(Debug, Default)]
struct Probe {
    /// The multiplexer's task has to write a ping.
    ping_due: AtomicBool,
    /// State of the wait for something from the peer: [`ANSWERED`], [`ASKED`] or [`WITHHOLDS`].
    question: AtomicU8,
    answered: Notify,
    /// Wakes the multiplexer's task.
    writer: AtomicWaker,
}

/// Nobody waits.
const ANSWERED: u8 = 0;
/// Somebody waits, and nothing has come from the peer since.
const ASKED: u8 = 1;
/// The same; what was written does not count as sent before.
const WITHHOLDS: u8 = 2;

/// Streams alive on a connection.
#[derive(Debug, Default)]
pub(crate) struct LiveStreams {
    inbound: AtomicUsize,
    outbound: AtomicUsize,
}

/// One stream in [`LiveStreams`], until dropped.
#[derive(Debug)]
pub(crate) struct LiveGuard {
    streams: Arc<LiveStreams>,
    inbound: bool,
}

impl SendMeter {
    /// Follows a stream that has written nothing yet. Returns the position at which it starts.
    pub(super) fn follow(&self, stream: u32) -> u64 {
        self.stream.store(stream, Ordering::SeqCst);
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn follows(&self, stream: u32) -> bool {
        self.stream.load(Ordering::SeqCst) == stream
    }

    /// Counts bytes that entered the channel; returns the new position.
    pub(super) fn accept(&self, bytes: u64) -> u64 {
        self.accepted
            .fetch_add(bytes, Ordering::SeqCst)
            .saturating_add(bytes)
    }

    /// The socket took everything up to `position`.
    pub(super) fn publish(&self, position: u64) {
        if self.sent.fetch_max(position, Ordering::SeqCst) < position {
            self.waker.wake();
        }
    }

    /// Position up to which the socket took everything; 0 until the peer is heard, which may have refused the identity
    /// of this node, and while it has not answered a [probe](Self::probe). `waker` is woken when that changes.
    pub(crate) fn sent(&self, waker: &Waker) -> u64 {
        // Correctness: registered before the loads, so that no change is missed.
        self.waker.register(waker);
        match self.is_heard() && self.probe.question.load(Ordering::SeqCst) != WITHHOLDS {
            true => self.sent.load(Ordering::SeqCst),
            false => 0,
        }
    }

    /// Something came from the peer's multiplexer.
    pub(super) fn hear(&self) {
        if !self.is_heard() {
            self.heard.store(true, Ordering::SeqCst);
            self.waker.wake();
        }
        let question = &self.probe.question;
        if question.load(Ordering::SeqCst) != ANSWERED
            && question.swap(ANSWERED, Ordering::SeqCst) != ANSWERED
        {
            self.probe.answered.notify_waiters();
            self.waker.wake();
        }
    }

    /// As [`ping`](Self::ping). What was written meanwhile does not count as sent before that.
    pub(crate) async fn probe(&self) {
        self.ask(WITHHOLDS).await;
    }

    /// Pings the peer, once for all that wait, and waits until something comes from it.
    pub(crate) async fn ping(&self) {
        self.ask(ASKED).await;
    }

    async fn ask(&self, how: u8) {
        let Probe {
            ping_due,
            question,
            answered,
            writer,
            ..
        } = &self.probe;
        let mut answer = pin!(answered.notified());
        // Correctness: in the queue before the question is, so that no answer is missed.
        answer.as_mut().enable();
        if question.fetch_max(how, Ordering::SeqCst) == ANSWERED {
            ping_due.store(true, Ordering::SeqCst);
            writer.wake();
        }
        answer.await;
    }

    /// Whether a ping has to be written, once for each probe; `waker` is woken for the next.
    pub(super) fn take_ping(&self, waker: &Waker) -> bool {
        self.probe.writer.register(waker);
        self.probe.ping_due.swap(false, Ordering::SeqCst)
    }

    /// Whether the peer has accepted the identity of this node, as what it sends shows.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }
}

impl LiveStreams {
    pub(crate) fn count(&self) -> usize {
        self.inbound.load(Ordering::Relaxed) + self.outbound.load(Ordering::Relaxed)
    }

    /// Counts one more stream unless there are `limit` of its direction.
    pub(crate) fn try_add(self: &Arc<Self>, inbound: bool, limit: usize) -> Option<LiveGuard> {
        let counter = if inbound {
            &self.inbound
        } else {
            &self.outbound
        };
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limit).then_some(count + 1)
            })
            .ok()?;
        Some(LiveGuard {
            streams: Arc::clone(self),
            inbound,
        })
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let streams = &self.streams;
        let counter = if self.inbound {
            &streams.inbound
        } else {
            &streams.outbound
        };
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}
