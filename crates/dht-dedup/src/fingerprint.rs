//! A cache of exact copies: envelopes that were validated, by a keyed hash of their bytes (law 4).

use std::sync::Arc;

use dht_core::{DedupHash, Fingerprint, FingerprintKey, RawEnvelope};
use dht_stack::Sharded;

/// Envelopes a node's cache holds by default: copies of one message arrive within seconds of each other, and one that
/// is forgotten here costs a verification, nothing else.
pub const DEFAULT_FINGERPRINTS: usize = 65_536;

const SHARDS: usize = 64;

/// The exact envelopes that passed validation, by fingerprint, and the key of each in the
/// [`DedupTable`](crate::DedupTable), which alone decides whether a message is a repeat. Cloning shares the cache.
///
/// Each shard holds two generations: when the young one is full, the old one is forgotten.
#[derive(Clone, Debug)]
pub struct FingerprintCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: FingerprintKey,
    entries: Sharded<Fingerprint, Entry, Young>,
    /// Most entries of a generation.
    generation: usize,
}

#[derive(Debug)]
struct Entry {
    hash: DedupHash,
    generation: u32,
}

/// The young generation of a shard.
#[derive(Debug, Default)]
struct Young {
    generation: u32,
    entries: usize,
}

impl FingerprintCache {
    /// Room for `capacity` envelopes, rounded to a few per shard. The `key` must be secret.
    #[must_use]
    pub fn new(capacity: usize, key: FingerprintKey) -> Self {
        Self(Arc::new(Inner {
            key,
            // No secret seed: a fingerprint is a keyed hash already.
            entries: Sharded::new(SHARDS, [0; 16]),
            generation: (capacity / (2 * SHARDS)).max(2),
        }))
    }

    /// The fingerprint of an envelope, under the key of this process.
    #[must_use]
    pub fn fingerprint(&self, envelope: &RawEnvelope) -> Fingerprint {
        envelope.fingerprint(&self.0.key)
    }

    /// Remembers a validated envelope.
    pub fn insert(&self, fingerprint: Fingerprint, hash: DedupHash) {
        let mut slot = self.0.entries.lock(&fingerprint);
        let shard = slot.shard();
        if shard.state.entries >= self.0.generation {
            let old = shard.state.generation;
            shard.retain(|_, entry| entry.generation == old);
            shard.state.generation = old.wrapping_add(1);
            shard.state.entries = 0;
        }
        let young = shard.state.generation;
        let entry = slot.get_or_insert_with(|| Entry {
            hash,
            generation: young.wrapping_sub(1),
        });
        let joins = entry.generation != young;
        *entry = Entry {
            hash,
            generation: young,
        };
        if joins {
            let state = &mut slot.shard().state;
            state.entries = state.entries.saturating_add(1);
        }
    }

    /// The key of the envelope in the dedup table, if the envelope is remembered.
    #[must_use]
    pub fn find(&self, fingerprint: Fingerprint) -> Option<DedupHash> {
        let slot = self.0.entries.lock(&fingerprint);
        slot.get().map(|entry| entry.hash)
    }

    /// Envelopes remembered at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Bytes that the cache takes now, room for further envelopes included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.0.entries.allocated_bytes()
    }

    /// True if nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;

    fn fingerprint(n: u64) -> Fingerprint {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Fingerprint(bytes)
    }

    #[test]
    fn cache_is_bounded_and_keeps_newest() {
        let key = FingerprintKey::random(&mut SeededEntropy::new(1).rng());
        let cache = FingerprintCache::new(1_024, key);
        for n in 0..100_000 {
            cache.insert(fingerprint(n), DedupHash([7; 32]));
            assert_eq!(cache.find(fingerprint(n)), Some(DedupHash([7; 32])));
            cache.insert(fingerprint(100_000), DedupHash([8; 32]));
        }
        assert!(cache.len() <= 1_024);
        assert_eq!(cache.find(fingerprint(0)), None);
        assert_eq!(cache.find(fingerprint(100_000)), Some(DedupHash([8; 32])));
    }
}
