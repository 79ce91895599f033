//! Recent decisions about messages, which receipts are answered from.

use std::collections::{HashMap, VecDeque};

use dht_core::{DedupHash, UnixSeconds};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Receipt;

/// Decisions remembered; at the greatest rate of one deliverer, eight seconds of messages.
const MAX_DECISIONS: usize = 8192;
/// Seconds for which a refusal is answered that a further copy may end: the question comes right behind its copy, and the
/// next copy later.
const REFUSAL_SECONDS: u64 = 3;
/// Least number of waiting askers at which those that gave up are looked for.
const SWEEP_AT: usize = 1024;

/// The latest decisions, and who waits for one. When [`MAX_DECISIONS`] is reached the oldest is forgotten.
///
/// The askers bound themselves: a peer by its streams and by [`MAX_UNANSWERED`](super::MAX_UNANSWERED) on each, so that
/// no peer takes the room of another, or of this node itself.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    made: HashMap<DedupHash, Decision>,
    order: VecDeque<DedupHash>,
    waiting: HashMap<DedupHash, Vec<oneshot::Sender<Receipt>>>,
    /// Askers in `waiting`.
    askers: usize,
    /// Askers that were left by the last sweep.
    kept: usize,
}

#[derive(Clone, Copy, Debug)]
struct Decision {
    receipt: Receipt,
    /// Last second in which it is answered; `None` if it does not change.
    until: Option<UnixSeconds>,
}

impl Decisions {
    /// Records what has become of a message, and tells those that wait for it.
    pub(crate) fn record(&self, hash: DedupHash, receipt: Receipt) {
        let until = None;
        self.decide(hash, Decision { receipt, until });
    }

    /// Tells those that ask about a message now that it was not taken. Those that ask later wait for a further copy.
    pub(crate) fn refuse_for_now(&self, hash: DedupHash, now: UnixSeconds) {
        let until = Some(now.saturating_add(REFUSAL_SECONDS));
        let receipt = Receipt::Neither;
        self.decide(hash, Decision { receipt, until });
    }

    fn decide(&self, hash: DedupHash, decision: Decision) {
        let mut recent = self.0.lock();
        if recent.made.insert(hash, decision).is_none() {
            recent.order.push_back(hash);
        }
        if recent.order.len() > MAX_DECISIONS
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.made.remove(&oldest);
        }
        recent.tell(&hash, decision.receipt);
    }

    /// Forgets what became of messages that the application's inbox has lost.
    pub(crate) fn forget(&self, is_lost: impl Fn(&DedupHash) -> bool) {
        let mut recent = self.0.lock();
        recent.made.retain(|hash, _| !is_lost(hash));
        recent.order.retain(|hash| !is_lost(hash));
    }

    /// Tells those that wait for a message that it was not taken. That is not remembered, as another copy may be taken.
    pub(crate) fn refused(&self, hash: &DedupHash) {
        self.0.lock().tell(hash, Receipt::Neither);
    }

    /// The decision about a message, now or once it is made.
    pub(crate) fn find(&self, hash: &DedupHash, now: UnixSeconds) -> oneshot::Receiver<Receipt> {
        let (asker, decision) = oneshot::channel();
        let mut recent = self.0.lock();
        if let Some(made) = recent.made.get(hash)
            && made.until.is_none_or(|until| now <= until)
        {
            let _ = asker.send(made.receipt);
            return decision;
        }
        // Twice as many as the last time, so that the work for one asker stays the same.
        if recent.askers >= SWEEP_AT.max(recent.kept.saturating_mul(2)) {
            recent.drop_closed();
        }
        recent.askers = recent.askers.saturating_add(1);
        recent.waiting.entry(*hash).or_default().push(asker);
        decision
    }
}

impl Recent {
    fn tell(&mut self, hash: &DedupHash, receipt: Receipt) {
        let askers = self.waiting.remove(hash).unwrap_or_default();
        self.askers = self.askers.saturating_sub(askers.len());
        for asker in askers {
            // An asker that timed out has dropped its receiver.
            let _ = asker.send(receipt);
        }
    }

    fn drop_closed(&mut self) {
        self.waiting.retain(|_, askers| {
            askers.retain(|asker| !asker.is_closed());
            !askers.is_empty()
        });
        self.askers = self.waiting.values().map(Vec::len).sum();
        self.kept = self.askers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

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
        let found = |n| decisions.find(&name(n), NOW).try_recv().ok();
        assert_eq!(found(0), None);
        assert_eq!(found(1), Some(Receipt::Neither));
        assert_eq!(found(MAX_DECISIONS), Some(Receipt::Stored));
        assert_eq!(decisions.0.lock().order.len(), MAX_DECISIONS);
    }

    #[test]
    fn waiting_askers_are_told_and_bounded() {
        let decisions = Decisions::default();
        let hash = |n: usize| DedupHash([u8::try_from(n % 256).unwrap(); 32]);
        let many = 4 * SWEEP_AT;
        let mut waiting: Vec<_> = (0..many).map(|n| decisions.find(&hash(n), NOW)).collect();
        decisions.record(hash(3), Receipt::Stored);
        assert_eq!(waiting[3].try_recv(), Ok(Receipt::Stored));
        assert_eq!(waiting[259].try_recv(), Ok(Receipt::Stored));
        // However many wait, the next one does too.
        let mut next = decisions.find(&hash(4), NOW);
        decisions.record(hash(4), Receipt::Received);
        assert_eq!(waiting[4].try_recv(), Ok(Receipt::Received));
        assert_eq!(next.try_recv(), Ok(Receipt::Received));
        // Askers that gave up are forgotten.
        waiting.clear();
        for n in 0..10 * many {
            drop(decisions.find(&hash(5 + n % 250), NOW));
        }
        let recent = decisions.0.lock();
        let held = recent.waiting.values().map(Vec::len).sum::<usize>();
        assert_eq!(held, recent.askers);
        assert!(held <= SWEEP_AT, "{held}");
    }

    #[test]
    fn a_passing_refusal_is_forgotten() {
        let (decisions, hash) = (Decisions::default(), DedupHash([1; 32]));
        decisions.refuse_for_now(hash, NOW);
        let soon = NOW.saturating_add(REFUSAL_SECONDS);
        assert_eq!(decisions.find(&hash, soon).try_recv(), Ok(Receipt::Neither));
        let mut later = decisions.find(&hash, soon.saturating_add(1));
        assert!(later.try_recv().is_err());
        decisions.record(hash, Receipt::Stored);
        assert_eq!(later.try_recv(), Ok(Receipt::Stored));
    }
}
