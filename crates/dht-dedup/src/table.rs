//! The table of validated messages: how often each was seen, and until when it is remembered.

use std::{collections::VecDeque, sync::Arc};

use dht_core::{DedupHash, NodeId, UnixSeconds};
use dht_stack::{Shard, Sharded, Slot};

use crate::{
    deliverers::Deliverers,
    metrics,
    retention::{CEILING_FACTOR, DedupMeta, MAX_DELIVERED_SECONDS},
};
use eviction::{enqueue, evict, remove_first};

mod eviction;

/// Counts how often each message was seen, sharded so that no lock is shared by all cores. Cloning shares the table.
///
/// Keys are 32-byte hashes. Entries are kept until their [retention](DedupMeta::retain_until) is over, and beyond it
/// while there is room. Past the capacity, entries whose retention is over go, the least recently seen first; at
/// [`CEILING_FACTOR`] times the capacity, each new entry pushes out one, unsigned messages before signed ones. Nothing here reads a clock, and
/// nothing here can fail: a message that was recorded is a repeat from then on (03 F-7).
///
/// Specification 03, section 3.6; 03 F-15.
///
/// ```
/// use dht_core::{DedupHash, UnixSeconds};
/// use dht_dedup::{DedupMeta, DedupTable};
///
/// let table = DedupTable::new(50_000, [7; 16]); // a random seed outside of examples
/// let (key, now) = (DedupHash([1; 32]), UnixSeconds(1_700_000_000));
/// let meta = DedupMeta { signed: true, expires: None };
/// assert_eq!(table.record(&key, meta, now), 1);
/// assert_eq!(table.record(&key, meta, now), 2);
/// ```
#[derive(Clone, Debug)]
pub struct DedupTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: Sharded<DedupHash, Entry, ShardCounters>,
    deliverers: Deliverers,
    /// Entries of a shard before one is evicted.
    capacity: usize,
    /// Most entries of a shard.
    ceiling: usize,
    /// Inserts into a shard between two trims.
    trim_every: usize,
}

#[derive(Debug)]
struct Entry {
    until: UnixSeconds,
    touched: u64,
    occurrences: u32,
    signed: bool,
    /// A [`Reservation`] on it is held. The entry stays while that is so: a reservation never meets the entry of
    /// another.
    reserved: bool,
    /// Second in which the store of this node last had no place for it; it is for another node.
    store_refused: Option<UnixSeconds>,
}

/// Counters of a shard.
#[derive(Debug, Default)]
struct ShardCounters {
    /// Counts occurrences, so that "least recently seen" is exact within one second too.
    clock: u64,
    inserts_since_trim: usize,
    trimmed_at: UnixSeconds,
    /// Occurrences of unsigned messages, oldest first, with the hash of the key. Only the last one of an entry counts:
    /// the one whose number the entry has.
    unsigned: VecDeque<(u64, u64)>,
    /// The same for signed messages.
    signed: VecDeque<(u64, u64)>,
}

/// A message that is on its way to its recipient on this node. Until the recipient has it, copies are repeats; a
/// reservation that is dropped makes the table forget the message, so that another copy can take its place.
#[derive(Debug)]
#[must_use = "a dropped reservation forgets its message"]
pub struct Reservation {
    table: DedupTable,
    key: DedupHash,
    /// Second until which the message is remembered once it is delivered.
    until: UnixSeconds,
    committed: bool,
}

/// One entry of the table, for keeping it across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupEntry {
    /// Hash of the message.
    pub key: DedupHash,
    /// How often the message was seen; at least 1.
    pub occurrences: u32,
    /// Second until which the entry is kept.
    pub until: UnixSeconds,
    /// Whether the message was signed.
    pub signed: bool,
}

type Part = Shard<DedupHash, Entry, ShardCounters>;
type Place<'t> = Slot<'t, DedupHash, Entry, ShardCounters>;

/// Enough shards that cores rarely meet in one.
const MAX_SHARDS: usize = 64;

/// Seconds after a refusal by the store of this node in which a copy is a repeat: the copies of all neighbours come at one
/// time, and the store still has no place.
const STORE_REFUSED_SECONDS: u64 = 5;

/// Below this, sharding would make the limits inexact for nothing.
const MIN_SHARD_CAPACITY: usize = 512;

