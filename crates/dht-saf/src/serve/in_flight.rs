//! Bounds the responses that wait to leave for their requesters, in number and bytes.

use std::{collections::HashMap, sync::Arc};

use dht_core::Deliverer;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;

/// A requester, or all requesters of one source group, may hold one response, and more within this part of the
/// budget, so that those that do not read leave room for others.
const REQUESTER_SHARE: usize = 8;
/// Responses that one requester, or all requesters of one source group, may leave unread: a reader has one or two
/// under way.
const MAX_UNREAD: usize = 16;

/// The responses in flight, in total and by requester.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    all: ByteBudget,
    by_requester: Arc<Mutex<HashMap<Deliverer, Held>>>,
}

/// Responses and bytes that one requester holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    responses: usize,
    bytes: usize,
}

/// Room for one response; given back on drop.
#[derive(Debug)]
pub(super) struct ResponsePermit {
    requester: Deliverer,
    bytes: usize,
    by_requester: Arc<Mutex<HashMap<Deliverer, Held>>>,
    _all: BytePermit,
}

impl InFlight {
    pub(super) fn new(all: ByteBudget) -> Self {
        Self {
            all,
            by_requester: Arc::default(),
        }
    }

    /// Room for a response of `bytes`; `None` if all of it is taken, or if this requester already holds some and
    /// would exceed its share.
    pub(super) fn try_acquire(&self, requester: Deliverer, bytes: usize) -> Option<ResponsePermit> {
        let all = self.all.try_acquire(bytes)?;
        let mut by_requester = self.by_requester.lock();
        let mut held = by_requester.get(&requester).copied().unwrap_or_default();
        held.responses = held.responses.saturating_add(1);
        let is_first = held.bytes == 0;
        held.bytes = held.bytes.saturating_add(bytes);
        let fits = is_first || held.bytes <= self.all.total() / REQUESTER_SHARE;
        if !fits || held.responses > MAX_UNREAD {
            return None;
        }
        by_requester.insert(requester, held);
        drop(by_requester);
        Some(ResponsePermit {
            requester,
            bytes,
            by_requester: Arc::clone(&self.by_requester),
            _all: all,
        })
    }
}

impl Drop for ResponsePermit {
    fn drop(&mut self) {
        let mut by_requester = self.by_requester.lock();
        if let Some(held) = by_requester.get_mut(&self.requester) {
            held.bytes = held.bytes.saturating_sub(self.bytes);
            held.responses = held.responses.saturating_sub(1);
            if held.responses == 0 {
                by_requester.remove(&self.requester);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_stay_within_the_budget() {
        const KIB: usize = 1024;
        let budget = ByteBudget::new(64 * KIB);
        let in_flight = InFlight::new(budget.clone());
        let requester = |n| Deliverer::from_bytes([n; 32]);
        // One response may be larger than a share, a second one may not.
        let first = in_flight.try_acquire(requester(1), 20 * KIB).unwrap();
        assert!(in_flight.try_acquire(requester(1), KIB).is_none());
        let others: Vec<_> = (2..9)
            .map_while(|n| in_flight.try_acquire(requester(n), 20 * KIB))
            .collect();
        assert_eq!(others.len(), 2);
        assert_eq!(budget.available(), 4 * KIB);
        drop((first, others));
        assert_eq!(budget.available(), budget.total());
        assert!(in_flight.try_acquire(requester(1), KIB).is_some());
    }

    #[test]
    fn unread_responses_are_bounded() {
        let in_flight = InFlight::new(ByteBudget::new(1 << 20));
        let requester = |n| Deliverer::from_bytes([n; 32]);
        let held: Vec<_> = (0..100)
            .filter_map(|_| in_flight.try_acquire(requester(1), 0))
            .collect();
        assert_eq!(held.len(), MAX_UNREAD);
        assert!(in_flight.try_acquire(requester(2), 0).is_some());
        drop(held);
        assert!(in_flight.try_acquire(requester(1), 0).is_some());
        assert_eq!(in_flight.by_requester.lock().len(), 0);
    }
}
