//! The buckets of all deliverers, in constant space.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use dht_core::{NodeId, UnixSeconds};
use dht_stack::TokenBuckets;

use super::{Bucket, RateLimits};
use crate::filter::MAX_METERED_PEERS;

/// The least a frame that does not decode is charged with, in bytes: empty ones cost something too.
pub const UNDECODABLE_FRAME_BYTES: usize = 64;

const BUCKETS: usize = Bucket::ALL.len();

/// Token buckets for each deliverer. Cloning shares them; nothing here reads a clock.
///
/// At most [`MAX_METERED_PEERS`] deliverers have buckets, 64 bytes each. Beyond that, the one that was looked at
/// longest ago and has used up none of its buckets makes room.
///
/// ```
/// use dht_core::{NodeId, UnixSeconds};
/// use dht_inbound::{Bucket, RateLimiter, RateLimits};
/// use dht_stack::Rate;
///
/// let limits = RateLimits { join: Rate::per_second(2), ..RateLimits::default() };
/// let limiter = RateLimiter::new(limits, [7; 16]);
/// let (peer, now) = (NodeId::default(), UnixSeconds(1_700_000_000));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(!limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now.saturating_add(1)));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    buckets: TokenBuckets<NodeId, BUCKETS>,
    /// Second from which on no deliverer exceeds its undecodable bytes; 0 if none does. While it is 0, nobody is
    /// looked up for it.
    exhausted_until: AtomicU64,
}

impl RateLimiter {
    /// Every deliverer begins with full buckets. The `seed` must be unknown to peers.
    #[must_use]
    pub fn new(limits: RateLimits, seed: [u8; 16]) -> Self {
        Self(Arc::new(Inner {
            buckets: TokenBuckets::new(limits.rates(), MAX_METERED_PEERS, seed),
            exhausted_until: AtomicU64::new(0),
        }))
    }

    /// Takes over other limits. What deliverers have used of their buckets stays used.
    pub fn set_limits(&self, limits: RateLimits) {
        self.0.buckets.set_rates(limits.rates());
    }

    /// Takes one token of a deliverer's bucket; false if there is none.
    #[must_use]
    pub fn try_take(&self, from: &NodeId, bucket: Bucket, now: UnixSeconds) -> bool {
        self.0.buckets.try_take(from, bucket as usize, now.0)
    }

    /// Charges a deliverer for a frame of `bytes` that does not decode.
    pub fn charge_junk(&self, from: &NodeId, bytes: usize, now: UnixSeconds) {
        let bytes = u32::try_from(bytes.max(UNDECODABLE_FRAME_BYTES)).unwrap_or(u32::MAX);
        let bucket = Bucket::UndecodableBytes as usize;
        if let Some(full_at) = self.0.buckets.charge(from, bucket, bytes, now.0) {
            self.0.exhausted_until.fetch_max(full_at, Relaxed);
        }
    }

    /// Whether a deliverer sent so much that does not decode that nothing of it is decoded now. Asks for the time
    /// only if any deliverer did.
    #[must_use]
    pub fn is_exhausted(&self, from: &NodeId, now: impl FnOnce() -> UnixSeconds) -> bool {
        let exhausted_until = self.0.exhausted_until.load(Relaxed);
        if exhausted_until == 0 {
            return false;
        }
        let now = now().0;
        if now >= exhausted_until {
            // Fails if another deliverer exceeded its allowance meanwhile.
            let _ = (self.0.exhausted_until).compare_exchange(exhausted_until, 0, Relaxed, Relaxed);
        }
        let bucket = Bucket::UndecodableBytes as usize;
        !self.0.buckets.has_tokens(from, bucket, now)
    }

    /// Deliverers with buckets at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.buckets.len()
    }

    /// True if no deliverer has sent anything yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.buckets.is_empty()
    }
}
