//! The channel as the multiplexer sees it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Backlog, SendMeter,
    frame::PROBE_PING,
    gate::Gate,
    outgoing::{OutgoingBytes, Tracker},
};
use crate::{
    limits::{MAX_ANSWER_BYTES, MAX_OUTGOING_BYTES},
    medium::Socket,
    noise::NoiseStream,
};

/// Adapts the channel to the traits of `futures`: takes everything that the multiplexer writes, follows one stream's
/// bytes ([`SendMeter`]), gives streams their room back ([`OutgoingBytes`]) and lets frames in as they may come
/// ([`Gate`]).
pub(crate) struct MuxIo {
    channel: NoiseStream<Socket>,
    meter: Arc<SendMeter>,
    tracker: Tracker,
    outgoing: OutgoingBytes,
    /// Bytes that hold room in `outgoing` and that the socket has not taken.
    held: usize,
    backlog: Arc<Backlog>,
    gate: Gate,
    /// Whether the multiplexer flushed and has written nothing since.
    flushed: bool,
}

impl MuxIo {
    pub(super) fn new(
        mut channel: NoiseStream<Socket>,
        meter: Arc<SendMeter>,
        outgoing: OutgoingBytes,
        gate: Gate,
    ) -> Self {
        channel.cork();
        Self {
            channel,
            meter,
            tracker: Tracker::default(),
            outgoing,
            held: 0,
            backlog: Arc::clone(gate.backlog()),
            gate,
            flushed: false,
        }
    }

    /// Reads a part of one frame, never beyond its end. Answers that the multiplexer does not get are left out.
    fn poll_frame(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        /// Answers left out in one poll, so that a peer that sends nothing else does not keep the thread.
        const MOST_SKIPPED: usize = 64;
        for _ in 0..MOST_SKIPPED {
            let body_left = self.gate.body_left();
            if body_left > 0 {
                let most = out.len().min(body_left);
                let out = out.get_mut(..most).unwrap_or_default();
                let Poll::Ready(count) = poll_channel(&mut self.channel, cx, out)? else {
                    return self.gate.poll_pace(cx);
                };
                self.gate.read(count);
                return Poll::Ready(Ok(count));
            }
            if self.gate.header.have().is_empty() {
                if self.flushed {
                    self.backlog.reads();
                }
                ready!(self.poll_answers(cx))?;
            }
            while !self.gate.header.missing().is_empty() {
                let missing = self.gate.header.missing();
                let count = ready!(poll_channel(&mut self.channel, cx, missing))?;
                if count == 0 {
                    // Part of a header is handed on, so that the multiplexer sees where the end came.
                    break;
                }
                self.gate.header.filled(count);
            }
            if self.gate.poll_admit(cx)?.is_pending() {
                // Corked bytes go out with the next read, and this is not one.
                self.channel.send_corked(cx)?;
                return Poll::Pending;
            }
            if !self.gate.skip_answer() {
                return Poll::Ready(Ok(self.gate.hand_on(out)));
            }
            self.meter.hear();
        }
        self.channel.send_corked(cx)?;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits while more of the multiplexer's own frames wait for the socket than an honest peer causes: pongs, window
    /// updates and resets are written without room.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        const MOST: usize = MAX_OUTGOING_BYTES + MAX_ANSWER_BYTES;
        if self.channel.unsent() > MOST {
            self.channel.send_corked(cx)?;
            if self.channel.unsent() > MOST {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on how far the socket has come.
    fn publish(&mut self) {
        self.meter.publish(self.channel.sent_mark());
        // Correctness: what holds room is part of what is unsent. Other frames come off later, never too early.
        let held = self.held.min(self.channel.unsent());
        if held < self.held {
            self.outgoing.release(self.held - held);
            self.held = held;
        }
    }
}

fn poll_channel(
    channel: &mut NoiseStream<Socket>,
    cx: &mut Context<'_>,
    out: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut out = ReadBuf::new(out);
    ready!(Pin::new(channel).poll_read(cx, &mut out))?;
    Poll::Ready(Ok(out.filled().len()))
}

impl futures::io::AsyncRead for MuxIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut result = this.poll_frame(cx, out);
        // The multiplexer has written whole frames: all that it writes is taken.
        if result.is_pending()
            && this.tracker.is_between_frames()
            && this.meter.take_ping(cx.waker())
        {
            let _taken = Pin::new(&mut this.channel).poll_write(cx, &PROBE_PING)?;
            result = this.poll_frame(cx, out);
        }
        if matches!(result, Poll::Ready(Ok(1..))) {
            this.meter.hear();
        }
        // A corked channel sends before it reads the socket.
        this.publish();
        result
    }
}

impl futures::io::AsyncWrite for MuxIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed = false;
        let result = Pin::new(&mut this.channel).poll_write(cx, data);
        if let Poll::Ready(Ok(count)) = &result {
            let taken = data.get(..*count).unwrap_or_default();
            let passed = this.tracker.advance(taken, &this.meter);
            this.held += passed.data;
            if passed.followed > 0 {
                this.channel.set_mark(this.meter.accept(passed.followed));
            }
        }
        this.publish();
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.flushed = true;
        this.backlog.flushed();
        let result = Pin::new(&mut this.channel).poll_flush(cx);
        this.publish();
        result
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.channel).poll_shutdown(cx);
        this.publish();
        result
    }
}
