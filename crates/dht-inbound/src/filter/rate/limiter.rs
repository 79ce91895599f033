//! The buckets of all deliverers, in constant space.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use dht_core::{NodeId, RemotePeer, SourceGroup, UnixSeconds};
use dht_stack::{Rate, TokenBuckets};

use super::{Bucket, RateLimits};
use crate::filter::MAX_METERED_PEERS;

/// The least a frame that does not decode is charged with, in bytes: empty ones cost something too.
pub const UNDECODABLE_FRAME_BYTES: usize = 64;

const BUCKETS: usize = Bucket::ALL.len();

/// Rate of a group of deliverers, each of which has `rate`.
const fn of_group(rate: Rate) -> Rate {
    Rate {
        per_second: rate.per_second.saturating_add(rate.per_second / 2),
        burst: rate.burst.saturating_add(rate.burst / 2),
    }
}

/// Token buckets for each deliverer, and for each [`SourceGroup`] of deliverers: keys are free, addresses in many groups
/// are not. A group has half as much again as one deliverer, so that one noisy peer leaves something to its neighbours,
/// and a thousand keys of one source group get no more than that together. Cloning shares the buckets; nothing here reads a
/// clock.
///
/// At most [`MAX_METERED_PEERS`] deliverers and as many groups have buckets, 64 bytes each. Beyond that, the one that was
/// looked at longest ago and has used up none of its buckets makes room.
///
/// ```
/// use dht_core::{Features, RemotePeer, SecretKey, UnixSeconds};
/// use dht_inbound::{Bucket, RateLimiter, RateLimits};
/// use dht_stack::Rate;
///
/// let limits = RateLimits { join: Rate::per_second(2), ..RateLimits::default() };
/// let limiter = RateLimiter::new(limits, [7; 16]);
/// # let key = SecretKey::from_bytes(&[7; 32]).unwrap_or_else(|_| unreachable!()).public_key();
/// let (peer, now) = (RemotePeer::new(key, Features::NODE), UnixSeconds(1_700_000_000));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(!limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now.saturating_add(1)));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peers: TokenBuckets<NodeId, BUCKETS>,
    groups: TokenBuckets<SourceGroup, BUCKETS>,
    /// Second from which on no deliverer exceeds its undecodable bytes; 0 if none does. While it is 0, nobody is
    /// looked up for it.
    exhausted_until: AtomicU64,
}

impl RateLimiter {
    /// Every deliverer begins with full buckets. The `seed` must be unknown to peers.
    #[must_use]
    pub fn new(limits: RateLimits, seed: [u8; 16]) -> Self {
        Self(Arc::new(Inner {
            peers: TokenBuckets::new(limits.rates(), MAX_METERED_PEERS, seed),
            groups: TokenBuckets::new(limits.rates().map(of_group), MAX_METERED_PEERS, seed),
            exhausted_until: AtomicU64::new(0),
        }))
    }

    /// Takes over other limits. What deliverers have used of their buckets stays used.
    pub fn set_limits(&self, limits: RateLimits) {
        self.0.peers.set_rates(limits.rates());
        self.0.groups.set_rates(limits.rates().map(of_group));
    }

    /// Takes one token of a deliverer's bucket and one of its group's; false if either has none.
    #[must_use]
    pub fn try_take(&self, from: &RemotePeer, bucket: Bucket, now: UnixSeconds) -> bool {
        let (bucket, now) = (bucket as usize, now.0);
        self.0.peers.try_take(&from.node_id, bucket, now)
            && (from.source).is_none_or(|group| self.0.groups.try_take(&group, bucket, now))
    }

    /// Charges a deliverer for a frame of `bytes` that does not decode.
    pub fn charge_junk(&self, from: &RemotePeer, bytes: usize, now: UnixSeconds) {
        let bytes = u32::try_from(bytes.max(UNDECODABLE_FRAME_BYTES)).unwrap_or(u32::MAX);
        let bucket = Bucket::UndecodableBytes as usize;
        let of_peer = self.0.peers.charge(&from.node_id, bucket, bytes, now.0);
        let of_group = from
            .source
            .and_then(|group| self.0.groups.charge(&group, bucket, bytes, now.0));
        if let Some(full_at) = of_peer.max(of_group) {
            self.0.exhausted_until.fetch_max(full_at, Relaxed);
        }
    }

    /// Whether a deliverer, or its group, sent so much that does not decode that nothing of it is decoded now. Asks for
    /// the time only if any deliverer did.
    #[must_use]
    pub fn is_exhausted(&self, from: &RemotePeer, now: impl FnOnce() -> UnixSeconds) -> bool {
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
        !self.0.peers.has_tokens(&from.node_id, bucket, now)
            || (from.source).is_some_and(|group| !self.0.groups.has_tokens(&group, bucket, now))
    }

    /// Deliverers with buckets at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.peers.len()
    }

    /// True if no deliverer has sent anything yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.peers.is_empty()
    }
}