impl DedupTable {
    /// A table for `capacity` messages, at least one. The `seed` must be unknown to peers; it decides only how
    /// entries are spread, never what is answered.
    #[must_use]
    pub fn new(capacity: usize, seed: [u8; 16]) -> Self {
        let capacity = capacity.max(1);
        let shards = (capacity / MIN_SHARD_CAPACITY)
            .next_power_of_two()
            .clamp(1, MAX_SHARDS);
        Self(Arc::new(Inner {
            entries: Sharded::new(shards, seed),
            deliverers: Deliverers::new(seed),
            capacity: capacity.div_ceil(shards),
            ceiling: (capacity.saturating_mul(CEILING_FACTOR) / shards).max(1),
            // Every max(capacity/10, 100) inserts into the whole table.
            trim_every: (capacity / 10).max(100).div_ceil(shards),
        }))
    }

    /// Counts an occurrence and answers how many there were, this one included.
    pub fn record(&self, key: &DedupHash, meta: DedupMeta, now: UnixSeconds) -> u32 {
        let mut slot = self.0.entries.lock(key);
        repeat(&mut slot, meta, 0, now).unwrap_or_else(|| {
            self.0
                .insert(&mut slot, DedupEntry::first(*key, meta, now), now)
        })
    }

    /// Counts an occurrence. The first one is answered with a reservation, a repeat with how many there were, this one
    /// included.
    ///
    /// ```
    /// # use dht_core::{DedupHash, UnixSeconds};
    /// # use dht_dedup::{DedupMeta, DedupTable};
    /// # let table = DedupTable::new(50_000, [7; 16]);
    /// # let (key, now) = (DedupHash([1; 32]), UnixSeconds(1_700_000_000));
    /// # let meta = DedupMeta { signed: true, expires: None };
    /// let reservation = table.reserve(&key, meta, now).unwrap();
    /// assert_eq!(table.reserve(&key, meta, now).unwrap_err(), 2);
    /// drop(reservation); // refused
    /// table.reserve(&key, meta, now).unwrap().commit(); // delivered, and a repeat from now on
    /// assert_eq!(table.count(&key), 1);
    /// ```
    ///
    /// # Errors
    /// The occurrences, if the message is known.
    pub fn reserve(
        &self,
        key: &DedupHash,
        meta: DedupMeta,
        now: UnixSeconds,
    ) -> Result<Reservation, u32> {
        let mut slot = self.0.entries.lock(key);
        if let Some(occurrences) = repeat(&mut slot, meta, 0, now) {
            return Err(occurrences);
        }
        self.0
            .insert(&mut slot, DedupEntry::first(*key, meta, now), now);
        if let Some(entry) = slot.get_mut() {
            entry.reserved = true;
        }
        Ok(Reservation {
            table: self.clone(),
            key: *key,
            until: meta.delivered_until(now),
            committed: false,
        })
    }

    /// Whether a message is on its way to its recipient on this node: a [`Reservation`] on it is held.
    #[must_use]
    pub fn is_reserved(&self, key: &DedupHash) -> bool {
        let slot = self.0.entries.lock(key);
        slot.get().is_some_and(|entry| entry.reserved)
    }

    /// Counts an occurrence only if there were at least `least` before, and at least one; answers how many there are
    /// then. `None` for a message that is [refused by the store](Self::set_store_refused), too: its copies are no mere
    /// repeats.
    pub fn record_repeat(
        &self,
        key: &DedupHash,
        meta: DedupMeta,
        least: u32,
        now: UnixSeconds,
    ) -> Option<u32> {
        let mut slot = self.0.entries.lock(key);
        if slot
            .get()
            .is_some_and(|entry| entry.may_be_stored_again(now))
        {
            return None;
        }
        repeat(&mut slot, meta, least, now)
    }

    /// Records the second in which a message for another node found no place in the store of this one, as its room, its
    /// rate or its disk did not allow it: a copy may find one 5 seconds later. `None` if the store has decided about it. Does
    /// nothing for a message that is not remembered.
    pub fn set_store_refused(&self, key: &DedupHash, refused: Option<UnixSeconds>) {
        if let Some(entry) = self.0.entries.lock(key).get_mut() {
            entry.store_refused = refused;
        }
    }

