//! The table of messages received, with a share for each deliverer.

use std::hash::{BuildHasher as _, RandomState};

use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_stack::FairQueue;
use hashbrown::HashTable;

/// Messages received, each with the last second in which it is remembered. The hash table has the numbers of the queue, so that
/// one at twice its size, as removals leave it, is small.
#[derive(Debug, Default)]
pub(super) struct Received {
    rows: FairQueue<Deliverer, (DedupHash, UnixSeconds)>,
    places: HashTable<u32>,
    hasher: RandomState,
}

impl Received {
    /// Remembers a message until a second; one that is remembered for longer stays so, and in its share.
    pub(super) fn insert(&mut self, hash: DedupHash, until: UnixSeconds, from: Deliverer) {
        if let Some(place) = self.find(&hash) {
            if let Some(row) = self.rows.get_mut(place) {
                row.1 = row.1.max(until);
            }
            return;
        }
        let Some(place) = self.rows.push(from, (hash, until)) else {
            return;
        };
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.places
            .insert_unique(hasher.hash_one(hash), place, |place| {
                let row = rows.get(*place);
                hasher.hash_one(row.map_or(hash, |row| row.0))
            });
    }

    fn find(&self, hash: &DedupHash) -> Option<u32> {
        let is_it = |place: &u32| self.rows.get(*place).is_some_and(|row| row.0 == *hash);
        let place = self.places.find(self.hasher.hash_one(hash), is_it);
        place.copied()
    }

    pub(super) fn contains(&self, hash: &DedupHash) -> bool {
        self.find(hash).is_some()
    }

    /// Removes the messages that `is_gone` names. Looks at each.
    pub(super) fn remove(&mut self, is_gone: impl Fn(&DedupHash) -> bool) {
        let (places, hasher) = (&mut self.places, &self.hasher);
        let gone = |place, row: (DedupHash, _)| forget(places, hasher, place, &row.0);
        self.rows.retain(|row| !is_gone(&row.0), gone);
    }

    /// Removes the oldest message of the deliverer with most.
    pub(super) fn pop_largest(&mut self) -> Option<DedupHash> {
        let (place, (hash, _)) = self.rows.pop_largest()?;
        forget(&mut self.places, &self.hasher, place, &hash);
        Some(hash)
    }

    /// Removes the messages whose time is over, and returns them. One behind an older message of its deliverer whose time is
    /// not over, as after a step of the clock, waits for that.
    pub(super) fn prune(&mut self, now: UnixSeconds) -> Vec<DedupHash> {
        let mut pruned = Vec::new();
        let (places, hasher) = (&mut self.places, &self.hasher);
        let gone = |place, (hash, _): (DedupHash, _)| {
            forget(places, hasher, place, &hash);
            pruned.push(hash);
        };
        self.rows.pop_while(|(_, until)| *until < now, gone);
        pruned
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The messages; those of one deliverer are in their order.
    pub(super) fn snapshot(&self) -> Vec<(DedupHash, UnixSeconds, Deliverer)> {
        let rows = self.rows.iter();
        rows.map(|(from, (hash, until))| (*hash, *until, *from))
            .collect()
    }

    /// Bytes of rows and table, room for further messages included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.rows.allocated_bytes() + self.places.allocation_size()
    }
}

fn forget(places: &mut HashTable<u32>, hasher: &RandomState, place: u32, hash: &DedupHash) {
    if let Ok(entry) = places.find_entry(hasher.hash_one(hash), |other| *other == place) {
        entry.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> DedupHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        DedupHash(hash)
    }

    const FROM: Deliverer = Deliverer::from_bytes([1; 32]);

    #[test]
    fn times_that_are_over_end() {
        let mut received = Received::default();
        for (n, until) in [(1, 10), (2, 20), (3, 30), (1, 5)] {
            received.insert(name(n), UnixSeconds(until), FROM);
        }
        assert_eq!(received.prune(UnixSeconds(10)), []);
        assert_eq!(received.prune(UnixSeconds(21)), [name(1), name(2)]);
        assert!(!received.contains(&name(2)) && received.contains(&name(3)));
        received.insert(name(3), UnixSeconds(40), FROM);
        assert_eq!(received.prune(UnixSeconds(31)), []);
        assert_eq!(received.pop_largest(), Some(name(3)));
        assert_eq!((received.pop_largest(), received.len()), (None, 0));
    }

    #[test]
    fn removed_messages_leave_the_table() {
        let mut received = Received::default();
        for n in 0..1_000 {
            received.insert(name(n), UnixSeconds(n), FROM);
        }
        received.remove(|hash| hash.0[7] % 2 == 0);
        assert_eq!(received.len(), 500);
        assert!(received.contains(&name(1)) && !received.contains(&name(2)));
        assert_eq!(received.pop_largest(), Some(name(1)));
    }
}
