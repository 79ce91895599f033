//! Entries of many owners in one bound, of which the owner with most gives way.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    mem,
};

/// Entries of many owners, each owner's in the order in which they came. Who wants a place [takes](Self::pop_largest) the oldest
/// entry of the owner that has most: an owner loses nothing to others as long as one of them has more. Of owners with equally
/// many, the one goes first that made no room for longest.
///
/// An entry has a number, which is used again once the entry has left. The queue has no bound: its user makes room. Each
/// operation on one entry takes logarithmic time in the number of owners.
///
/// ```
/// use dht_stack::FairQueue;
///
/// let mut queue = FairQueue::default();
/// let first = queue.push("quiet", 1);
/// for value in 2..5 {
///     queue.push("loud", value);
/// }
/// assert_eq!(queue.pop_largest().map(|(_, value)| value), Some(2));
/// assert_eq!(first.and_then(|number| queue.get(number)), Some(&1));
/// assert_eq!(queue.len(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct FairQueue<K, V> {
    /// By number; of a number that is free, what was there.
    entries: Vec<V>,
    /// Numbers without an entry.
    free: Vec<u32>,
    /// Owners of an entry.
    owners: HashMap<K, Owner>,
    /// Owners by the number of their entries, and by [`Owner::turn`].
    sizes: BTreeMap<(usize, Reverse<u64>), K>,
    /// The next turn.
    turn: u64,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    /// Numbers of its entries, the oldest first.
    numbers: VecDeque<u32>,
    /// When it got its first entry, or last made room; no two owners have the same.
    turn: u64,
}

// === impl FairQueue ===