    /// Whether a message is remembered, and was refused for the time being by the store of this node at least 5 seconds ago.
    #[must_use]
    pub fn may_be_stored_again(&self, key: &DedupHash, now: UnixSeconds) -> bool {
        let slot = self.0.entries.lock(key);
        slot.get()
            .is_some_and(|entry| entry.may_be_stored_again(now))
    }

    /// Enters a message that this node is about to send to many, so that its echo counts as a repeat. Leaves the
    /// count of a known one alone, and answers it.
    pub fn seed(&self, key: &DedupHash, meta: DedupMeta, now: UnixSeconds) -> u32 {
        let mut slot = self.0.entries.lock(key);
        match slot.get() {
            Some(entry) => entry.occurrences,
            None => self
                .0
                .insert(&mut slot, DedupEntry::first(*key, meta, now), now),
        }
    }

    /// Forgets the messages that `is_lost` names: their next copy is new. Not those that are on their way to their recipient
    /// on this node. Returns how many.
    pub fn forget(&self, is_lost: impl Fn(&DedupHash) -> bool) -> usize {
        let shards = self.0.entries.shards();
        let forgotten =
            shards.map(|mut shard| shard.retain(|key, entry| entry.reserved || !is_lost(key)));
        forgotten.sum()
    }

    /// Remembers for a short time that `peer` handed over a copy of a message, be it the first or a repeat.
    pub fn note_deliverer(&self, peer: &NodeId, key: &DedupHash) {
        self.0.deliverers.note(peer, key);
    }

    /// Ends once `peer` has lately handed over a copy of a message.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing. It does not end if the peer hands over none, so set a limit.
    pub async fn handed_over(&self, peer: &NodeId, key: &DedupHash) {
        self.0.deliverers.noted(peer, key).await;
    }

    /// Occurrences so far; 0 if none is remembered.
    #[must_use]
    pub fn count(&self, key: &DedupHash) -> u32 {
        let slot = self.0.entries.lock(key);
        slot.get().map_or(0, |entry| entry.occurrences)
    }

    /// Removes entries beyond the capacity whose retention is over, and answers how many. Also happens by itself
    /// while entries are added.
    pub fn trim(&self, now: UnixSeconds) -> usize {
        let shards = self.0.entries.shards();
        let removed = shards.map(|mut shard| self.0.trim(&mut shard, now)).sum();
        metrics::lapsed(removed);
        metrics::entries(self.len());
        removed
    }

    /// Entries at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// True if nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the entries and their order of eviction take now, room for further ones included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let orders = self.0.entries.shards().map(|shard| {
            let occurrences = [&shard.state.unsigned, &shard.state.signed].map(VecDeque::capacity);
            occurrences.iter().sum::<usize>() * size_of::<(u64, u64)>()
        });
        self.0.entries.allocated_bytes() + orders.sum::<usize>()
    }

    /// Most entries there can be, unless more are reserved at one time.
    #[must_use]
    pub fn ceiling(&self) -> usize {
        self.0.ceiling.saturating_mul(self.0.entries.shard_count())
    }

    /// All entries but those that are reserved or refused by the store, least recently seen first within a shard. Locks one
    /// shard at a time: entries made meanwhile may be missing.
    #[must_use]
    pub fn snapshot(&self) -> Vec<DedupEntry> {
        let mut entries = Vec::with_capacity(self.len());
        for shard in self.0.entries.shards() {
            let committed = shard
                .iter()
                .filter(|(_, entry)| !entry.reserved && entry.store_refused.is_none());
            let mut of_shard: Vec<_> = committed.collect();
            // Restoring in this order restores the order.
            of_shard.sort_unstable_by_key(|(_, entry)| entry.touched);
            entries.extend(of_shard.into_iter().map(|(key, entry)| DedupEntry {
                key: *key,
                occurrences: entry.occurrences,
                until: entry.until,
                signed: entry.signed,
            }));
        }
        entries
    }

    /// Takes entries of an earlier [`snapshot`](Self::snapshot) back in, without those whose retention is over, and
    /// answers how many. Known keys keep the larger count and the longer retention.
    pub fn restore(
        &self,
        entries: impl IntoIterator<Item = DedupEntry>,
        now: UnixSeconds,
    ) -> usize {
        let mut restored = 0_usize;
        for mut entry in entries {
            if entry.until < now || entry.occurrences == 0 {
                continue;
            }
            // A wrong clock or a damaged file must not fill the table for good.
            let most = now.saturating_add(MAX_DELIVERED_SECONDS);
            entry.until = entry.until.min(most);
            let mut slot = self.0.entries.lock(&entry.key);
            if let Some(known) = slot.get_mut() {
                known.occurrences = known.occurrences.max(entry.occurrences);
                known.until = known.until.max(entry.until);
            } else {
                self.0.insert(&mut slot, entry, now);
            }
            restored = restored.saturating_add(1);
        }
        restored
    }
}

