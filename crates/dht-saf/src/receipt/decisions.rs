//! Recent decisions about messages, which receipts are answered from.

use std::collections::{HashMap, VecDeque};

use dht_core::DedupHash;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Receipt;

/// Decisions remembered; at the greatest rate of one neighbour, eight seconds of messages.
const MAX_DECISIONS: usize = 8192;
/// Askers that wait at one time for messages that have not arrived.
const MAX_WAITING: usize = 1024;

/// The latest decisions, and who waits for one. When [`MAX_DECISIONS`] is reached the oldest is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    made: HashMap<DedupHash, Receipt>,
    order: VecDeque<DedupHash>,
    waiting: HashMap<DedupHash, Vec<oneshot::Sender<Receipt>>>,
}

impl Decisions {
    /// Records what has become of a message, and tells those that wait for it.
    pub(crate) fn record(&self, hash: DedupHash, receipt: Receipt) {
        let mut recent = self.0.lock();
        if recent.made.insert(hash, receipt).is_none() {
            recent.order.push_back(hash);
        }
        if recent.order.len() > MAX_DECISIONS
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.made.remove(&oldest);
        }
        recent.tell(&hash, receipt);
    }

    /// Tells those that wait for a message that it was not taken. That is not remembered, as another copy may be taken.
    pub(crate) fn refused(&self, hash: &DedupHash) {
        self.0.lock().tell(hash, Receipt::Neither);
    }

    /// The decision about a message, now or once it is made; `None` if too many askers wait.
    pub(crate) fn find(&self, hash: &DedupHash) -> Option<oneshot::Receiver<Receipt>> {
        let (asker, decision) = oneshot::channel();
        let mut recent = self.0.lock();
        if let Some(receipt) = recent.made.get(hash) {
            let _ = asker.send(*receipt);
            return Some(decision);
        }
        if recent.is_full() {
            recent.drop_closed();
            if recent.is_full() {
                return None;
            }
        }
        recent.waiting.entry(*hash).or_default().push(asker);
        Some(decision)
    }
}

impl Recent {
    fn tell(&mut self, hash: &DedupHash, receipt: Receipt) {
        for asker in self.waiting.remove(hash).unwrap_or_default() {
            // An asker that timed out has dropped its receiver.
            let _ = asker.send(receipt);
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.values().map(Vec::len).sum::<usize>() >= MAX_WAITING
    }

    fn drop_closed(&mut self) {
        self.waiting.retain(|_, askers| {
            askers.retain(|asker| !asker.is_closed());
            !askers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_decisions_are_remembered() {
        let decisions = Decisions::default();
        let receipt = |n: usize| match n % 2 {
            0 => Receipt::Stored,
            _ => Receipt::Neither,
        };
        let name = |n: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            DedupHash(hash)
        };
        for n in 0..=MAX_DECISIONS {
            decisions.record(name(n), receipt(n));
        }
        let found = |n| decisions.find(&name(n)).unwrap().try_recv().ok();
        assert_eq!(found(0), None);
        assert_eq!(found(1), Some(Receipt::Neither));
        assert_eq!(found(MAX_DECISIONS), Some(Receipt::Stored));
        assert_eq!(decisions.0.lock().order.len(), MAX_DECISIONS);
    }

    #[test]
    fn waiting_askers_are_told_and_bounded() {
        let decisions = Decisions::default();
        let hash = |n: usize| DedupHash([u8::try_from(n % 256).unwrap(); 32]);
        let mut waiting: Vec<_> = (0..MAX_WAITING)
            .map(|n| decisions.find(&hash(n)).unwrap())
            .collect();
        assert!(decisions.find(&hash(1)).is_none());
        decisions.record(hash(3), Receipt::Stored);
        assert_eq!(waiting[3].try_recv(), Ok(Receipt::Stored));
        assert_eq!(waiting[259].try_recv(), Ok(Receipt::Stored));
        assert!(waiting[4].try_recv().is_err());
        assert!(decisions.find(&hash(1)).is_some());
        // Askers that gave up make room.
        waiting.clear();
        let again: Vec<_> = (0..MAX_WAITING)
            .map(|n| decisions.find(&hash(n)).is_some())
            .collect();
        assert!(again.iter().all(|found| *found));
    }
}
