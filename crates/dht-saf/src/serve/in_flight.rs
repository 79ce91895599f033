//! Bounds the bytes of responses that wait to leave for their requesters.

use std::{collections::HashMap, sync::Arc};

use dht_mailbox::Recipient;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;

/// A requester may hold one response, and more within this part of the budget, so that one that does not read leaves room
/// for others.
const REQUESTER_SHARE: usize = 8;

/// The bytes of responses in flight, in total and by requester.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    all: ByteBudget,
    by_requester: Arc<Mutex<HashMap<Recipient, usize>>>,
}

/// Room for one response; given back on drop.
#[derive(Debug)]
pub(super) struct ResponsePermit {
    requester: Recipient,
    bytes: usize,
    by_requester: Arc<Mutex<HashMap<Recipient, usize>>>,
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
    pub(super) fn try_acquire(&self, requester: Recipient, bytes: usize) -> Option<ResponsePermit> {
        let all = self.all.try_acquire(bytes)?;
        let mut by_requester = self.by_requester.lock();
        let held = by_requester.get(&requester).copied().unwrap_or(0);
        let after = held.saturating_add(bytes);
        if held > 0 && after > self.all.total() / REQUESTER_SHARE {
            return None;
        }
        by_requester.insert(requester, after);
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
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
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
        let requester = |n| Recipient::from_bytes([n; 32]);
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
}