impl Reservation {
    /// The recipient has the message: copies are repeats from now on, for [as long as any can
    /// come](DedupMeta::delivered_until).
    pub fn commit(mut self) {
        self.committed = true;
        let mut slot = self.table.0.entries.lock(&self.key);
        let touched = slot.shard().state.tick();
        let Some(entry) = slot.get_mut() else {
            return;
        };
        entry.reserved = false;
        entry.until = entry.until.max(self.until);
        entry.touched = touched;
        let signed = entry.signed;
        // While it was reserved, it may have lost its place in the order of eviction.
        enqueue(&mut slot, signed, touched);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.committed {
            let mut slot = self.table.0.entries.lock(&self.key);
            if slot.get().is_some_and(|entry| entry.reserved) {
                slot.remove();
            }
        }
    }
}

impl Inner {
    /// Enters a key that is not there, evicting if it must; answers its occurrences.
    fn insert(&self, slot: &mut Place<'_>, entry: DedupEntry, now: UnixSeconds) -> u32 {
        let shard = slot.shard();
        shard.state.inserts_since_trim = shard.state.inserts_since_trim.saturating_add(1);
        if shard.state.inserts_since_trim >= self.trim_every {
            metrics::lapsed(self.trim(shard, now));
        }
        if shard.len() >= self.ceiling && shard.state.trimmed_at != now {
            metrics::lapsed(self.trim(shard, now));
        }
        if shard.len() >= self.ceiling {
            metrics::evicted(evict(shard));
        }
        let touched = shard.state.tick();
        slot.get_or_insert_with(|| Entry {
            until: entry.until,
            touched,
            occurrences: entry.occurrences,
            signed: entry.signed,
            reserved: false,
            store_refused: None,
        });
        enqueue(slot, entry.signed, touched);
        entry.occurrences
    }

    /// Removes entries whose retention is over, least recently seen first, down to the capacity.
    fn trim(&self, shard: &mut Part, now: UnixSeconds) -> usize {
        shard.state.inserts_since_trim = 0;
        shard.state.trimmed_at = now;
        let excess = shard.len().saturating_sub(self.capacity);
        remove_first(shard, excess, |entry| !entry.reserved && entry.until < now)
    }
}

/// Counts an occurrence of a known key, if it has at least `least` already.
fn repeat(slot: &mut Place<'_>, meta: DedupMeta, least: u32, now: UnixSeconds) -> Option<u32> {
    let touched = slot.shard().state.tick();
    let entry = slot.get_mut().filter(|entry| entry.occurrences >= least)?;
    entry.touched = touched;
    entry.occurrences = entry.occurrences.saturating_add(1);
    // A repeat never shortens retention.
    entry.until = entry.until.max(meta.retain_until(now));
    let (occurrences, signed) = (entry.occurrences, entry.signed);
    enqueue(slot, signed, touched);
    Some(occurrences)
}

impl Entry {
    fn may_be_stored_again(&self, now: UnixSeconds) -> bool {
        let is_repeat = |refused: UnixSeconds| {
            (refused..refused.saturating_add(STORE_REFUSED_SECONDS)).contains(&now)
        };
        self.store_refused
            .is_some_and(|refused| !is_repeat(refused))
    }
}

impl ShardCounters {
    const fn tick(&mut self) -> u64 {
        self.clock = self.clock.wrapping_add(1);
        self.clock
    }

    const fn order(&mut self, signed: bool) -> &mut VecDeque<(u64, u64)> {
        if signed {
            &mut self.signed
        } else {
            &mut self.unsigned
        }
    }
}

impl DedupEntry {
    fn first(key: DedupHash, meta: DedupMeta, now: UnixSeconds) -> Self {
        Self {
            key,
            occurrences: 1,
            until: meta.retain_until(now),
            signed: meta.signed,
        }
    }
}

#[cfg(test)]
mod tests;
