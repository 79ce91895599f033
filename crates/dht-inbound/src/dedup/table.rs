//! The duplicate table: which messages this node has already validated, and how often they came.

use std::{convert::Infallible, error::Error, sync::Arc};

use dht_core::{DedupHash, UnixSeconds};
use parking_lot::Mutex;

use super::{
    CEILING_FACTOR, Sighting,
    shard::{Evicted, Shard, ShardLimits},
};
use crate::{
    keyed::{Keyed, shard_index},
    metrics,
};

/// Counts sightings of messages, sharded so that no lock is shared by all cores.
///
/// Keys are 32-byte duplicate hashes. Entries are kept until their [retention](Sighting::retain_until) is over
/// and beyond it while there is room; past the capacity lapsed entries go, least recently hit first, and at
/// [`CEILING_FACTOR`] times the capacity unsigned messages go before signed ones. Nothing here reads a clock.
///
/// Specification 03, section 3.6; F-15.
///
/// ```
/// use dht_core::{DedupHash, UnixSeconds};
/// use dht_inbound::{DedupTable, Sighting};
///
/// let table = DedupTable::new(50_000, [7; 16]); // random bytes outside of examples
/// let key = DedupHash([1; 32]);
/// let sighting = Sighting { signed: true, expires: None };
/// let now = UnixSeconds(1_700_000_000);
/// assert_eq!(table.record(&key, sighting, now), 1);
/// assert_eq!(table.record(&key, sighting, now), 2);
/// ```
#[derive(Debug)]
pub struct DedupTable {
    shards: Box<[Padded]>,
    keyed: Keyed,
}

/// Where sightings are counted. [`DedupTable`] never fails; a store that can must fail closed: the layers drop
/// the message on an error, because a node that forgets what it has seen repeats everything (F-7).
pub trait DedupStore: Send + Sync + 'static {
    /// Why a sighting could not be counted.
    type Error: Error + Send + Sync + 'static;

    /// Counts a sighting and answers how many there were, this one included.
    ///
    /// # Errors
    /// If the sighting could not be recorded.
    fn try_record(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        now: UnixSeconds,
    ) -> Result<u32, Self::Error>;

    /// Counts a sighting only if there were at least `least` before, and answers how many there are then.
    ///
    /// # Errors
    /// If the sighting could not be recorded.
    fn try_record_repeat(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        least: u32,
        now: UnixSeconds,
    ) -> Result<Option<u32>, Self::Error>;
}

/// One entry of the table, for keeping it across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupEntry {
    /// The duplicate hash.
    pub key: DedupHash,
    /// Sightings so far.
    pub hits: u32,
    /// Until when the entry is not to be forgotten.
    pub until: UnixSeconds,
    /// Whether the message was signed.
    pub signed: bool,
}

/// Shards on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// Enough shards that cores rarely meet in one.
const MAX_SHARDS: usize = 64;

/// Below this, sharding would make the limits inexact for nothing.
const MIN_SHARD_CAPACITY: usize = 512;

// === impl DedupTable ===

impl DedupTable {
    /// A table for `capacity` messages, at least one. The `seed` must be unknown to peers; it decides only how
    /// entries are spread, never what is answered.
    #[must_use]
    pub fn new(capacity: usize, seed: [u8; 16]) -> Self {
        let capacity = capacity.max(1);
        let shards = (capacity / MIN_SHARD_CAPACITY)
            .next_power_of_two()
            .clamp(1, MAX_SHARDS);
        let limits = ShardLimits {
            capacity: capacity.div_ceil(shards),
            ceiling: (capacity.saturating_mul(CEILING_FACTOR) / shards).max(1),
            // Every max(capacity/10, 100) inserts into the whole table.
            trim_every: (capacity / 10).max(100).div_ceil(shards),
        };
        let shards = (0..shards)
            .map(|_| Padded(Mutex::new(Shard::new(limits))))
            .collect();
        Self {
            shards,
            keyed: Keyed::new(seed),
        }
    }

    /// Counts a sighting and answers how many there were, this one included.
    pub fn record(&self, key: &DedupHash, sighting: Sighting, now: UnixSeconds) -> u32 {
        let hash = self.keyed.hash(&key.0);
        self.with_shard(hash, |shard| {
            shard
                .hit(hash, key, 0, sighting.retain_until(now))
                .unwrap_or_else(|| {
                    let entry = DedupEntry::first(*key, sighting, now);
                    report(shard.insert(hash, entry, now, &self.keyed));
                    1
                })
        })
        .unwrap_or(u32::MAX)
    }

