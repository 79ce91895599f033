//! Counts and bounds the multiplexer's memory: bytes that a peer sent and that are not read yet.
//!
//! yamux promises every stream a window of 256 KiB and keeps each frame in an allocation of its own. A peer that
//! fills the windows of many streams, or sends frames of one byte, could take hundreds of megabytes that way, none
//! of which a message's permit covers. So a frame is let into the multiplexer only when there is room for what it
//! costs: a small part is free for every connection, the rest comes out of a budget that all connections share.
//! Without room the connection is not read, which holds back only its peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use dht_stack::{ByteBudget, BytePermit};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::limits::{FREE_UNREAD_BYTES, MAX_UNREAD_BYTES};

/// Bytes that a frame takes beside its payload: the allocation's own head, and rounding.
const FRAME_COST: usize = 64;

/// Its place in the stream's queue. A queue never shrinks, so the longest it ever was counts until the stream ends.
const PLACE_COST: usize = 64;

/// The shared budget is asked for, and given back, in steps of this size.
const STEP_BYTES: usize = 64 * 1024;

/// The unread bytes of one connection.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// For what is not free, of all connections.
    shared: ByteBudget,
    state: Mutex<State>,
    /// Streams that ended and may still be in the multiplexer: [`State::ended`] without the lock.
    ended: AtomicUsize,
    /// Wakers of tasks that wait for room.
    reader: AtomicWaker,
}

/// A frame about to enter the multiplexer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub(super) stream: u32,
    /// Whether it begins a stream.
    pub(super) opens: bool,
    pub(super) bytes: usize,
}

/// A wait for the shared budget.
pub(super) type Waiting = Option<Pin<Box<dyn Future<Output = BytePermit> + Send>>>;

/// One stream in a [`Backlog`], until dropped.
#[derive(Debug)]
pub(super) struct Place {
    backlog: Arc<Backlog>,
    stream: u32,
    serial: u64,
    /// Length of the chunk that its reader has in hand.
    in_hand: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u32, Unread>,
    next_serial: u64,
    /// The frame let in last and its cost, while no stream is known to hold it: it begins one, or the multiplexer
    /// throws it away.
    passing: Option<(u32, usize)>,
    /// Cost of everything held.
    total: usize,
    /// Covers `total` beyond what is free.
    permit: BytePermit,
    /// Streams whose reader is gone. The multiplexer holds their frames until its next turn.
    ended: Vec<(u32, u64)>,
    /// How many of them it will have forgotten when it reads again.
    leaving: usize,
}

#[derive(Debug, Default)]
struct Unread {
    /// Tells streams apart that had the same id one after the other.
    serial: u64,
    frames: usize,
    most_frames: usize,
    cost: usize,
}

enum Room {
    Granted,
    /// Not before something is read.
    Later,
    /// Not without this many bytes more of the shared budget.
    Missing(usize),
}

// === impl Backlog ===

impl Backlog {
    pub(crate) fn new(shared: ByteBudget) -> Arc<Self> {
        Arc::new(Self {
            shared,
            state: Mutex::default(),
            ended: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
        })
    }

    /// Lets a frame in when there is room for it.
    pub(super) fn poll_admit(
        &self,
        cx: &Context<'_>,
        frame: Incoming,
        waiting: &mut Waiting,
    ) -> Poll<()> {
        let mut registered = false;
        loop {
            let room = self.state.lock().admit(frame, &self.shared);
            let missing = match room {
                Room::Granted => {
                    *waiting = None;
                    return Poll::Ready(());
                }
                // Correctness: what is read from here on wakes us; what was read just before is looked at.
                _ if !registered => {
                    self.reader.register(cx.waker());
                    registered = true;
                    continue;
                }
                Room::Later => {
                    *waiting = None;
                    return Poll::Pending;
                }
                Room::Missing(bytes) => bytes,
            };
            let shared = &self.shared;
            let acquire = waiting.get_or_insert_with(|| {
                let shared = shared.clone();
                Box::pin(async move { shared.acquire(missing).await })
            });
            let permit = ready!(acquire.as_mut().poll(&mut Context::from_waker(cx.waker())));
            *waiting = None;
            self.state.lock().permit.merge(permit);
        }
    }

    /// Whether the stream is alive.
    pub(super) fn holds(&self, stream: u32) -> bool {
        self.state.lock().streams.contains_key(&stream)
    }

    /// A stream that the multiplexer made. Its first frame, if it came with one, is the last that was let in.
    pub(super) fn enter(self: &Arc<Self>, stream: u32) -> Place {
        let serial = self.state.lock().enter(stream);
        Place {
            backlog: Arc::clone(self),
            stream,
            serial,
            in_hand: None,
        }
    }

