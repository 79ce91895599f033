//! Walking ids outward from a target, nearest first, without sorting.
//!
//! The ids that share a prefix with the target are nearer than all that do not. Sorted ids that share a prefix
//! are neighbours, so a sorted sequence already is the binary trie of Kademlia: split it at the highest bit in
//! which it differs and visit the half on the target's side first. Reaching the n-th id takes O(n + log size)
//! splits.

use std::collections::BTreeMap;

use dht_core::NodeId;

/// The id as a big-endian integer below 2^104; XOR of two of these orders like [`NodeId::distance`].
pub(crate) fn key(id: &NodeId) -> u128 {
    id.as_bytes()
        .iter()
        .fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// Highest bit in which two different keys differ.
const fn highest_difference(a: u128, b: u128) -> u32 {
    // Correctness: callers pass different keys, for which the result is 0 to 127; equal ones would give 0.
    127_u32.saturating_sub((a ^ b).leading_zeros())
}

const fn bit_is_set(key: u128, bit: u32) -> bool {
    (key >> bit) & 1 == 1
}

/// Entries of a map by ascending distance of their keys to a target.
pub(crate) struct MapWalk<'a, V> {
    map: &'a BTreeMap<u128, V>,
    target: u128,
    /// Key ranges still to be visited, both ends included, the nearest last.
    pending: Vec<(u128, u128)>,
}

/// Positions in a sorted slice by ascending distance of their keys to a target.
pub(crate) struct SliceWalk<'a> {
    keys: &'a [u128],
    target: u128,
    /// Position ranges still to be visited, end excluded, the nearest last.
    pending: Vec<(usize, usize)>,
}

// === impl MapWalk ===

impl<'a, V> MapWalk<'a, V> {
    pub(crate) fn new(map: &'a BTreeMap<u128, V>, target: &NodeId) -> Self {
        Self {
            map,
            target: key(target),
            pending: vec![(0, u128::MAX)],
        }
    }
}

impl<'a, V> Iterator for MapWalk<'a, V> {
    /// Distance and value.
    type Item = (u128, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((from, to)) = self.pending.pop() {
            let mut range = self.map.range(from..=to);
            let Some((&first, value)) = range.next() else {
                continue;
            };
            let Some((&last, _)) = range.next_back() else {
                return Some((first ^ self.target, value));
            };
            let bit = highest_difference(first, last);
            // `last` has the bit and `first` has not, so there are keys on both sides of `middle`.
            let middle = last >> bit << bit;
            let (low, high) = ((first, middle.saturating_sub(1)), (middle, last));
            if bit_is_set(self.target, bit) {
                self.pending.extend([low, high]);
            } else {
                self.pending.extend([high, low]);
            }
        }
        None
    }
}

// === impl SliceWalk ===

impl<'a> SliceWalk<'a> {
    /// `keys` must be sorted and free of repetitions.
    pub(crate) fn new(keys: &'a [u128], target: &NodeId) -> Self {
        Self {
            keys,
            target: key(target),
            pending: vec![(0, keys.len())],
        }
    }
}

impl Iterator for SliceWalk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while let Some((from, to)) = self.pending.pop() {
            let [first, .., last] = self.keys.get(from..to)? else {
                if from < to {
                    return Some(from);
                }
                continue;
            };
            let bit = highest_difference(*first, *last);
            let lower = self
                .keys
                .get(from..to)?
                .partition_point(|key| !bit_is_set(*key, bit));
            let middle = from.saturating_add(lower);
            if bit_is_set(self.target, bit) {
                self.pending.extend([(from, middle), (middle, to)]);
            } else {
                self.pending.extend([(middle, to), (from, middle)]);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(bytes: [u8; 13]) -> NodeId {
        NodeId::from_bytes(&bytes).unwrap()
    }

    /// Ids that share long prefixes as well as random ones.
    fn ids() -> impl Strategy<Value = BTreeSet<NodeId>> {
        let near = any::<(u8, u8)>().prop_map(|(a, b)| {
            let mut bytes = [0xa5; 13];
            bytes[5] = a;
            bytes[12] = b;
            id(bytes)
        });
        let far = any::<[u8; 13]>().prop_map(id);
        proptest::collection::btree_set(prop_oneof![near, far], 0..80)
    }

    proptest! {
        #[test]
        fn walks_equal_the_naive_sort(ids in ids(), random: [u8; 13], pick: proptest::sample::Index, known: bool) {
            let ids: Vec<_> = ids.into_iter().collect();
            let target = if known && !ids.is_empty() { *pick.get(&ids) } else { id(random) };
            let mut naive = ids.clone();
            naive.sort_by_key(|id| id.distance(&target));

            let map: BTreeMap<_, _> = ids.iter().map(|id| (key(id), *id)).collect();
            let walked: Vec<_> = MapWalk::new(&map, &target).map(|(_, id)| *id).collect();
            prop_assert_eq!(&walked, &naive);

            let keys: Vec<_> = ids.iter().map(key).collect();
            let walked: Vec<_> = SliceWalk::new(&keys, &target).map(|at| ids[at]).collect();
            prop_assert_eq!(&walked, &naive);
        }

        #[test]
        fn keys_order_like_ids_and_distances(a: [u8; 13], b: [u8; 13]) {
            let (a, b) = (id(a), id(b));
            prop_assert_eq!(a.cmp(&b), key(&a).cmp(&key(&b)));
            prop_assert_eq!(a.distance(&b).to_be_bytes(), (key(&a) ^ key(&b)).to_be_bytes());
        }
    }
}
