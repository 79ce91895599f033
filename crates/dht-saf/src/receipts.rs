//! What was decided about messages of late, for whoever sent them and asks.

use std::collections::{HashMap, VecDeque};

use dht_core::DedupHash;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::saf::Saf;

/// Decisions remembered; at the greatest rate of one neighbour, eight seconds.
const MAX_REMEMBERED: usize = 8192;
/// Messages that are waited for at one time.
const MAX_AWAITED: usize = 1024;

/// The latest decisions of the store layer.
#[derive(Debug, Default)]
pub(crate) struct Receipts(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    kept: HashMap<DedupHash, bool>,
    order: VecDeque<DedupHash>,
    /// Who is told of a message that has not come. Only those, as messages come by the thousand.
    awaited: HashMap<DedupHash, Vec<oneshot::Sender<bool>>>,
}

impl Receipts {
    /// Notes whether a message was kept.
    pub(crate) fn note(&self, hash: DedupHash, kept: bool) {
        let mut recent = self.0.lock();
        if recent.kept.insert(hash, kept).is_none() {
            recent.order.push_back(hash);
        }
        if recent.order.len() > MAX_REMEMBERED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.kept.remove(&oldest);
        }
        for answer in recent.awaited.remove(&hash).unwrap_or_default() {
            // Whoever gave up does not want it.
            let _ = answer.send(kept);
        }
    }

    /// The decision, now or later; `None` if too many wait.
    fn find(&self, hash: &DedupHash) -> Option<oneshot::Receiver<bool>> {
        let (answer, decision) = oneshot::channel();
        let mut recent = self.0.lock();
        if let Some(kept) = recent.kept.get(hash) {
            let _ = answer.send(*kept);
            return Some(decision);
        }
        if recent.awaited.values().map(Vec::len).sum::<usize>() >= MAX_AWAITED {
            recent.awaited.retain(|_, answers| {
                answers.retain(|answer| !answer.is_closed());
                !answers.is_empty()
            });
            if recent.awaited.values().map(Vec::len).sum::<usize>() >= MAX_AWAITED {
                return None;
            }
        }
        recent.awaited.entry(*hash).or_default().push(answer);
        Some(decision)
    }
}

impl Saf {
    /// Whether this node keeps a message for its recipient; waits until it has come and that is decided, and its
    /// commit is done.
    ///
    /// # Cancel safety
    /// Give it a limit: a message that never comes is waited for.
    pub async fn kept(&self, hash: &DedupHash) -> bool {
        match self.0.receipts.find(hash) {
            Some(decision) => decision.await.unwrap_or(false),
            None => false,
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
        let found = |n| receipts.find(&name(n)).unwrap().try_recv().ok();
        assert_eq!(found(0), None);
        assert_eq!(found(1), Some(false));
        assert_eq!(found(MAX_REMEMBERED), Some(true));
        assert_eq!(receipts.0.lock().order.len(), MAX_REMEMBERED);
    }
    #[test]
    fn those_who_wait_are_told_and_bounded() {
        let receipts = Receipts::default();
        let hash = |n: usize| DedupHash([u8::try_from(n % 256).unwrap(); 32]);
        let mut waiting: Vec<_> = (0..MAX_AWAITED)
            .map(|n| receipts.find(&hash(n)).unwrap())
            .collect();
        assert!(receipts.find(&hash(1)).is_none());
        receipts.note(hash(3), true);
        assert_eq!(waiting[3].try_recv(), Ok(true));
        assert_eq!(waiting[259].try_recv(), Ok(true));
        assert!(waiting[4].try_recv().is_err());
        assert!(receipts.find(&hash(1)).is_some());
        // Who gave up makes room.
        waiting.clear();
        let again: Vec<_> = (0..MAX_AWAITED)
            .map(|n| receipts.find(&hash(n)).is_some())
            .collect();
        assert!(again.iter().all(|found| *found));
    }
}
