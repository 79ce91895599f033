//! Which peer lately handed over which message.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    hash::{Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use dht_core::{DedupHash, NodeId};
use foldhash::{SharedSeed, quality::FoldHasher};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Groups of pairs; with [`GROUP`] they make 32 768 pairs, in 288 KiB. A pair is looked up within moments of its message,
/// and one in a thousand is gone after 8192 newer ones.
const GROUPS: usize = 4096;
/// Pairs of a group.
const GROUP: usize = 8;

/// Pairs of a peer and a message that it handed over, each as a hash under a secret seed. A new pair takes the place of the
/// oldest one of its group. Noting one takes neither lock nor memory, unless somebody waits.
pub(crate) struct Deliverers {
    seed: u64,
    shared_seed: SharedSeed,
    groups: Box<[Group]>,
    /// Futures that wait for a pair.
    waiting: AtomicUsize,
    waiters: Mutex<HashMap<u64, Waiters>>,
}

/// The latest pairs whose hashes name this group.
#[derive(Debug, Default)]
struct Group {
    /// Hash of the pair at each place; 0 if there is none.
    pairs: [AtomicU64; GROUP],
    /// Pairs noted so far; says which place is next.
    noted: AtomicUsize,
}

/// Those that wait for one pair.
#[derive(Debug, Default)]
struct Waiters {
    noted: Arc<Notify>,
    count: usize,
}

/// A place among the waiters, for as long as it lives.
struct Waiter<'d> {
    deliverers: &'d Deliverers,
    pair: u64,
    noted: Arc<Notify>,
}

impl Deliverers {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, shared @ ..] = seed;
        Self {
            seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            shared_seed: SharedSeed::from_u64(u64::from_le_bytes(shared)),
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, peer: &NodeId, message: &DedupHash) {
        let pair = self.pair(peer, message);
        if let Some(group) = self.group(pair) {
            group.note(pair);
        }
        // A waiter registers before it looks for the pair, so either it sees the pair or it is told here.
        if self.waiting.load(SeqCst) > 0
            && let Some(waiters) = self.waiters.lock().get(&pair)
        {
            waiters.noted.notify_waiters();
        }
    }

    /// Ends once the pair is noted.
    pub(crate) async fn noted(&self, peer: &NodeId, message: &DedupHash) {
        let pair = self.pair(peer, message);
        if self.has(pair) {
            return;
        }
        let waiter = Waiter::new(self, pair);
        let noted = waiter.noted.notified();
        if !self.has(pair) {
            noted.await;
        }
    }

    fn has(&self, pair: u64) -> bool {
        self.group(pair).is_some_and(|group| group.has(pair))
    }

    fn group(&self, pair: u64) -> Option<&Group> {
        let at = usize::try_from(pair % GROUPS as u64).ok()?;
        self.groups.get(at)
    }

    fn pair(&self, peer: &NodeId, message: &DedupHash) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        peer.hash(&mut hasher);
        message.hash(&mut hasher);
        hasher.finish().max(1)
    }
}

impl Group {
    fn note(&self, pair: u64) {
        if self.has(pair) {
            return;
        }
        let next = self.noted.fetch_add(1, SeqCst) % GROUP;
        if let Some(place) = self.pairs.get(next) {
            place.store(pair, SeqCst);
        }
    }

    fn has(&self, pair: u64) -> bool {
        self.pairs.iter().any(|place| place.load(SeqCst) == pair)
    }
}

impl<'d> Waiter<'d> {
    fn new(deliverers: &'d Deliverers, pair: u64) -> Self {
        let mut waiters = deliverers.waiters.lock();
        let waiting = waiters.entry(pair).or_default();
        waiting.count = waiting.count.saturating_add(1);
        deliverers.waiting.fetch_add(1, SeqCst);
        Self {
            deliverers,
            pair,
            noted: Arc::clone(&waiting.noted),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.deliverers.waiting.fetch_sub(1, SeqCst);
        if let hash_map::Entry::Occupied(mut waiters) =
            self.deliverers.waiters.lock().entry(self.pair)
        {
            let waiting = waiters.get_mut();
            waiting.count = waiting.count.saturating_sub(1);
            if waiting.count == 0 {
                waiters.remove();
            }
        }
    }
}

impl fmt::Debug for Deliverers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliverers")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes(&[n; NodeId::LENGTH]).unwrap()
    }

    #[test]
    fn only_the_deliverer_is_noted() {
        let deliverers = Deliverers::new([5; 16]);
        let message = DedupHash([1; 32]);
        deliverers.note(&peer(1), &message);
        let noted = |n, message| deliverers.noted(&peer(n), message).now_or_never().is_some();
        assert!(noted(1, &message));
        assert!(!noted(2, &message));
        assert!(!noted(1, &DedupHash([2; 32])));
    }

    #[test]
    fn thousands_of_pairs_are_remembered() {
        let deliverers = Deliverers::new([5; 16]);
        let message = |n: u32| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            DedupHash(hash)
        };
        for n in 0..8192 {
            deliverers.note(&peer(1), &message(n));
        }
        let kept = (0..8192).filter(|n| {
            let (peer, message) = (peer(1), message(*n));
            deliverers.noted(&peer, &message).now_or_never().is_some()
        });
        assert!(kept.count() > 8180);
    }

    #[test]
    fn waiters_are_told_and_forgotten() {
        let deliverers = Deliverers::new([5; 16]);
        let message = DedupHash([1; 32]);
        let (first, second) = (peer(1), peer(2));
        let mut waiting = Box::pin(deliverers.noted(&first, &message));
        let mut other = Box::pin(deliverers.noted(&second, &message));
        assert_eq!((&mut waiting).now_or_never(), None);
        assert_eq!((&mut other).now_or_never(), None);
        deliverers.note(&first, &message);
        assert_eq!((&mut waiting).now_or_never(), Some(()));
        assert_eq!((&mut other).now_or_never(), None);
        drop((waiting, other));
        assert_eq!(deliverers.waiting.load(SeqCst), 0);
        assert!(deliverers.waiters.lock().is_empty());
    }
}
