//! One shard of the duplicate table: a hash table that forgets in a defined order.

use dht_core::{DedupHash, UnixSeconds};
use hashbrown::HashTable;

use super::{DedupEntry, Sighting};
use crate::keyed::Keyed;

#[derive(Debug)]
pub(super) struct Shard {
    table: HashTable<Entry>,
    /// Counts sightings, so that "least recently hit" is exact within one second too.
    clock: u64,
    inserts_since_trim: usize,
    limits: ShardLimits,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ShardLimits {
    pub(super) capacity: usize,
    pub(super) ceiling: usize,
    pub(super) trim_every: usize,
}

#[derive(Debug)]
struct Entry {
    key: DedupHash,
    until: UnixSeconds,
    touched: u64,
    hits: u32,
    signed: bool,
}

/// What was evicted to make room, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evicted {
    /// Entries whose time had come.
    pub(super) lapsed: usize,
    /// Entries evicted before their time because the table was full.
    pub(super) early: usize,
}

impl Shard {
    pub(super) fn new(limits: ShardLimits) -> Self {
        Self {
            table: HashTable::new(),
            clock: 0,
            inserts_since_trim: 0,
            limits,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn ceiling(&self) -> usize {
        self.limits.ceiling
    }

    /// Takes over what an entry of a snapshot knows better. False if the key is not there.
    pub(super) fn merge(&mut self, hash: u64, from: &DedupEntry) -> bool {
        let Some(entry) = self.table.find_mut(hash, |entry| entry.key == from.key) else {
            return false;
        };
        entry.hits = entry.hits.max(from.hits);
        entry.until = entry.until.max(from.until);
        true
    }

    pub(super) fn count(&self, hash: u64, key: &DedupHash) -> u32 {
        self.table
            .find(hash, |entry| entry.key == *key)
            .map_or(0, |entry| entry.hits)
    }

    /// Counts a sighting of a known key, if it has at least `least` already.
    pub(super) fn hit(
        &mut self,
        hash: u64,
        key: &DedupHash,
        least: u32,
        until: UnixSeconds,
    ) -> Option<u32> {
        let entry = self.table.find_mut(hash, |entry| entry.key == *key)?;
        if entry.hits < least {
            return None;
        }
        self.clock = self.clock.wrapping_add(1);
        entry.touched = self.clock;
        entry.hits = entry.hits.saturating_add(1);
        // A hit never shortens retention.
        entry.until = entry.until.max(until);
        Some(entry.hits)
    }

    /// Enters a key that is not there, evicting if it must.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        entry: DedupEntry,
        now: UnixSeconds,
        keyed: &Keyed,
    ) -> Evicted {
        let mut evicted = Evicted::default();
        self.inserts_since_trim = self.inserts_since_trim.saturating_add(1);
        if self.inserts_since_trim >= self.limits.trim_every {
            evicted.lapsed = self.trim(now);
        }
        if self.table.len() >= self.limits.ceiling {
            evicted.early = self.make_room(now);
        }
        self.clock = self.clock.wrapping_add(1);
        let entry = Entry {
            key: entry.key,
            until: entry.until,
            touched: self.clock,
            hits: entry.hits,
            signed: entry.signed,
        };
        self.table
            .insert_unique(hash, entry, |entry| keyed.hash(&entry.key.0));
        evicted
    }

    /// Removes entries whose time has come, least recently hit first, down to the capacity.
    pub(super) fn trim(&mut self, now: UnixSeconds) -> usize {
        self.inserts_since_trim = 0;
        let excess = self.table.len().saturating_sub(self.limits.capacity);
        self.remove_first(excess, |entry| (entry.until < now).then_some(0))
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(DedupEntry)) {
        // In order of last hit, so that restoring in this order restores the order.
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_unstable_by_key(|entry| entry.touched);
        for entry in entries {
            visit(DedupEntry {
                key: entry.key,
                hits: entry.hits,
                until: entry.until,
                signed: entry.signed,
            });
        }
    }

    /// Frees a sixteenth of the shard at once, so that a full table does not scan for every insert: lapsed
    /// entries first, then unsigned ones, then signed ones.
    fn make_room(&mut self, now: UnixSeconds) -> usize {
        let batch = (self.limits.ceiling / 16).max(1);
        self.remove_first(batch, |entry| {
            Some(match entry {
                Entry { until, .. } if *until < now => 0,
                Entry { signed: false, .. } => 1,
                Entry { signed: true, .. } => 2,
            })
        })
    }

    /// Removes up to `n` ranked entries, in order of rank and then of last hit.
    fn remove_first(&mut self, n: usize, rank: impl Fn(&Entry) -> Option<u8>) -> usize {
        let Some(last) = n.checked_sub(1) else {
            return 0;
        };
        let order = |entry: &Entry| Some((rank(entry)?, entry.touched));
        let mut ranks: Vec<_> = self.table.iter().filter_map(order).collect();
        let before = self.table.len();
        if ranks.len() > n {
            let (_, bound, _) = ranks.select_nth_unstable(last);
            let bound = *bound;
            self.table
                .retain(|entry| order(entry).is_none_or(|rank| rank > bound));
        } else {
            self.table.retain(|entry| rank(entry).is_none());
        }
        before.saturating_sub(self.table.len())
    }
}

impl DedupEntry {
    pub(super) fn first(key: DedupHash, sighting: Sighting, now: UnixSeconds) -> Self {
        let Sighting { signed, .. } = sighting;
        Self {
            key,
            hits: 1,
            until: sighting.retain_until(now),
            signed,
        }
    }
}
