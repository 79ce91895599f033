//! Room for requests, bounded once in number and bytes, with a part for each level of importance, each cause and each requester.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Levels of importance; 0 is the most important.
pub const LEVELS: usize = 4;

/// The part of `bound` that requests of a level leave to more important ones: nothing, an eighth, a quarter, half.
///
/// The rule of every stage at which requests queue.
#[must_use]
pub const fn reserved(bound: usize, level: usize) -> usize {
    match level {
        0 => 0,
        1 => bound / 8,
        2 => bound / 8 * 2,
        _ => bound - bound / 2,
    }
}

/// Of the share of a cause, the part that all requests for one [requester](RoomAsk::requester) may have: an eighth.
const REQUESTER_SHARE: usize = 8;

/// A number of requests and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Requests that may hold a place at one time.
    pub requests: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

/// Room that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomAsk {
    /// Its importance, less than [`LEVELS`]; 0 is the most important.
    pub level: usize,
    /// Its cause, an index into the shares given to [`PriorityAdmission::new`].
    pub cause: usize,
    /// Party that made this node ask for room, as 32 bytes: an eighth of the share of the cause is for one of them. `None` for
    /// what this node sends of its own accord.
    pub requester: Option<[u8; 32]>,
    /// Bytes that the request occupies.
    pub bytes: usize,
}

/// Hands out [places](Place), bounded in number and bytes.
///
/// A request finds a place if it leaves the [reserve](reserved) of more important levels alone and stays within the
/// share of its cause and, in that, of its requester. A request of any length may have the room, or such a share, alone.
///
/// Callers that [wait](Self::acquire) get places in the order in which they came, for each cause; they hold nothing while
/// they wait, so that they keep no other cause out. Their number is bounded too. Cheap to clone.
///
/// ```
/// use dht_stack::{RoomAsk, PriorityAdmission, Room};
///
/// // Eight requests; either cause may have six of them.
/// let room = Room { requests: 8, bytes: 1_000 };
/// let admission = PriorityAdmission::new(room, &[0.75, 0.75], 100);
/// let gossip = RoomAsk { level: 3, cause: 0, requester: None, bytes: 10 };
/// let taken: Vec<_> = (0..8).filter_map(|_| admission.try_acquire(gossip)).collect();
/// assert_eq!(taken.len(), 4, "gossip may fill half");
/// assert!(admission.try_acquire(RoomAsk { level: 0, ..gossip }).is_some());
/// ```
#[derive(Clone)]
pub struct PriorityAdmission(Arc<Inner>);

/// A place in a [`PriorityAdmission`], given back on drop.
pub struct Place {
    /// `None` once given back.
    of: Option<Arc<Inner>>,
    ask: RoomAsk,
}

/// Why a caller does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPlace {
    /// As many callers wait as may.
    #[error("no room, and too many requests wait for it")]
    Full,
    /// [`PriorityAdmission::close`] was called.
    #[error("no more requests are taken")]
    Closed,
}

struct Inner {
    room: Room,
    shares: Box<[Room]>,
    max_waiting: usize,
    state: Mutex<State>,
}

struct State {
    held: Room,
    by_cause: Box<[Room]>,
    /// Room of the requesters that hold places, for each cause; no larger than the number of places.
    by_requester: HashMap<(usize, [u8; 32]), Room>,
    /// Callers in the order in which they came, for each cause.
    lines: Box<[VecDeque<Caller>]>,
    waiting: usize,
    /// Callers that have asked so far, over all causes.
    callers: u64,
    is_closed: bool,
}

struct Caller {
    number: u64,
    ask: RoomAsk,
    granted: oneshot::Sender<Place>,
}

// === impl PriorityAdmission ===

impl PriorityAdmission {
    /// Admits up to `room`, and of each cause up to its fraction in `shares`. At most `max_waiting` callers wait.
    #[must_use]
    pub fn new(room: Room, shares: &[f64], max_waiting: usize) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a fraction of a count"
        )]
        let part = |of: usize, share: f64| (of as f64 * share.clamp(0.0, 1.0)) as usize;
        let share = |share: &f64| Room {
            requests: part(room.requests, *share).max(1),
            bytes: part(room.bytes, *share),
        };
        Self(Arc::new(Inner {
            room,
            shares: shares.iter().map(share).collect(),
            max_waiting,
            state: Mutex::new(State {
                held: Room::default(),
                by_cause: vec![Room::default(); shares.len()].into(),
                by_requester: HashMap::new(),
                lines: shares.iter().map(|_| VecDeque::new()).collect(),
                waiting: 0,
                callers: 0,
                is_closed: false,
            }),
        }))
    }

    /// A place, if there is one now and no caller of the same cause waits.
    #[must_use]
    pub fn try_acquire(&self, ask: RoomAsk) -> Option<Place> {
        let mut state = self.0.state.lock();
        if state.is_closed || state.next_of(ask.cause).is_some() || !self.0.fits(&state, ask) {
            return None;
        }
        state.hold(ask);
        Some(self.0.place(ask))
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`NoPlace`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line, or the place itself if it was granted already.
    pub async fn acquire(&self, ask: RoomAsk) -> Result<Place, NoPlace> {
        let granted = {
            let mut state = self.0.state.lock();
            if state.is_closed {
                return Err(NoPlace::Closed);
            }
            if state.next_of(ask.cause).is_none() && self.0.fits(&state, ask) {
                state.hold(ask);
                return Ok(self.0.place(ask));
            }
            if state.waiting >= self.0.max_waiting {
                state.forget_gone();
            }
            if state.waiting >= self.0.max_waiting {
                return Err(NoPlace::Full);
            }
            let (sender, granted) = oneshot::channel();
            let number = state.callers;
            let Some(line) = state.lines.get_mut(ask.cause) else {
                return Err(NoPlace::Full);
            };
            line.push_back(Caller {
                number,
                ask,
                granted: sender,
            });
            state.callers += 1;
            state.waiting += 1;
            granted
        };
        granted.await.map_err(|_| NoPlace::Closed)
    }

    /// Ends the waiting of all callers; later calls get no place.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.waiting = 0;
        let gone: Vec<_> = state.lines.iter_mut().map(std::mem::take).collect();
        drop(state);
        drop(gone);
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().is_closed
    }

    /// Room that is held now.
    #[must_use]
    pub fn held(&self) -> Room {
        self.0.state.lock().held
    }

    /// Number of callers that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let mut state = self.0.state.lock();
        state.forget_gone();
        state.waiting
    }
}

