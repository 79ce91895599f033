//! One connection: two directions of bytes, each with its time of arrival.

use std::{
    collections::VecDeque,
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Fabric, HostId};

/// Bytes that one direction holds before the writer waits: the send buffer and what is on the way.
const WINDOW_BYTES: usize = 128 * 1024;
/// Time without a word from the other host after which the kernel gives a connection up: that of a node's TCP sockets, whose
/// keep-alive probes find out also while nothing is sent.
const SILENCE: Duration = Duration::from_secs(120);
/// Most bytes that one write takes, so that the links of a host take turns on its uplink.
const SEGMENT_BYTES: usize = 16 * 1024;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    /// Node that dialled, node that accepted.
    pub(super) hosts: [HostId; 2],
    /// How often each host had started when the link was made.
    pub(super) starts: [u32; 2],
    state: Mutex<Directions>,
}

#[derive(Debug)]
struct Directions {
    /// From the first host, from the second one.
    ways: [Way; 2],
    /// Since when nothing arrives: the path is cut, or a host is silent.
    stalled: Option<Instant>,
    /// Whether each end was dropped.
    closed: [bool; 2],
}

/// One direction.
#[derive(Debug)]
struct Way {
    segments: VecDeque<Segment>,
    /// Bytes written and not read.
    held: usize,
    /// When the newest bytes arrive.
    last: Instant,
    /// When the end of the stream arrives, behind all bytes.
    end: Option<Instant>,
    /// When the reader learns that the connection is reset, whatever else is on the way.
    reset: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Segment {
    arrives: Instant,
    bytes: Vec<u8>,
    read: usize,
}

/// One end of a [`Link`], as a socket.
pub(super) struct End {
    fabric: Fabric,
    link: Arc<Link>,
    /// 0 for the host that dialled.
    side: usize,
    timer: Pin<Box<Sleep>>,
}

// === impl Link ===

impl Link {
    pub(super) fn new(id: u64, hosts: [HostId; 2], starts: [u32; 2]) -> Self {
        let now = Instant::now();
        Self {
            id,
            hosts,
            starts,
            state: Mutex::new(Directions {
                ways: [Way::new(now), Way::new(now)],
                stalled: None,
                closed: [false; 2],
            }),
        }
    }

    /// Whether both ends are gone.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().closed == [true; 2]
    }

    /// Nothing arrives from now on; what is on the way is sent again later.
    pub(super) fn stall(&self) {
        let mut state = self.state.lock();
        if state.stalled.is_none() {
            state.stalled = Some(Instant::now());
            // The readers wait for the end of their patience from now on.
            for way in &mut state.ways {
                way.wake();
            }
        }
    }

    /// Bytes arrive again, those that were on the way after `again`.
    pub(super) fn resume(&self, again: Duration) {
        let mut state = self.state.lock();
        if state.stalled.take().is_none() {
            return;
        }
        let earliest = Instant::now() + again;
        let Directions { ways, closed, .. } = &mut *state;
        let [one, other] = &mut *ways;
        let [one_is_gone, other_is_gone] = *closed;
        // The answer to bytes for a socket that is gone.
        if other_is_gone && !one.segments.is_empty() {
            one.segments.clear();
            other.reset = Some(earliest);
        }
        if one_is_gone && !other.segments.is_empty() {
            other.segments.clear();
            one.reset = Some(earliest);
        }
        for way in ways {
            for segment in &mut way.segments {
                segment.arrives = segment.arrives.max(earliest);
            }
            way.end = way.end.map(|at| at.max(earliest));
            way.last = way.last.max(earliest);
            way.wake();
        }
    }

    /// The other end learns after `delay` that the host of `side` knows nothing of this connection, if it sends anything.
    pub(super) fn forget(&self, side: usize, delay: Duration) {
        let mut state = self.state.lock();
        let Directions {
            ways,
            stalled,
            closed,
        } = &mut *state;
        *stalled = None;
        if let Some(closed) = closed.get_mut(side) {
            *closed = true;
        }
        let [one, other] = ways;
        let (from, to) = if side == 0 {
            (one, other)
        } else {
            (other, one)
        };
        // Bytes that the dead end wrote were lost with it.
        from.segments.clear();
        from.end = None;
        if !to.segments.is_empty() || to.end.is_some() {
            to.segments.clear();
            from.reset = Some(Instant::now() + delay);
        }
        from.wake();
        to.wake();
    }