impl<K, V> Default for FairQueue<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            owners: HashMap::new(),
            sizes: BTreeMap::new(),
            turn: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> FairQueue<K, V> {
    /// Adds the newest entry of an owner and returns its number; `None` with 2³² entries.
    pub fn push(&mut self, owner: K, value: V) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => u32::try_from(self.entries.len()).ok()?,
        };
        match self.entries.get_mut(number as usize) {
            Some(free) => *free = value,
            None => self.entries.push(value),
        }
        let turn = self.next_turn();
        let held = self.owners.entry(owner).or_insert_with(|| Owner {
            turn,
            ..Owner::default()
        });
        self.sizes.remove(&held.place());
        held.numbers.push_back(number);
        self.sizes.insert(held.place(), owner);
        Some(number)
    }

    /// The entry with a number that it still has.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&V> {
        self.entries.get(number as usize)
    }

    /// The entry with a number that it still has, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut V> {
        self.entries.get_mut(number as usize)
    }

    /// Removes the oldest entry of the owner with most entries.
    pub fn pop_largest(&mut self) -> Option<(u32, V)> {
        let owner = *self.sizes.last_key_value()?.1;
        let turn = self.next_turn();
        self.pop(&owner, Some(turn))
    }

    /// Removes each owner's oldest entries, as far as `may_go` is true of them, and gives them to `gone`. Looks at each owner.
    pub fn pop_while(&mut self, may_go: impl Fn(&V) -> bool, mut gone: impl FnMut(u32, V)) {
        let first = |queue: &Self, owner: &Owner| {
            let number = owner.numbers.front()?;
            queue.get(*number).map(&may_go)
        };
        let concerned = self
            .owners
            .iter()
            .filter(|(_, it)| first(self, it) == Some(true));
        let owners: Vec<_> = concerned.map(|(owner, _)| *owner).collect();
        for owner in owners {
            while self.owners.get(&owner).and_then(|it| first(self, it)) == Some(true)
                && let Some((number, value)) = self.pop(&owner, None)
            {
                gone(number, value);
            }
        }
    }

    /// Removes the entries of which `stays` is not true, and gives them to `gone`. Looks at each entry.
    pub fn retain(&mut self, stays: impl Fn(&V) -> bool, mut gone: impl FnMut(u32, V)) {
        self.sizes.clear();
        for (owner, mut held) in mem::take(&mut self.owners) {
            held.numbers.retain(|number| {
                let Some(entry) = self.entries.get(*number as usize) else {
                    return false;
                };
                if stays(entry) {
                    return true;
                }
                self.free.push(*number);
                gone(*number, *entry);
                false
            });
            if !held.numbers.is_empty() {
                self.sizes.insert(held.place(), owner);
                self.owners.insert(owner, held);
            }
        }
    }

    fn pop(&mut self, owner: &K, turn: Option<u64>) -> Option<(u32, V)> {
        let held = self.owners.get_mut(owner)?;
        self.sizes.remove(&held.place());
        let number = held.numbers.pop_front()?;
        held.turn = turn.unwrap_or(held.turn);
        if held.numbers.is_empty() {
            self.owners.remove(owner);
        } else {
            self.sizes.insert(held.place(), *owner);
        }
        self.free.push(number);
        Some((number, *self.entries.get(number as usize)?))
    }

    const fn next_turn(&mut self) -> u64 {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

impl Owner {
    fn place(&self) -> (usize, Reverse<u64>) {
        (self.numbers.len(), Reverse(self.turn))
    }
}

impl<K, V> FairQueue<K, V> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.free.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each entry with its owner; each owner's are in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.owners.iter().flat_map(|(owner, held)| {
            let entries = held
                .numbers
                .iter()
                .filter_map(|number| self.entries.get(*number as usize));
            entries.map(move |entry| (owner, entry))
        })
    }

    /// Bytes of memory of entries and owners, room for further ones included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        // A hash table has a byte for each place beside it, and a node of a tree is half full at least.
        let owner = 2 * size_of::<(K, Owner)>() + 2 * size_of::<((usize, u64), K)>();
        let numbers = self.owners.values().map(|held| held.numbers.capacity());
        let numbers = numbers.sum::<usize>();
        self.entries.capacity() * size_of::<V>()
            + (self.free.capacity() + numbers) * size_of::<u32>()
            + self.owners.len() * owner
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owner_under_its_share_loses_nothing() {
        let mut queue = FairQueue::default();
        for value in 0..10 {
            queue.push(0, value);
        }
        for value in 10..1_000 {
            queue.push(1, value);
            if queue.len() > 50 {
                queue.pop_largest();
            }
        }
        let quiet: Vec<_> = queue
            .iter()
            .filter(|it| *it.0 == 0)
            .map(|it| *it.1)
            .collect();
        assert_eq!(quiet, (0..10).collect::<Vec<_>>());
        assert_eq!(queue.iter().filter(|it| *it.1 >= 960).count(), 40);
    }

    proptest! {
        /// Beside a list of everything.
        #[test]
        fn queue_equals_its_model(steps in prop::collection::vec((0_u8..4, 0_u8..5), 1..200)) {
            let mut queue = FairQueue::default();
            let mut model = Vec::<(u8, usize)>::new();
            let mut lost = [0; 5];
            for (value, (step, owner)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let number = queue.push(owner, value).unwrap();
                        prop_assert_eq!(queue.get(number), Some(&value));
                        if model.iter().all(|it| it.0 != owner) {
                            lost[usize::from(owner)] = value;
                        }
                        model.push((owner, value));
                    }
                    2 => {
                        let count = |owner| model.iter().filter(|it| it.0 == owner).count();
                        let rank = |owner: &u8| (count(*owner), Reverse(lost[usize::from(*owner)]));
                        let most = (0..5).max_by_key(rank).unwrap();
                        lost[usize::from(most)] = value;
                        let at = model.iter().position(|it| it.0 == most);
                        let expected = at.map(|at| model.remove(at).1);
                        prop_assert_eq!(queue.pop_largest().map(|it| it.1), expected);
                    }
                    _ => {
                        let mut gone = Vec::new();
                        let old = value / 2;
                        if owner == 0 {
                            queue.pop_while(|it| *it < old, |_, it| gone.push(it));
                        } else {
                            queue.retain(|it| *it >= old, |_, it| gone.push(it));
                        }
                        gone.sort_unstable();
                        let expected = model.extract_if(.., |it| it.1 < old).map(|it| it.1);
                        prop_assert_eq!(gone, expected.collect::<Vec<_>>());
                    }
                }
                let mut left: Vec<_> = queue.iter().map(|it| (*it.0, *it.1)).collect();
                left.sort_unstable_by_key(|it| it.1);
                prop_assert_eq!(&left, &model);
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