    /// The multiplexer has nothing left to write: it lets go of streams that ended before it reads again.
    pub(super) fn flushed(&self) {
        if self.ended.load(Ordering::SeqCst) > 0 {
            let mut state = self.state.lock();
            state.leaving = state.ended.len();
        }
    }

    /// The multiplexer reads again, with nothing written since [`flushed`](Self::flushed).
    pub(super) fn reads(&self) {
        if self.ended.load(Ordering::SeqCst) > 0 {
            let mut state = self.state.lock();
            state.forget_ended();
            self.ended.store(state.ended.len(), Ordering::SeqCst);
        }
    }

    fn consumed(&self, stream: u32, serial: u64, bytes: usize) {
        self.state.lock().consumed(stream, serial, bytes);
        self.reader.wake();
    }

    fn leave(&self, stream: u32, serial: u64) {
        let mut state = self.state.lock();
        state.ended.push((stream, serial));
        self.ended.store(state.ended.len(), Ordering::SeqCst);
        drop(state);
        self.reader.wake();
    }
}

// === impl State ===

impl State {
    fn admit(&mut self, frame: Incoming, shared: &ByteBudget) -> Room {
        // The multiplexer is done with the frame before.
        if let Some((_, cost)) = self.passing.take() {
            self.total = self.total.saturating_sub(cost);
        }
        let known = (!frame.opens)
            .then(|| self.streams.get_mut(&frame.stream))
            .flatten();
        let new_place = known
            .as_ref()
            .is_none_or(|unread| unread.frames == unread.most_frames);
        let cost = match frame.bytes {
            0 => 0,
            bytes if new_place => bytes + FRAME_COST + PLACE_COST,
            bytes => bytes + FRAME_COST,
        };
        let total = self.total.saturating_add(cost);
        if self.total > 0 && total > MAX_UNREAD_BYTES {
            return Room::Later;
        }
        let covered = self.permit.bytes().saturating_add(FREE_UNREAD_BYTES);
        if total > covered {
            let missing = (total - covered).next_multiple_of(STEP_BYTES);
            match shared.try_acquire(missing) {
                Some(permit) => self.permit.merge(permit),
                None => return Room::Missing(missing),
            }
        }
        match known {
            Some(unread) if cost > 0 => {
                unread.frames += 1;
                unread.most_frames = unread.most_frames.max(unread.frames);
                unread.cost += cost;
            }
            Some(_) => {}
            None => self.passing = Some((frame.stream, cost)),
        }
        self.total = total;
        Room::Granted
    }

    fn enter(&mut self, stream: u32) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        let first = self.passing.take_if(|(passing, _)| *passing == stream);
        let cost = first.map_or(0, |(_, cost)| cost);
        let frames = usize::from(cost > 0);
        let unread = Unread {
            serial,
            frames,
            most_frames: frames,
            cost,
        };
        // The multiplexer uses an id again only when it is done with the stream before.
        if let Some(before) = self.streams.insert(stream, unread) {
            self.total = self.total.saturating_sub(before.cost);
        }
        serial
    }

    fn forget_ended(&mut self) {
        for (stream, serial) in self.ended.drain(..std::mem::take(&mut self.leaving)) {
            if let Entry::Occupied(held) = self.streams.entry(stream)
                && held.get().serial == serial
            {
                self.total = self.total.saturating_sub(held.remove().cost);
            }
        }
        self.trim();
    }

    fn consumed(&mut self, stream: u32, serial: u64, bytes: usize) {
        let unread = self.streams.get_mut(&stream);
        if let Some(unread) = unread.filter(|unread| unread.serial == serial) {
            let cost = unread.cost.min(bytes.saturating_add(FRAME_COST));
            unread.frames = unread.frames.saturating_sub(1);
            unread.cost -= cost;
            self.total = self.total.saturating_sub(cost);
            self.trim();
        }
    }

    /// Gives back what the total does not need.
    fn trim(&mut self) {
        let held = self.permit.bytes();
        let needed = self.total.saturating_sub(FREE_UNREAD_BYTES);
        let kept = needed.next_multiple_of(STEP_BYTES);
        // Not step by step around a boundary.
        if held > kept + STEP_BYTES || (needed == 0 && held > 0) {
            drop(self.permit.split(held - kept));
        }
    }
}

// === impl Place ===

impl Place {
    /// Its reader took a chunk, and is done with the one before.
    pub(super) fn took(&mut self, bytes: usize) {
        self.in_hand = Some(bytes);
    }

    /// Its reader is done with the chunk it took.
    pub(super) fn done(&mut self) {
        if let Some(bytes) = self.in_hand.take() {
            self.backlog.consumed(self.stream, self.serial, bytes);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backlog.leave(self.stream, self.serial);
    }
}

#[cfg(test)]
mod tests;
