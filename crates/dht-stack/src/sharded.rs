//! A hash table in shards, for keys that strangers choose.

use std::{
    fmt,
    hash::{Hash, Hasher as _},
};

use foldhash::{SharedSeed, quality::FoldHasher};
use hashbrown::{HashTable, hash_table::Entry};
use parking_lot::{Mutex, MutexGuard};

/// A map from `K` to `V` whose locks are each shared by a part of the keys, so that cores rarely wait for each other.
///
/// Keys are hashed under a 128-bit seed, so that a peer that does not know it cannot aim many keys at one shard. The seed
/// protects the time that a look-up takes; no answer depends on the seed. Each shard has a state `S`, for
/// what its user counts per shard. The table itself has no bound: its user evicts, through [`Shard::retain`].
///
/// ```
/// use dht_stack::Sharded;
///
/// let table: Sharded<&str, u32> = Sharded::new(16, [7; 16]); // a random seed outside of examples
/// *table.lock(&"hits").get_or_insert_with(|| 0) += 1;
/// assert_eq!(table.lock(&"hits").get(), Some(&1));
/// assert_eq!(table.lock(&"hits").remove(), Some(1));
/// assert!(table.is_empty());
/// ```
pub struct Sharded<K, V, S = ()> {
    shards: Box<[Padded<Shard<K, V, S>>]>,
    seed: u64,
    shared_seed: SharedSeed,
}

/// Shards on cache lines of their own.
#[repr(align(128))]
struct Padded<T>(Mutex<T>);

/// One part of a [`Sharded`] table.
pub struct Shard<K, V, S = ()> {
    entries: HashTable<(K, V)>,
    /// State that the user of the table keeps for each shard.
    pub state: S,
}

/// The place of one key in a [`Sharded`] table; its shard is locked meanwhile.
pub struct Slot<'t, K, V, S = ()> {
    table: &'t Sharded<K, V, S>,
    shard: MutexGuard<'t, Shard<K, V, S>>,
    key: &'t K,
    hash: u64,
}

// === impl Sharded ===

impl<K: Hash + Eq, V, S: Default> Sharded<K, V, S> {
    /// An empty table in `shards` parts, rounded up to a power of two. The `seed` must be unknown to those who choose
    /// keys.
    #[must_use]
    pub fn new(shards: usize, seed: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, shared @ ..] = seed;
        let shard = |_| {
            Padded(Mutex::new(Shard {
                entries: HashTable::new(),
                state: S::default(),
            }))
        };
        Self {
            shards: (0..shards.next_power_of_two()).map(shard).collect(),
            seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            shared_seed: SharedSeed::from_u64(u64::from_le_bytes(shared)),
        }
    }
}

impl<K: Hash + Eq, V, S> Sharded<K, V, S> {
    /// Locks the shard of `key`. Lock one key at a time.
    #[must_use]
    pub fn lock<'t>(&'t self, key: &'t K) -> Slot<'t, K, V, S> {
        let hash = self.hash(key);
        let index = (hash >> 32) as usize & self.shards.len().wrapping_sub(1);
        #[expect(
            clippy::indexing_slicing,
            reason = "masked by the number of shards, a power of two"
        )]
        let shard = self.shards[index].0.lock();
        Slot {
            table: self,
            shard,
            key,
            hash,
        }
    }

    // The shard index takes bits of the hash that the tables inside do not look at first.
    fn hash(&self, key: &K) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        key.hash(&mut hasher);
        hasher.finish()
    }
}

impl<K, V, S> Sharded<K, V, S> {
    /// The shards, each locked while it is looked at. Entries that other threads add meanwhile may be missed.
    pub fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<K, V, S>>> {
        self.shards.iter().map(|shard| shard.0.lock())
    }

    /// Number of shards, a power of two.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Entries at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards().map(|shard| shard.len()).sum()
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the table takes for entries now, room for further ones included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.shards()
            .map(|shard| shard.entries.allocation_size())
            .sum()
    }
}

// === impl Slot ===

