//! Counts messages by deliverer (03 section 5), with the limits of 03 F-13.

use std::{collections::VecDeque, fmt, sync::Arc};

use dht_core::{Clock as _, DropReason, NodeId, SharedClock, UnixSeconds};
use dht_peers::{
    InboundFrame,
    policy::{BanPolicy, Offence, Parties},
};
use dht_stack::{Check, Sharded};

/// Messages a deliverer may send within the timespan; defaults to 1 000.
pub const DEFAULT_FLOOD_MESSAGES: u32 = 1_000;

/// Seconds in which they count; defaults to 60.
pub const DEFAULT_FLOOD_SECONDS: u64 = 60;

/// Deliverers counted at most. More than a node ever has connections; without a bound, a peer that makes node ids
/// cheaply could fill the memory.
pub const MAX_METERED_PEERS: usize = 8_192;

/// An idle deliverer is forgotten after this time, or after the timespan if that is longer.
pub const MIN_IDLE_SECONDS: u64 = 60 * 60;

/// How much a deliverer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Messages within the timespan that are still fine; defaults to [`DEFAULT_FLOOD_MESSAGES`].
    pub messages: u32,
    /// The timespan in seconds; defaults to [`DEFAULT_FLOOD_SECONDS`].
    pub seconds: u64,
}

/// Counts arrivals per deliverer in a sliding window of buckets.
///
/// A bucket spans a sixtieth of the timespan, at least a second; memory per deliverer grows with the buckets in
/// which it sent anything and is a few hundred bytes at most, whatever it sends. With a timespan of up to a minute
/// the answer is exact; with a longer one, the bucket at the far end is not counted once part of it is over, so
/// that no peer is reported too early. Cloning shares the meter; nothing here reads a clock.
///
/// 03 section 5 and F-13.
///
/// ```
/// use dht_core::{NodeId, UnixSeconds};
/// use dht_inbound::{FloodLimits, FloodMeter};
///
/// let meter = FloodMeter::new(FloodLimits { messages: 2, seconds: 60 }, [7; 16]);
/// let (peer, now) = (NodeId::default(), UnixSeconds(1_700_000_000));
/// for _ in 0..3 {
///     meter.record(&peer, now);
/// }
/// assert_eq!(meter.exceeding(now)[0].messages, 3);
/// assert!(meter.exceeding(now.saturating_add(61)).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct FloodMeter(Arc<Inner>);

/// A deliverer over the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flooder {
    /// Node id of the deliverer.
    pub node_id: NodeId,
    /// Messages within the timespan.
    pub messages: u64,
    /// Messages a second since the oldest one counted; 0 when that is under a second ago.
    pub per_second: f64,
}

#[derive(Debug)]
struct Inner {
    limits: FloodLimits,
    /// Seconds of a bucket.
    width: u64,
    /// Windows of the deliverers; the state of a shard counts the arrivals of all its deliverers.
    peers: Sharded<NodeId, Window, Window>,
}

/// Tells the [`FloodMeter`] about every frame, before any other check can drop it. It bans no peer: that is up to the
/// code that
/// asks the meter at intervals.
///
/// Specification 03, section 3.1.
#[derive(Clone)]
pub struct Meter {
    /// Where arrivals are counted.
    pub meter: FloodMeter,
    /// Clock of this node.
    pub clock: SharedClock,
}

/// Counts per bucket, oldest first, only of buckets in which something happened.
#[derive(Debug, Default)]
struct Window {
    buckets: VecDeque<Span>,
    last: UnixSeconds,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    /// Start of the bucket in seconds, divided by the width.
    number: u64,
    count: u32,
}

const SHARDS: usize = 16;
const BUCKETS: u64 = 60;

/// Threads that read the clock at the same time may be this far apart, in seconds. A clock that is further back was
/// set back.
const MAX_SKEW_SECONDS: u64 = 5;

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            messages: DEFAULT_FLOOD_MESSAGES,
            seconds: DEFAULT_FLOOD_SECONDS,
        }
    }
}

impl Check<InboundFrame> for Meter {
    type Out = InboundFrame;
    type Reject = DropReason;

    fn check(&self, frame: InboundFrame) -> Result<InboundFrame, DropReason> {
        self.meter.record(&frame.source.node_id, self.clock.now());
        Ok(frame)
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.meter).finish()
    }
}

// === impl FloodMeter ===

impl FloodMeter {
    /// A meter without arrivals. The `seed` must be unknown to peers.
    #[must_use]
    pub fn new(limits: FloodLimits, seed: [u8; 16]) -> Self {
        Self(Arc::new(Inner {
            width: limits.seconds.div_ceil(BUCKETS).max(1),
            limits,
            peers: Sharded::new(SHARDS, seed),
        }))
    }

    /// The limits that are enforced.
    #[must_use]
    pub fn limits(&self) -> FloodLimits {
        self.0.limits
    }

