//! Token buckets, many for each of many keys, in whole seconds.

use std::hash::Hash;

use parking_lot::RwLock;

use crate::sharded::{Shard, Sharded};

/// Threads that read the clock at the same time may be this far apart, in seconds. A clock that is further back was
/// set back.
const MAX_SKEW_SECONDS: u32 = 5;

/// Shards of the table.
const SHARDS: usize = 16;

/// How fast tokens come back, and how many there are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Rate {
    /// Tokens that come back in a second. As a setting, 0 is refused.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "nonzero"))]
    pub per_second: u32,
    /// Tokens of a full bucket. Time is counted in seconds, so a bucket holds at least one second's tokens, whatever
    /// this says, and at least one. As a setting, it defaults to 0.
    #[cfg_attr(feature = "serde", serde(default))]
    pub burst: u32,
}

#[cfg(feature = "serde")]
fn nonzero<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(std::num::NonZeroU32::get)
}

/// `N` token buckets for each key, in constant space. All are full at first. Times are seconds since any fixed
/// instant; nothing here reads a clock.
///
/// At the capacity the keys are forgotten whose buckets are all full again, which loses nothing. If there is none, a
/// new key is refused: forgetting any other would fill its buckets.
///
/// ```
/// use dht_stack::{Rate, TokenBuckets};
///
/// let buckets = TokenBuckets::new([Rate { per_second: 1, burst: 2 }], 4_096, [7; 16]);
/// assert!(buckets.try_take(&"peer", 0, 100));
/// assert!(buckets.try_take(&"peer", 0, 100));
/// assert!(!buckets.try_take(&"peer", 0, 100));
/// assert!(buckets.try_take(&"peer", 0, 101));
/// ```
#[derive(Debug)]
pub struct TokenBuckets<K, const N: usize = 1> {
    rates: RwLock<[Rate; N]>,
    keys: Sharded<K, [TokenBucket; N]>,
    capacity: usize,
}

/// One token bucket, in eight bytes. The default is a full one, whatever its rate; each call names the rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    /// Tokens taken and not come back. May exceed the capacity: then the bucket is overdrawn.
    used: u32,
    /// The second up to which tokens have come back, in the low bits: enough for 136 years between two looks.
    at: u32,
}

impl Rate {
    /// As many tokens at once as come back in a second.
    #[must_use]
    pub const fn per_second(tokens: u32) -> Self {
        Self {
            per_second: tokens,
            burst: tokens,
        }
    }

    /// Tokens of a full bucket.
    const fn capacity(self) -> u32 {
        match (self.per_second, self.burst) {
            (0, 0) => 1,
            (per_second, burst) if burst > per_second => burst,
            (per_second, _) => per_second,
        }
    }
}

impl<K: Hash + Eq + Clone, const N: usize> TokenBuckets<K, N> {
    /// Buckets with these rates, for at most `capacity` keys. The `seed` must be unknown to those who choose keys.
    #[must_use]
    pub fn new(rates: [Rate; N], capacity: usize, seed: [u8; 16]) -> Self {
        Self {
            rates: RwLock::new(rates),
            keys: Sharded::new(SHARDS, seed),
            capacity,
        }
    }

    /// Takes over other rates. What was taken out of the buckets stays taken.
    pub fn set_rates(&self, rates: [Rate; N]) {
        *self.rates.write() = rates;
    }

    /// Takes one token out of a bucket of `key`. False if there is none, if there is no such bucket, or no room for
    /// another key.
    #[must_use]
    pub fn try_take(&self, key: &K, bucket: usize, now: u64) -> bool {
        self.with_bucket(key, bucket, now, |tokens, rate| tokens.take(rate, now))
            .unwrap_or(false)
    }

