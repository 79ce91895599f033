//! Frames on their way into the multiplexer: each is let in whole, or waits, and with it its peer.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use dht_stack::TokenBucket;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Backlog,
    backlog::{Incoming, Waiting},
    frame::{Header, HeaderBytes},
};
use crate::{
    limits::{
        CONTROL_FRAMES, FRAME_STALL_TIMEOUT, LARGE_FRAME_BYTES, MAX_CONTROL_PAUSES,
        READ_STALL_TIMEOUT, time_for,
    },
    metrics,
};

/// Time for which a connection without tokens for control frames is not read.
const CONTROL_PAUSE: Duration = Duration::from_secs(1);

/// The peer went on sending more frames without payload than [`CONTROL_FRAMES`] allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("peer floods the connection with control frames")]
pub(super) struct ControlFlood;

/// Where the multiplexer is in the frames it reads.
pub(super) struct Gate {
    backlog: Arc<Backlog>,
    /// Whether the multiplexer gets the answers to its own pings.
    measures: bool,
    pub(super) header: HeaderBytes,
    /// Bytes of the header that were handed on.
    given: usize,
    /// Whether the frame was charged to `control`, if it had to be, and whether it may be read.
    charged: bool,
    admitted: bool,
    /// Length of the body of the frame that was let in last, and what is left of it.
    body: usize,
    body_left: usize,
    control: ControlFrames,
    waiting: Waiting,
    /// Runs while there is no room.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while the rest of a large frame is awaited.
    pace: Option<Pin<Box<Sleep>>>,
}

/// Charges a peer for frames that no window and no byte budget bounds.
struct ControlFrames {
    bucket: TokenBucket,
    since: Instant,
    /// Pauses since the bucket was full.
    pauses: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(backlog: Arc<Backlog>, measures: bool) -> Self {
        Self {
            backlog,
            measures,
            header: HeaderBytes::default(),
            given: 0,
            charged: false,
            admitted: false,
            body: 0,
            body_left: 0,
            control: ControlFrames {
                bucket: TokenBucket::default(),
                since: Instant::now(),
                pauses: 0,
                pause: None,
            },
            waiting: None,
            stall: None,
            pace: None,
        }
    }

    pub(super) const fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Bytes of the body that the multiplexer has yet to read.
    pub(super) const fn body_left(&self) -> usize {
        self.body_left
    }

    /// The multiplexer read bytes of the body.
    pub(super) const fn read(&mut self, count: usize) {
        self.body_left = self.body_left.saturating_sub(count);
    }

    /// Ready when the frame may be read whose header is complete, or if none is; an error if that takes too long.
    pub(super) fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(header) = self.header.get().filter(|_| !self.admitted) else {
            return Poll::Ready(Ok(()));
        };
        if !self.charged {
            let is_free =
                header.body_bytes() > 0 && !header.opens() && self.backlog.holds(header.stream);
            if !is_free {
                ready!(self.control.poll_take(cx))?;
            }
            self.charged = true;
        }
        if header.is_data() {
            ready!(self.poll_room(cx, header))?;
        }
        self.admitted = true;
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, header: Header) -> Poll<io::Result<()>> {
        let frame = Incoming {
            stream: header.stream,
            opens: header.opens(),
            bytes: header.body_bytes(),
        };
        if self
            .backlog
            .poll_admit(cx, frame, &mut self.waiting)
            .is_ready()
        {
            self.stall = None;
            return Poll::Ready(Ok(()));
        }
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(sleep(READ_STALL_TIMEOUT)));
        stall
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// An error when a large frame takes too long: it holds its whole length of what all connections share.
    pub(super) fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.body <= LARGE_FRAME_BYTES {
            return Poll::Pending;
        }
        let limit = FRAME_STALL_TIMEOUT + time_for(self.body);
        let pace = self.pace.get_or_insert_with(|| Box::pin(sleep(limit)));
        pace.as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Hands header bytes on; after the last one, the body is due.
    pub(super) fn hand_on(&mut self, out: &mut [u8]) -> usize {
        let have = self.header.have();
        let rest = have.get(self.given..).unwrap_or_default();
        let count = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.given += count;
        if self.given == have.len() {
            if let Some(header) = self.header.get() {
                (self.body, self.body_left) = (header.body_bytes(), header.body_bytes());
                self.pace = None;
            }
            self.next_frame();
        }
        count
    }

    /// Throws the frame away if it answers a ping that is not the multiplexer's, or one whose answer it is not to see: without
    /// that it pings no more, and no window grows.
    pub(super) fn skip_answer(&mut self) -> bool {
        let skips =
            |header: Header| header.answers_probe() || (header.answers_ping() && !self.measures);
        let skip = self.header.get().is_some_and(skips);
        if skip {
            self.next_frame();
        }
        skip
    }

    fn next_frame(&mut self) {
        self.header = HeaderBytes::default();
        (self.given, self.charged, self.admitted) = (0, false, false);
    }
}

// === impl ControlFrames ===

impl ControlFrames {
    /// Ready when a token is there; an error once the peer has had to wait for one too often.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let now = self.since.elapsed().as_secs();
            if self.bucket.is_full(CONTROL_FRAMES, now) {
                self.pauses = 0;
            }
            if self.bucket.take(CONTROL_FRAMES, now) {
                return Poll::Ready(Ok(()));
            }
            metrics::control_pause();
            self.pauses += 1;
            if self.pauses > MAX_CONTROL_PAUSES {
                return Poll::Ready(Err(io::Error::other(ControlFlood)));
            }
            self.pause = Some(Box::pin(sleep(CONTROL_PAUSE)));
        }
    }
}