impl Inner {
    fn fits(&self, state: &State, ask: RoomAsk) -> bool {
        let within = |held: Room, bound: Room, level: usize| {
            let requests = held
                .requests
                .saturating_add(1)
                .saturating_add(reserved(bound.requests, level));
            let bytes = held
                .bytes
                .saturating_add(ask.bytes)
                .saturating_add(reserved(bound.bytes, level));
            requests <= bound.requests && (bytes <= bound.bytes || held.requests == 0)
        };
        let of_cause = state.by_cause.get(ask.cause).copied().unwrap_or_default();
        let share = self.shares.get(ask.cause).copied().unwrap_or_default();
        within(state.held, self.room, ask.level)
            && within(of_cause, share, 0)
            && ask.requester.is_none_or(|requester| {
                let of_requester = state.by_requester.get(&(ask.cause, requester)).copied();
                let share = Room {
                    requests: (share.requests / REQUESTER_SHARE).max(1),
                    bytes: share.bytes / REQUESTER_SHARE,
                };
                within(of_requester.unwrap_or_default(), share, 0)
            })
    }

    fn place(self: &Arc<Self>, ask: RoomAsk) -> Place {
        Place {
            of: Some(Arc::clone(self)),
            ask,
        }
    }

    fn give_back(self: &Arc<Self>, ask: RoomAsk) {
        let mut state = self.state.lock();
        state.release(ask);
        // The first of each cause that fits, in the order in which they came.
        loop {
            let causes = 0..self.shares.len();
            let mut next: Option<(u64, RoomAsk)> = None;
            for cause in causes {
                if let Some(first) = state.next_of(cause)
                    && self.fits(&state, first.1)
                    && next.is_none_or(|next| first.0 < next.0)
                {
                    next = Some(first);
                }
            }
            let Some((_, ask)) = next else {
                return;
            };
            let line = state.lines.get_mut(ask.cause);
            let Some(caller) = line.and_then(VecDeque::pop_front) else {
                return;
            };
            state.waiting -= 1;
            state.hold(ask);
            if let Err(mut place) = caller.granted.send(self.place(ask)) {
                // Correctness: it must not give itself back while the state is locked.
                place.of = None;
                state.release(ask);
            }
        }
    }
}

impl State {
    /// Number and request of the first caller that waits with this cause.
    fn next_of(&mut self, cause: usize) -> Option<(u64, RoomAsk)> {
        let line = self.lines.get_mut(cause)?;
        while line
            .front()
            .is_some_and(|caller| caller.granted.is_closed())
        {
            line.pop_front();
            self.waiting -= 1;
        }
        line.front().map(|caller| (caller.number, caller.ask))
    }

    fn forget_gone(&mut self) {
        for line in &mut self.lines {
            line.retain(|caller| !caller.granted.is_closed());
        }
        self.waiting = self.lines.iter().map(VecDeque::len).sum();
    }

    fn hold(&mut self, ask: RoomAsk) {
        let of_requester = ask
            .requester
            .map(|requester| self.by_requester.entry((ask.cause, requester)).or_default());
        let of_cause = self.by_cause.get_mut(ask.cause);
        for held in [Some(&mut self.held), of_cause, of_requester]
            .into_iter()
            .flatten()
        {
            held.requests += 1;
            held.bytes = held.bytes.saturating_add(ask.bytes);
        }
    }

    fn release(&mut self, ask: RoomAsk) {
        let requester = ask.requester.map(|requester| (ask.cause, requester));
        let of_requester = requester.and_then(|requester| self.by_requester.get_mut(&requester));
        let of_cause = self.by_cause.get_mut(ask.cause);
        for held in [Some(&mut self.held), of_cause, of_requester]
            .into_iter()
            .flatten()
        {
            held.requests = held.requests.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(ask.bytes);
        }
        if let Some(requester) = requester
            && self
                .by_requester
                .get(&requester)
                .is_none_or(|held| held.requests == 0)
        {
            self.by_requester.remove(&requester);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            of.give_back(self.ask);
        }
    }
}

impl fmt::Debug for PriorityAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityAdmission")
            .field("room", &self.0.room)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.ask).finish()
    }
}

#[cfg(test)]
mod tests;
