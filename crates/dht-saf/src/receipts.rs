//! What was decided about messages of late, for whoever sent them and asks.

use std::collections::{HashMap, VecDeque};

use dht_core::DedupHash;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::saf::Saf;

/// Decisions remembered; at the greatest rate of one neighbour, eight seconds.
const MAX_REMEMBERED: usize = 8192;

/// The latest decisions of the store layer.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    recent: Mutex<Recent>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Recent {
    kept: HashMap<DedupHash, bool>,
    order: VecDeque<DedupHash>,
}

impl Receipts {
    /// Notes whether a message was kept.
    pub(crate) fn note(&self, hash: DedupHash, kept: bool) {
        let mut recent = self.recent.lock();
        if recent.kept.insert(hash, kept).is_none() {
            recent.order.push_back(hash);
        }
        if recent.order.len() > MAX_REMEMBERED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.kept.remove(&oldest);
        }
        drop(recent);
        self.changed.notify_waiters();
    }

    fn find(&self, hash: &DedupHash) -> Option<bool> {
        self.recent.lock().kept.get(hash).copied()
    }
}

impl Saf {
    /// Whether this node keeps a message for its recipient; waits until it has come and that is decided, and its
    /// commit is done.
    ///
    /// # Cancel safety
    /// Give it a limit: a message that never comes is waited for.
    pub async fn kept(&self, hash: &DedupHash) -> bool {
        let receipts = &self.0.receipts;
        loop {
            let mut changed = std::pin::pin!(receipts.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(kept) = receipts.find(hash) {
                return kept;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_decisions_are_remembered() {
        let receipts = Receipts::default();
        let name = |n: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            DedupHash(hash)
        };
        for n in 0..=MAX_REMEMBERED {
            receipts.note(name(n), n % 2 == 0);
        }
        assert_eq!(receipts.find(&name(0)), None);
        assert_eq!(receipts.find(&name(1)), Some(false));
        assert_eq!(receipts.find(&name(MAX_REMEMBERED)), Some(true));
        assert_eq!(receipts.recent.lock().order.len(), MAX_REMEMBERED);
    }
}