    /// Both ends learn now that the connection is reset.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        for way in &mut state.ways {
            way.reset = Some(Instant::now());
            way.wake();
        }
    }
}

// === impl Way ===

impl Way {
    const fn new(now: Instant) -> Self {
        Self {
            segments: VecDeque::new(),
            held: 0,
            last: now,
            end: None,
            reset: None,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

// === impl End ===

impl End {
    pub(super) fn new(fabric: Fabric, link: Arc<Link>, side: usize) -> Self {
        Self {
            fabric,
            link,
            side,
            timer: Box::pin(sleep_until(Instant::now())),
        }
    }

    fn peer(&self) -> usize {
        1 - self.side
    }

    /// Ends the direction from this end, behind all bytes.
    fn finish(&self, state: &mut Directions) {
        let delay = self.fabric.delay_of(&self.link, self.side, 0);
        if let Some(way) = state.ways.get_mut(self.side)
            && way.end.is_none()
        {
            way.last = way.last.max(Instant::now() + delay);
            way.end = Some(way.last);
            if let Some(reader) = way.reader.take() {
                reader.wake();
            }
        }
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let now = Instant::now();
        let mut state = this.link.state.lock();
        let given_up = state.stalled.map(|since| since + SILENCE);
        if given_up.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let stalled = given_up.is_some();
        let Some(way) = state.ways.get_mut(this.peer()) else {
            return Poll::Ready(Ok(()));
        };
        if way.reset.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut read = 0;
        while !stalled
            && out.remaining() > 0
            && let Some(segment) = way.segments.front_mut().filter(|it| it.arrives <= now)
        {
            let rest = segment.bytes.get(segment.read..).unwrap_or_default();
            let part = rest
                .get(..out.remaining().min(rest.len()))
                .unwrap_or_default();
            out.put_slice(part);
            segment.read += part.len();
            read += part.len();
            if segment.read == segment.bytes.len() {
                way.segments.pop_front();
            }
        }
        if read > 0 {
            way.held = way.held.saturating_sub(read);
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        let bytes = way.segments.front().map(|segment| segment.arrives);
        if !stalled && bytes.is_none() && way.end.is_some_and(|at| at <= now) {
            return Poll::Ready(Ok(()));
        }
        way.reader = Some(cx.waker().clone());
        let arrival = bytes.or(way.end).filter(|_| !stalled);
        let next = [arrival, way.reset, given_up].into_iter().flatten().min();
        drop(state);
        if let Some(next) = next {
            this.timer.as_mut().reset(next);
            if this.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let now = Instant::now();
        let mut state = this.link.state.lock();
        // Across a cut path nothing is known of that.
        let peer_closed = state.stalled.is_none() && state.closed.get(this.peer()) == Some(&true);
        let Some(incoming) = state.ways.get_mut(this.peer()) else {
            return Poll::Ready(Ok(data.len()));
        };
        if incoming.reset.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if peer_closed {
            // The answer to bytes for a socket that is gone.
            if incoming.reset.is_none() {
                let delay = this.fabric.delay_of(&this.link, this.side, data.len());
                incoming.reset = Some(now + delay + delay);
                incoming.wake();
            }
            return Poll::Ready(Ok(data.len()));
        }
        let Some(way) = state.ways.get_mut(this.side) else {
            return Poll::Ready(Ok(data.len()));
        };
        if way.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(way.held);
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = data
            .get(..data.len().min(room).min(SEGMENT_BYTES))
            .unwrap_or_default();
        let delay = this.fabric.delay_of(&this.link, this.side, bytes.len());
        this.fabric.wrote(&this.link, this.side, bytes);
        way.last = way.last.max(now + delay);
        way.held += bytes.len();
        way.segments.push_back(Segment {
            arrives: way.last,
            bytes: bytes.to_vec(),
            read: 0,
        });
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish(&mut self.link.state.lock());
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.link.state.lock();
        self.finish(&mut state);
        if let Some(closed) = state.closed.get_mut(self.side) {
            *closed = true;
        }
        // Bytes that nobody will read wait for nobody.
        let peer = self.peer();
        if let Some(way) = state.ways.get_mut(peer) {
            way.segments.clear();
            way.held = 0;
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
        }
        drop(state);
        self.fabric.closed(&self.link, self.side);
    }
}
