//! The table of messages received, in the order in which their times end.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{BuildHasher as _, RandomState},
    mem,
};

use dht_core::{DedupHash, UnixSeconds};
use hashbrown::HashTable;

/// Outdated times that the order keeps beside a quarter of the messages.
const SPARE_TIMES: usize = 64;

/// Messages received, each with the last second in which it is remembered. A message is kept once, in a row: the other
/// parts have the number of the row, so that a hash table at twice its size, as removals leave it, is small.
#[derive(Debug, Default)]
pub(super) struct Received {
    rows: Vec<(DedupHash, UnixSeconds)>,
    /// Rows without a message.
    free: Vec<u32>,
    places: HashTable<u32>,
    /// Times with their rows, the earliest first. A time that is not the one of its row is outdated.
    order: BinaryHeap<Reverse<(UnixSeconds, u32)>>,
    hasher: RandomState,
}

impl Received {
    /// Remembers a message until a second; one that is remembered for longer stays so.
    pub(super) fn insert(&mut self, hash: DedupHash, until: UnixSeconds) {
        let place = if let Some(place) = self.find(&hash) {
            match self.rows.get_mut(place as usize) {
                Some(row) if row.1 < until => row.1 = until,
                _ => return,
            }
            place
        } else {
            let Some(place) = self.add((hash, until)) else {
                return;
            };
            let (rows, hasher) = (&self.rows, &self.hasher);
            self.places
                .insert_unique(hasher.hash_one(hash), place, |place| {
                    let row = rows.get(*place as usize);
                    hasher.hash_one(row.map(|row| row.0).unwrap_or(hash))
                });
            place
        };
        self.order.push(Reverse((until, place)));
        let most = self.len() + self.len() / 4 + SPARE_TIMES;
        if self.order.len() > most {
            let mut order = mem::take(&mut self.order);
            order.retain(|Reverse((until, place))| self.is_current(*until, *place));
            self.order = order;
        }
    }

    /// Puts a message into a row; `None` if rows have no further numbers.
    fn add(&mut self, row: (DedupHash, UnixSeconds)) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => u32::try_from(self.rows.len()).ok()?,
        };
        match self.rows.get_mut(place as usize) {
            Some(free) => *free = row,
            None => self.rows.push(row),
        }
        Some(place)
    }

    fn find(&self, hash: &DedupHash) -> Option<u32> {
        let is_it = |place: &u32| {
            let row = self.rows.get(*place as usize);
            row.is_some_and(|row| row.0 == *hash)
        };
        let place = self.places.find(self.hasher.hash_one(hash), is_it);
        place.copied()
    }

    /// Whether this row has a message that is remembered until this second.
    fn is_current(&self, until: UnixSeconds, place: u32) -> bool {
        let row = self.rows.get(place as usize);
        row.is_some_and(|row| row.1 == until && self.find(&row.0) == Some(place))
    }

    pub(super) fn contains(&self, hash: &DedupHash) -> bool {
        self.find(hash).is_some()
    }

    /// Removes a message; its times in the order are outdated then.
    pub(super) fn remove(&mut self, hash: &DedupHash) {
        let Some(place) = self.find(hash) else {
            return;
        };
        let is_it = |other: &u32| *other == place;
        if let Ok(entry) = self.places.find_entry(self.hasher.hash_one(hash), is_it) {
            entry.remove();
        }
        self.free.push(place);
    }

    /// Removes the message whose time ends first, if `may_go` is true of the last second of it.
    pub(super) fn pop_first(&mut self, may_go: impl Fn(UnixSeconds) -> bool) -> Option<DedupHash> {
        while let Some(Reverse((until, place))) = self.order.peek().copied() {
            let is_current = self.is_current(until, place);
            if is_current && !may_go(until) {
                return None;
            }
            self.order.pop();
            if is_current && let Some((hash, _)) = self.rows.get(place as usize).copied() {
                self.remove(&hash);
                return Some(hash);
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The messages, in no order.
    pub(super) fn snapshot(&self) -> Vec<(DedupHash, UnixSeconds)> {
        let rows = self.places.iter().map(|place| *place as usize);
        rows.filter_map(|place| self.rows.get(place).copied())
            .collect()
    }

    /// Bytes of rows, table and order, room for further messages included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<(DedupHash, UnixSeconds)>()
            + self.free.capacity() * size_of::<u32>()
            + self.places.allocation_size()
            + self.order.capacity() * size_of::<(UnixSeconds, u32)>()
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

    #[test]
    fn first_to_end_goes_first() {
        let mut received = Received::default();
        for (n, until) in [(1, 30), (2, 10), (3, 20), (2, 40), (1, 5)] {
            received.insert(name(n), UnixSeconds(until));
        }
        let ended = |until| until < UnixSeconds(30);
        assert_eq!(received.pop_first(ended), Some(name(3)));
        assert_eq!(received.pop_first(ended), None);
        assert_eq!(received.pop_first(|_| true), Some(name(1)));
        assert_eq!(received.pop_first(|_| true), Some(name(2)));
        assert_eq!((received.pop_first(|_| true), received.len()), (None, 0));
    }

    #[test]
    fn times_renewed_keep_order_short() {
        let mut received = Received::default();
        for until in 0..10_000 {
            received.insert(name(until % 10), UnixSeconds(until));
        }
        assert_eq!(received.len(), 10);
        assert!(received.allocated_bytes() < 8_192);
        assert_eq!(received.pop_first(|_| true), Some(name(0)));
    }
}