    /// Takes `tokens` out of a bucket of `key`, below zero if there are not as many, though never by more than another
    /// burst. Answers the second from which on the bucket has tokens again, if it has none now.
    pub fn charge(&self, key: &K, bucket: usize, tokens: u32, now: u64) -> Option<u64> {
        self.with_bucket(key, bucket, now, |bucket, rate| {
            bucket.charge(tokens, rate, now)
        })?
    }

    /// Whether a bucket of `key` has a token left.
    #[must_use]
    pub fn has_tokens(&self, key: &K, bucket: usize, now: u64) -> bool {
        let Some(rate) = self.rate(bucket) else {
            return false;
        };
        let slot = self.keys.lock(key);
        let tokens = slot.get().and_then(|buckets| buckets.get(bucket));
        tokens.is_none_or(|tokens| tokens.clone().has(rate, now))
    }

    /// Keys with buckets at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if no key has taken a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn rate(&self, bucket: usize) -> Option<Rate> {
        self.rates.read().get(bucket).copied()
    }

    fn with_bucket<T>(
        &self,
        key: &K,
        bucket: usize,
        now: u64,
        work: impl FnOnce(&mut TokenBucket, Rate) -> T,
    ) -> Option<T> {
        let rate = self.rate(bucket)?;
        let mut slot = self.keys.lock(key);
        if slot.get().is_none() {
            let shard = slot.shard();
            if shard.len() >= (self.capacity / SHARDS).max(1) && !self.make_room(shard, now) {
                return None;
            }
        }
        let buckets = slot.get_or_insert_with(|| [TokenBucket::default(); N]);
        Some(work(buckets.get_mut(bucket)?, rate))
    }

    /// Forgets the keys whose buckets are all full, and answers whether there were any. Scans: a table is sized for more
    /// keys than are in use.
    fn make_room(&self, shard: &mut Shard<K, [TokenBucket; N]>, now: u64) -> bool {
        let rates = *self.rates.read();
        let is_full = |buckets: &mut [TokenBucket; N]| {
            let mut pairs = buckets.iter_mut().zip(rates);
            pairs.all(|(tokens, rate)| tokens.is_full(rate, now))
        };
        shard.retain(|_, buckets| !is_full(buckets)) > 0
    }
}

