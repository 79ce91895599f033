//! Moving one peer's messages onto one stream.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use dht_core::DeliveryError;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    pace::Pace,
    queue::{Entry, PeerQueue},
};
use crate::{
    connection::Connection,
    limits::{MAX_RESENDS, YAMUX_FRAME_BYTES},
    mux::Substream,
};

/// Time for the end of stream of a messaging stream to be queued.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Batch buffers up to this size stay allocated while nothing is sent.
const KEPT_BYTES: usize = 16 * 1024;

/// Moves messages from the queue to a stream, as many a write as there are.
pub(super) struct Pump<'a> {
    queue: &'a PeerQueue,
    stream: Substream,
    /// Time after which a queued message is no longer sent.
    lifetime: Duration,
    /// Time without progress after which the stream counts as broken.
    write_timeout: Duration,
    /// Bounds how fast messages are taken from the queue, if the peer bans fast senders.
    pace: Option<Pace<'a>>,
    /// Length prefixes and messages, several in one write.
    batch: Vec<u8>,
    batch_sent: usize,
    /// Rest of the message last taken that did not fit the batch.
    rest: Bytes,
    /// Messages taken from the queue, with the stream position at which each ends.
    unsent: VecDeque<(u64, Entry)>,
    /// Stream position after everything taken.
    filled: u64,
    retired: bool,
    stall: Option<Pin<Box<Sleep>>>,
    moved: bool,
    /// Nothing moved for the write time-out.
    overdue: bool,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        queue: &'a PeerQueue,
        stream: Substream,
        lifetime: Duration,
        write_timeout: Duration,
        pace: Option<Pace<'a>>,
    ) -> Self {
        Self {
            queue,
            filled: stream.written(),
            stream,
            lifetime,
            write_timeout,
            pace,
            batch: Vec::new(),
            batch_sent: 0,
            rest: Bytes::new(),
            unsent: VecDeque::new(),
            retired: false,
            stall: None,
            moved: false,
            overdue: false,
        }
    }

    /// The connection is to be left: nothing more is taken from the queue.
    pub(super) const fn retire(&mut self) {
        self.retired = true;
    }

    /// Ready when the stream is of no more use.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The responder never writes here: whatever comes, even a byte, ends the session.
        if self.stream.poll_chunk(cx).is_ready() {
            return Poll::Ready(());
        }
        // Registered first, so that a message pushed from here on wakes us.
        self.queue.waker.register(cx.waker());
        loop {
            if self.batch_sent == self.batch.len() && !self.fill(cx) {
                break;
            }
            let data = if self.batch_sent < self.batch.len() {
                self.batch.get(self.batch_sent..).unwrap_or_default()
            } else {
                &self.rest
            };
            match Pin::new(&mut self.stream).poll_write(cx, data) {
                Poll::Ready(Ok(count)) => {
                    self.moved = true;
                    if self.batch_sent < self.batch.len() {
                        self.batch_sent += count;
                    } else {
                        self.rest.advance(count.min(self.rest.len()));
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let sent = self.stream.sent(cx);
        while self.unsent.front().is_some_and(|(end, _)| *end <= sent)
            && let Some((_, entry)) = self.unsent.pop_front()
        {
            self.moved = true;
            crate::metrics::sent(entry.frame.len());
            entry.resolve(Ok(()));
        }
        if self.unsent.is_empty() {
            self.stall = None;
            if self.batch.capacity() > KEPT_BYTES {
                self.batch = Vec::new();
                self.batch_sent = 0;
            }
            return if self.retired {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        }
        self.poll_stall(cx)
    }

    /// Puts the next messages into the batch; false if there is nothing to write. A part that fills a
    /// multiplexer frame by itself is not copied: it is left in `rest` with an empty batch.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        self.batch.clear();
        self.batch_sent = 0;
        loop {
            if !self.rest.is_empty() {
                if self.batch.is_empty() && self.rest.len() >= YAMUX_FRAME_BYTES {
                    return true;
                }
                let room = YAMUX_FRAME_BYTES.saturating_sub(self.batch.len());
                let part = self.rest.split_to(room.min(self.rest.len()));
                self.batch.extend_from_slice(&part);
            }
            if self.batch.len() >= YAMUX_FRAME_BYTES || self.retired {
                break;
            }
            if let Some(pace) = &mut self.pace
                && pace.poll_ready(cx).is_pending()
            {
                break;
            }
            let taken = self
                .queue
                .messages
                .lock()
                .pop(Instant::now(), self.lifetime);
            let Some(entry) = taken else {
                break;
            };
            if let Some(pace) = &self.pace {
                pace.count();
            }
            // Sizes are checked before queueing.
            let length = u32::try_from(entry.frame.len()).unwrap_or(u32::MAX);
            self.batch.extend_from_slice(&length.to_be_bytes());
            self.rest = entry.frame.clone();
            self.filled += u64::from(length) + 4;
            self.unsent.push_back((self.filled, entry));
        }
        !self.batch.is_empty()
    }

    /// Ready when nothing moved for the write time-out.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.write_timeout;
        loop {
            let timer = self.stall.get_or_insert_with(|| {
                self.moved = false;
                Box::pin(sleep(limit))
            });
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !self.moved {
                self.overdue = true;
                return Poll::Ready(());
            }
            self.moved = false;
            timer.as_mut().reset(Instant::now() + limit);
        }
    }

    /// Ends the stream; messages that may not have left go back, unless they did so before. A peer that has left a message
    /// unread for two write time-outs, over one stream or two, is cut off: what waits for it takes room from others.
    pub(super) async fn finish(mut self, connection: &Connection) {
        let sent = self.stream.sent(&Context::from_waker(Waker::noop()));
        let clean = self.unsent.is_empty() && self.batch_sent == self.batch.len();
        let patience = self.write_timeout.saturating_mul(2);
        let is_late =
            |entry: &Entry| entry.resends >= MAX_RESENDS || entry.queued_at.elapsed() >= patience;
        let oldest = self.unsent.front();
        if self.overdue && oldest.is_some_and(|(_, entry)| is_late(entry)) {
            connection.close(false);
        }
        {
            let mut queue = self.queue.messages.lock();
            while let Some((end, mut entry)) = self.unsent.pop_back() {
                entry.taken |= end <= sent;
                if entry.resends >= MAX_RESENDS {
                    entry.resolve(Err(match connection.is_heard() {
                        true => DeliveryError::WriteFailed,
                        false => DeliveryError::Refused,
                    }));
                } else {
                    entry.resends += 1;
                    queue.put_back(entry);
                }
            }
        }
        if clean {
            // Otherwise dropping it resets the stream, and the peer throws away the half message.
            let _too_slow = timeout(FINISH_TIMEOUT, self.stream.shutdown()).await;
        }
    }
}
