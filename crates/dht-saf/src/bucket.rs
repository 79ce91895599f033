//! How fast one neighbour may fill the store: a token bucket for each, bounded in number.

use std::collections::HashMap;

use dht_core::UnixSeconds;
use dht_mailbox::Neighbour;

/// Neighbours whose rate is remembered; connections are bounded far below this.
pub const MAX_BUCKETS: usize = 4096;

/// How many messages and bytes one neighbour may bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Messages a second.
    pub per_second: u64,
    /// Messages at once after a rest.
    pub burst: u64,
}

/// One bucket: full at first, refilled with every second that passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenBucket {
    tokens: u64,
    filled_at: UnixSeconds,
}

/// A bucket for each neighbour.
#[derive(Debug)]
pub struct NeighbourBuckets {
    rate: Rate,
    buckets: HashMap<Neighbour, TokenBucket>,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate, now: UnixSeconds) -> Self {
        Self {
            tokens: rate.burst,
            filled_at: now,
        }
    }

    /// Takes `cost` tokens, or none and says no. A clock that steps back adds nothing and takes nothing.
    pub fn take(&mut self, rate: Rate, cost: u64, now: UnixSeconds) -> bool {
        self.refill(rate, now);
        match self.tokens.checked_sub(cost) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Whether it has been filled up by now, so that forgetting it changes nothing.
    #[must_use]
    pub fn is_full(mut self, rate: Rate, now: UnixSeconds) -> bool {
        self.refill(rate, now);
        self.tokens == rate.burst
    }

    fn refill(&mut self, rate: Rate, now: UnixSeconds) {
        let seconds = now.saturating_since(self.filled_at);
        self.tokens = self
            .tokens
            .saturating_add(seconds.saturating_mul(rate.per_second))
            .min(rate.burst);
        // After a step back the new time counts, or the bucket would stay dry until the old one returns.
        self.filled_at = now;
    }
}

// === impl NeighbourBuckets ===

impl NeighbourBuckets {
    /// No neighbour yet; each starts full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
        }
    }

    /// Whether `neighbour` may bring one more message now.
    ///
    /// A table full of neighbours that are all in debt refuses newcomers: forgetting one would refill it.
    pub fn admit(&mut self, neighbour: Neighbour, now: UnixSeconds) -> bool {
        if !self.buckets.contains_key(&neighbour) && self.buckets.len() >= MAX_BUCKETS {
            let rate = self.rate;
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
            if self.buckets.len() >= MAX_BUCKETS {
                return false;
            }
        }
        let bucket = self
            .buckets
            .entry(neighbour)
            .or_insert_with(|| TokenBucket::new(self.rate, now));
        bucket.take(self.rate, 1, now)
    }

    /// Neighbours remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2,
        burst: 5,
    };

    fn neighbour(n: u16) -> Neighbour {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Neighbour::from_bytes(bytes)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut buckets = NeighbourBuckets::new(RATE);
        let admitted = |buckets: &mut NeighbourBuckets, now| {
            (0..20)
                .filter(|_| buckets.admit(neighbour(1), UnixSeconds(now)))
                .count()
        };
        assert_eq!(admitted(&mut buckets, 100), 5);
        assert_eq!(admitted(&mut buckets, 101), 2);
        assert_eq!(admitted(&mut buckets, 1_000), 5);
    }

    #[test]
    fn a_flood_of_one_leaves_the_other_its_share() {
        let mut buckets = NeighbourBuckets::new(RATE);
        for _ in 0..1_000 {
            buckets.admit(neighbour(1), UnixSeconds(100));
        }
        assert!(!buckets.admit(neighbour(1), UnixSeconds(100)));
        assert!(buckets.admit(neighbour(2), UnixSeconds(100)));
    }

    #[test]
    fn a_clock_that_steps_back_neither_fills_nor_locks() {
        let mut bucket = TokenBucket::new(RATE, UnixSeconds(1_000));
        assert!(bucket.take(RATE, 5, UnixSeconds(1_000)));
        assert!(!bucket.take(RATE, 1, UnixSeconds(10)));
        assert!(bucket.take(RATE, 2, UnixSeconds(11)));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut buckets = NeighbourBuckets::new(RATE);
        for n in 0..5_000 {
            buckets.admit(neighbour(n), UnixSeconds(100));
        }
        assert_eq!(buckets.len(), MAX_BUCKETS);
        assert!(
            buckets.admit(neighbour(4_999), UnixSeconds(200)),
            "those at rest make room"
        );
    }
}