    /// Counts one message of a deliverer.
    pub fn record(&self, from: &NodeId, now: UnixSeconds) {
        let (width, span) = (self.0.width, self.0.limits.seconds);
        let mut slot = self.0.peers.lock(from);
        slot.shard().state.add(now, width, span);
        if slot.get().is_none() && slot.shard().len() >= MAX_METERED_PEERS / SHARDS {
            // Only reached with far more deliverers than connections, so a scan will do.
            let shard = slot.shard();
            let idlest = shard.iter().map(|(id, window)| (window.last, *id)).min();
            shard.retain(|id, window| Some((window.last, *id)) != idlest);
        }
        slot.get_or_insert_with(Window::default)
            .add(now, width, span);
    }

    /// Arrivals from a deliverer within the timespan; 0 if none is known.
    #[must_use]
    pub fn count(&self, from: &NodeId, now: UnixSeconds) -> u64 {
        let slot = self.0.peers.lock(from);
        slot.get().map_or(0, |window| self.0.count(window, now).0)
    }

    /// Arrivals from all deliverers within the timespan, those since cleared included.
    #[must_use]
    pub fn total(&self, now: UnixSeconds) -> u64 {
        let shards = self.0.peers.shards();
        shards.map(|shard| self.0.count(&shard.state, now).0).sum()
    }

    /// Reports every deliverer that [exceeds](Self::exceeding) the limit, and returns how many there are. To be called
    /// at start and then every two minutes.
    pub fn report(&self, bans: &BanPolicy, now: UnixSeconds) -> usize {
        let flooders = self.exceeding(now);
        for flooder in &flooders {
            bans.report(Offence::Flood, Parties::deliverer(flooder.node_id));
        }
        flooders.len()
    }

    /// Deliverers with strictly more arrivals within the timespan than the limit, by node id.
    #[must_use]
    pub fn exceeding(&self, now: UnixSeconds) -> Vec<Flooder> {
        let mut flooders = Vec::new();
        for shard in self.0.peers.shards() {
            for (id, window) in shard.iter() {
                let (messages, oldest) = self.0.count(window, now);
                if messages > u64::from(self.0.limits.messages) {
                    let seconds = now.0.saturating_sub(oldest);
                    let rate = messages as f64 / seconds as f64;
                    let per_second = if seconds == 0 { 0.0 } else { rate };
                    flooders.push(Flooder {
                        node_id: *id,
                        messages,
                        per_second,
                    });
                }
            }
        }
        flooders.sort_unstable_by_key(|flooder| flooder.node_id);
        flooders
    }

    /// Forgets a deliverer, for the operator's sake. Not to be called when it disconnects: it could start anew by
    /// reconnecting.
    pub fn clear(&self, id: &NodeId) {
        self.0.peers.lock(id).remove();
    }

    /// Forgets deliverers that were idle for more than an hour, or than the timespan if that is longer. Wanted about
    /// every ten minutes; answers how many.
    pub fn prune(&self, now: UnixSeconds) -> usize {
        let idle = self.0.limits.seconds.max(MIN_IDLE_SECONDS);
        self.retain(|_, window| now.saturating_since(window.last) <= idle)
    }

    /// Deliverers counted at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.peers.len()
    }

    /// True if no deliverer is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn retain(&self, mut keep: impl FnMut(&NodeId, &Window) -> bool) -> usize {
        let shards = self.0.peers.shards();
        shards
            .map(|mut shard| shard.retain(|id, window| keep(id, window)))
            .sum()
    }
}

impl Inner {
    fn count(&self, window: &Window, now: UnixSeconds) -> (u64, u64) {
        window.count(now, self.width, self.limits.seconds)
    }
}

impl Window {
    fn add(&mut self, now: UnixSeconds, width: u64, span: u64) {
        if self.last.saturating_since(now) > MAX_SKEW_SECONDS {
            // Counting on into a bucket of the future would add up until that comes, and accuse the innocent.
            *self = Self::default();
        }
        self.last = self.last.max(now);
        let number = now.0 / width;
        match self.buckets.back_mut() {
            // Another thread was a moment ahead.
            Some(bucket) if bucket.number >= number => {
                bucket.count = bucket.count.saturating_add(1);
            }
            _ => {
                let first = first_bucket(now, width, span);
                while self
                    .buckets
                    .front()
                    .is_some_and(|bucket| bucket.number < first)
                {
                    self.buckets.pop_front();
                }
                self.buckets.push_back(Span { number, count: 1 });
            }
        }
    }

    /// Arrivals at or after `now - span`, and the second the oldest of them may be from.
    fn count(&self, now: UnixSeconds, width: u64, span: u64) -> (u64, u64) {
        let first = first_bucket(now, width, span);
        let live = self.buckets.iter().filter(|bucket| bucket.number >= first);
        let oldest = live
            .clone()
            .next()
            .map_or(now.0, |bucket| bucket.number.saturating_mul(width));
        (live.map(|bucket| u64::from(bucket.count)).sum(), oldest)
    }
}

/// The first bucket that lies wholly within the timespan.
fn first_bucket(now: UnixSeconds, width: u64, span: u64) -> u64 {
    now.0.saturating_sub(span).div_ceil(width)
}

#[cfg(test)]
mod tests;