impl<K: Hash + Eq, V, S> Slot<'_, K, V, S> {
    /// The value of the key.
    #[must_use]
    pub fn get(&self) -> Option<&V> {
        let entry = self
            .shard
            .entries
            .find(self.hash, |entry| entry.0 == *self.key);
        entry.map(|entry| &entry.1)
    }

    /// The value of the key, to be changed.
    #[must_use]
    pub fn get_mut(&mut self) -> Option<&mut V> {
        let (hash, key) = (self.hash, self.key);
        let entry = self.shard.entries.find_mut(hash, |entry| entry.0 == *key);
        entry.map(|entry| &mut entry.1)
    }

    /// The value of the key, entered now if there was none.
    pub fn get_or_insert_with(&mut self, value: impl FnOnce() -> V) -> &mut V
    where
        K: Clone,
    {
        let (table, key) = (self.table, self.key);
        let entry = self.shard.entries.entry(
            self.hash,
            |entry| entry.0 == *key,
            |entry| table.hash(&entry.0),
        );
        let occupied = match entry {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert((key.clone(), value())),
        };
        &mut occupied.into_mut().1
    }

    /// Removes the entry of the key and answers its value.
    pub fn remove(&mut self) -> Option<V> {
        let (hash, key) = (self.hash, self.key);
        let entry = self.shard.entries.find_entry(hash, |entry| entry.0 == *key);
        entry.ok().map(|entry| entry.remove().0.1)
    }

    /// Hash of the key under the table's seed, for [`Shard::find`] and [`Shard::remove`].
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The shard in which the key has its place.
    pub fn shard(&mut self) -> &mut Shard<K, V, S> {
        &mut self.shard
    }
}

// === impl Shard ===

impl<K, V, S> Shard<K, V, S> {
    /// Entries in this shard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value that `is_it` holds true for, of those whose key has this hash.
    #[must_use]
    pub fn find(&self, hash: u64, is_it: impl Fn(&V) -> bool) -> Option<&V> {
        let entry = self.entries.find(hash, |entry| is_it(&entry.1));
        entry.map(|entry| &entry.1)
    }

    /// Removes the entry that [`find`](Self::find) finds, and answers its value.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&V) -> bool) -> Option<V> {
        let entry = self.entries.find_entry(hash, |entry| is_it(&entry.1));
        entry.ok().map(|entry| entry.remove().0.1)
    }

    /// The entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Removes every entry for which `keep` answers false, and answers how many that were.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|(key, value)| keep(key, value));
        before.saturating_sub(self.entries.len())
    }
}

impl<K, V, S> fmt::Debug for Sharded<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharded")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl<K, V, S> fmt::Debug for Shard<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl<K, V, S> fmt::Debug for Slot<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterned_keys_spread_over_shards() {
        let table: Sharded<[u8; 32], ()> = Sharded::new(16, [7; 16]);
        for n in 0..16_000_u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            table.lock(&key).get_or_insert_with(|| ());
        }
        let counts: Vec<_> = table.shards().map(|shard| shard.len()).collect();
        assert!(
            counts.iter().all(|n| (800..1_200).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn hash_depends_on_every_seed_byte() {
        let hash = |seed| Sharded::<[u8; 32], ()>::new(1, seed).hash(&[9; 32]);
        assert_eq!(hash([1; 16]), hash([1; 16]));
        for at in 0..16 {
            let mut seed = [1; 16];
            seed[at] = 2;
            assert_ne!(hash(seed), hash([1; 16]), "byte {at}");
        }
    }

    #[test]
    fn slot_finds_inserts_and_removes() {
        let table: Sharded<u32, u32> = Sharded::new(1, [0; 16]);
        assert_eq!(table.lock(&1).get(), None);
        *table.lock(&1).get_or_insert_with(|| 5) += 1;
        assert_eq!(*table.lock(&1).get_or_insert_with(|| 5), 6);
        assert_eq!(table.lock(&2).remove(), None);
        let mut slot = table.lock(&2);
        slot.get_or_insert_with(|| 7);
        assert_eq!(slot.shard().retain(|_, value| *value == 7), 1);
        drop(slot);
        assert_eq!((table.len(), table.lock(&2).remove()), (1, Some(7)));
    }
}