    /// Counts a sighting only if there were at least `least` before.
    pub fn record_repeat(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        least: u32,
        now: UnixSeconds,
    ) -> Option<u32> {
        let hash = self.keyed.hash(&key.0);
        let until = sighting.retain_until(now);
        self.with_shard(hash, |shard| shard.hit(hash, key, least.max(1), until))?
    }

    /// Enters a message this node is about to send to many, so that its echo counts as a repeat. Leaves the
    /// count of a known one alone, and answers it.
    pub fn seed(&self, key: &DedupHash, sighting: Sighting, now: UnixSeconds) -> u32 {
        let hash = self.keyed.hash(&key.0);
        self.with_shard(hash, |shard| match shard.count(hash, key) {
            0 => {
                let entry = DedupEntry::first(*key, sighting, now);
                report(shard.insert(hash, entry, now, &self.keyed));
                1
            }
            hits => hits,
        })
        .unwrap_or(u32::MAX)
    }

    /// Sightings so far; 0 if none is remembered.
    #[must_use]
    pub fn count(&self, key: &DedupHash) -> u32 {
        let hash = self.keyed.hash(&key.0);
        self.with_shard(hash, |shard| shard.count(hash, key))
            .unwrap_or(0)
    }

    /// Removes lapsed entries beyond the capacity and answers how many. Also happens by itself while entries
    /// are added.
    pub fn trim(&self, now: UnixSeconds) -> usize {
        let removed = self
            .shards
            .iter()
            .map(|shard| shard.0.lock().trim(now))
            .sum();
        metrics::dedup_lapsed(removed);
        metrics::dedup_entries(self.len());
        removed
    }

    /// Entries at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// True if nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most entries there can be.
    #[must_use]
    pub fn ceiling(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.0.lock().ceiling())
            .sum()
    }

    /// All entries, least recently hit first within a shard. Locks one shard at a time: entries made meanwhile
    /// may be missing.
    #[must_use]
    pub fn snapshot(&self) -> Vec<DedupEntry> {
        let mut entries = Vec::with_capacity(self.len());
        for shard in &self.shards {
            shard.0.lock().for_each(|entry| entries.push(entry));
        }
        entries
    }

    /// Takes entries of an earlier [`snapshot`](Self::snapshot) back in, those that have lapsed left out, and
    /// answers how many. Known keys keep the larger count and the longer retention.
    pub fn restore(
        &self,
        entries: impl IntoIterator<Item = DedupEntry>,
        now: UnixSeconds,
    ) -> usize {
        let mut restored = 0_usize;
        for mut entry in entries {
            if entry.until < now || entry.hits == 0 {
                continue;
            }
            // A wrong clock or a damaged file must not fill the table for good.
            let most = now.saturating_add(super::MAX_RETENTION_SECONDS);
            entry.until = entry.until.min(most);
            let hash = self.keyed.hash(&entry.key.0);
            self.with_shard(hash, |shard| {
                if !shard.merge(hash, &entry) {
                    report(shard.insert(hash, entry, now, &self.keyed));
                }
            });
            restored = restored.saturating_add(1);
        }
        restored
    }

    fn with_shard<T>(&self, hash: u64, work: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        // Correctness: the index is masked by the number of shards, a power of two, so there is always one.
        let shard = self.shards.get(shard_index(hash, self.shards.len()))?;
        Some(work(&mut shard.0.lock()))
    }
}

impl DedupStore for DedupTable {
    type Error = Infallible;

    fn try_record(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        now: UnixSeconds,
    ) -> Result<u32, Infallible> {
        Ok(self.record(key, sighting, now))
    }

    fn try_record_repeat(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        least: u32,
        now: UnixSeconds,
    ) -> Result<Option<u32>, Infallible> {
        Ok(self.record_repeat(key, sighting, least, now))
    }
}

impl<T: DedupStore> DedupStore for Arc<T> {
    type Error = T::Error;

    fn try_record(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        now: UnixSeconds,
    ) -> Result<u32, T::Error> {
        T::try_record(self, key, sighting, now)
    }

    fn try_record_repeat(
        &self,
        key: &DedupHash,
        sighting: Sighting,
        least: u32,
        now: UnixSeconds,
    ) -> Result<Option<u32>, T::Error> {
        T::try_record_repeat(self, key, sighting, least, now)
    }
}

fn report(evicted: Evicted) {
    if evicted != Evicted::default() {
        metrics::dedup_lapsed(evicted.lapsed);
        metrics::dedup_evicted(evicted.early);
    }
}

#[cfg(test)]
mod tests;
