//! Which entries of a shard go, and in which order.

use super::{Entry, Part, Place};

/// Outdated occurrences that a shard keeps beside twice its entries.
const SPARE_OCCURRENCES: usize = 64;

/// Enters occurrence number `touched` of a key in the order of eviction.
pub(super) fn enqueue(slot: &mut Place<'_>, signed: bool, touched: u64) {
    let hash = slot.hash();
    let shard = slot.shard();
    let most = shard
        .len()
        .saturating_mul(2)
        .saturating_add(SPARE_OCCURRENCES);
    let order = shard.state.order(signed);
    order.push_back((touched, hash));
    if order.len() > most {
        let mut order = std::mem::take(order);
        order.retain(|(touched, hash)| {
            shard
                .find(*hash, |entry| entry.touched == *touched)
                .is_some()
        });
        *shard.state.order(signed) = order;
    }
}

/// Removes the least recently seen entry that is not reserved, a signed one only if there is no other. Whatever could have
/// lapsed must have been trimmed.
pub(super) fn evict(shard: &mut Part) -> usize {
    for signed in [false, true] {
        while let Some((touched, hash)) = shard.state.order(signed).pop_front() {
            let is_it = |entry: &Entry| entry.touched == touched && !entry.reserved;
            if shard.remove(hash, is_it).is_some() {
                return 1;
            }
        }
    }
    0
}

/// Removes up to `n` of the entries that may go, the least recently seen first.
pub(super) fn remove_first(shard: &mut Part, n: usize, may_go: impl Fn(&Entry) -> bool) -> usize {
    let Some(last) = n.checked_sub(1) else {
        return 0;
    };
    let candidates = shard.iter().filter(|(_, entry)| may_go(entry));
    let mut order: Vec<_> = candidates.map(|(_, entry)| entry.touched).collect();
    let bound = if order.len() > n {
        *order.select_nth_unstable(last).1
    } else {
        u64::MAX
    };
    shard.retain(|_, entry| !may_go(entry) || entry.touched > bound)
}