impl TokenBucket {
    /// Takes one token. False if there is none.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now: u64) -> bool {
        let there = self.has(rate, now);
        if there {
            self.used = self.used.saturating_add(1);
        }
        there
    }

    fn charge(&mut self, tokens: u32, rate: Rate, now: u64) -> Option<u64> {
        self.refill(rate, now);
        let capacity = rate.capacity();
        let most = capacity.saturating_mul(2);
        self.used = self.used.saturating_add(tokens).min(most);
        let missing = self.used.checked_sub(capacity)?.saturating_add(1);
        let seconds = match rate.per_second {
            0 => u64::MAX,
            per_second => u64::from(missing.div_ceil(per_second)),
        };
        Some(now.saturating_add(seconds))
    }

    fn has(&mut self, rate: Rate, now: u64) -> bool {
        self.refill(rate, now);
        self.used < rate.capacity()
    }

    /// Whether all tokens have come back.
    #[must_use]
    pub fn is_full(&mut self, rate: Rate, now: u64) -> bool {
        self.refill(rate, now);
        self.used == 0
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "takes the low bits")]
        let now = now as u32;
        let passed = now.wrapping_sub(self.at);
        if passed > u32::MAX / 2 && self.used > 0 {
            // A clock that goes back gives nothing. But time goes on from where the clock was set back to: otherwise
            // the bucket would stay empty for as long as the clock had been wrong.
            if self.at.wrapping_sub(now) > MAX_SKEW_SECONDS {
                self.at = now;
            }
            return;
        }
        self.used = self
            .used
            .saturating_sub(passed.saturating_mul(rate.per_second));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 2,
        burst: 5,
    };
    const NOW: u64 = 1_700_000_000;

    fn buckets(rate: Rate) -> TokenBuckets<u32> {
        TokenBuckets::new([rate], 64, [3; 16])
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let buckets = buckets(RATE);
        let taken = |now| (0..10).filter(|_| buckets.try_take(&1, 0, now)).count();
        assert_eq!(taken(NOW), 5);
        assert_eq!(taken(NOW + 1), 2);
        assert_eq!(taken(NOW), 0, "a clock set back gives nothing");
        assert_eq!(taken(NOW + 3), 4);
        assert_eq!(taken(NOW + 1_000), 5);
        assert!(buckets.try_take(&2, 0, NOW), "others are not affected");
    }

    #[test]
    fn clock_set_back_changes_nothing() {
        let buckets = buckets(RATE);
        let taken = |now| (0..10).filter(|_| buckets.try_take(&1, 0, now)).count();
        assert_eq!(taken(NOW + 3_600), 5);
        assert_eq!(taken(NOW), 0);
        assert_eq!(taken(NOW + 1), 2);
        assert_eq!(taken(NOW + 3), 4);
    }

    #[test]
    fn rate_of_nothing_accuses_nobody() {
        let buckets = buckets(Rate::per_second(0));
        assert!(buckets.has_tokens(&1, 0, NOW));
        assert_eq!(buckets.charge(&1, 0, 1, NOW), Some(u64::MAX));
        assert!(!buckets.has_tokens(&1, 0, NOW + 1_000));
    }

    #[test]
    fn deficit_is_bounded_and_refilled_first() {
        let buckets = buckets(RATE);
        assert_eq!(buckets.charge(&1, 0, u32::MAX, NOW), Some(NOW + 3));
        assert!(!buckets.has_tokens(&1, 0, NOW + 2));
        assert!(buckets.has_tokens(&1, 0, NOW + 3));
    }

    #[test]
    fn buckets_of_a_key_are_separate() {
        let buckets = TokenBuckets::new([RATE, Rate::per_second(1)], 64, [3; 16]);
        assert!(buckets.try_take(&1, 1, NOW));
        assert!(!buckets.try_take(&1, 1, NOW));
        assert!(buckets.try_take(&1, 0, NOW));
        assert!(!buckets.try_take(&1, 2, NOW), "no such bucket");
    }

    #[test]
    fn full_table_forgets_no_empty_bucket() {
        let buckets = buckets(RATE);
        buckets.charge(&0, 0, 100, NOW);
        let admitted = (1..1_000).filter(|key| buckets.try_take(key, 0, NOW));
        assert_eq!(admitted.count(), 63);
        // A second later the buckets of the 63 are full, and others take their places.
        let admitted = (1_000..2_000).filter(|key| buckets.try_take(key, 0, NOW + 1));
        assert_eq!(admitted.count(), 63);
        assert_eq!(buckets.len(), 64);
        assert!(!buckets.has_tokens(&0, 0, NOW));
        for key in 0..10_000 {
            buckets.charge(&key, 0, 100, NOW);
        }
        assert_eq!(buckets.len(), 64);
        assert!(!buckets.try_take(&20_000, 0, NOW), "no room");
        assert!(buckets.try_take(&20_000, 0, NOW + 60));
    }

    #[test]
    fn flood_of_keys_refills_nothing() {
        let buckets = buckets(RATE);
        let taken = |key| (0..10).filter(|_| buckets.try_take(&key, 0, NOW)).count();
        assert!((0..3).all(|_| buckets.try_take(&0, 0, NOW)));
        for key in 1..1_000 {
            taken(key);
        }
        assert_eq!(taken(0), 2, "three of five are taken");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(waits in proptest::collection::vec(0_u64..4, 1..60)) {
            let (buckets, mut now, mut taken) = (buckets(RATE), NOW, 0);
            for wait in waits {
                now += wait;
                taken += u64::from(buckets.try_take(&1, 0, now));
                prop_assert!(taken <= 5 + 2 * (now - NOW));
            }
        }
    }
}
