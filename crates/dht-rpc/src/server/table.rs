//! Which sessions there are, and which one makes room for another.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Caller;
use crate::metrics;

/// Most sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Sessions of all peers.
    pub(super) total: usize,
    /// Sessions of one peer.
    pub(super) peer: usize,
}

/// The sessions of a server. Clones share them.
#[derive(Debug)]
pub(super) struct Sessions<P, G>(Arc<Mutex<Table<P, G>>>);

/// The place of one session; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Slot<P, G> {
    sessions: Arc<Mutex<Table<P, G>>>,
    id: u64,
}

#[derive(Debug)]
struct Table<P, G> {
    limits: Limits,
    sessions: BTreeMap<u64, Entry<P, G>>,
    /// Number of the last change; orders the sessions by age.
    changes: u64,
}

#[derive(Debug)]
struct Entry<P, G> {
    caller: Caller<P, G>,
    /// In its handshake, or between two requests.
    idle: bool,
    /// Change since which it is idle or busy.
    since: u64,
    /// Dropped to end the session.
    _cull: oneshot::Sender<()>,
}

// === impl Sessions ===

impl<P: Ord, G: Ord> Sessions<P, G> {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Table {
            limits,
            sessions: BTreeMap::new(),
            changes: 0,
        })))
    }

    /// A place for a new session, for which another one may be culled, and what resolves once the new one is culled
    /// itself; `None` if the newcomer is to be rejected.
    pub(super) fn admit(
        &self,
        caller: Caller<P, G>,
    ) -> Option<(Slot<P, G>, oneshot::Receiver<()>)> {
        let mut table = self.0.lock();
        if let Some(full) = table.is_full(&caller) {
            let victim = table.victim(&caller, full)?;
            table.sessions.remove(&victim);
        }
        let (cull, culled) = oneshot::channel();
        let id = table.change();
        let entry = Entry {
            caller,
            idle: true,
            since: id,
            _cull: cull,
        };
        table.sessions.insert(id, entry);
        drop(table);
        metrics::session_opened();
        let sessions = Arc::clone(&self.0);
        Some((Slot { sessions, id }, culled))
    }
}

/// Limit that leaves no more room.
#[derive(Clone, Copy)]
enum Full {
    Peer,
    Total,
}

// === impl Table ===

impl<P: Ord, G: Ord> Table<P, G> {
    fn change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn is_full(&self, caller: &Caller<P, G>) -> Option<Full> {
        let sessions = self.sessions.values();
        let of_peer = sessions.filter(|entry| entry.caller.peer == caller.peer);
        if of_peer.count() >= self.limits.peer {
            return Some(Full::Peer);
        }
        (self.sessions.len() >= self.limits.total).then_some(Full::Total)
    }

    /// The session that makes room: the longest idle of the peer, or of the source with most sessions.
    fn victim(&self, caller: &Caller<P, G>, full: Full) -> Option<u64> {
        let mut sources = BTreeMap::<_, usize>::new();
        for entry in self.sessions.values() {
            *sources.entry(&entry.caller.source).or_default() += 1;
        }
        let count = |source: &G| sources.get(source).copied().unwrap_or_default();
        let own = count(&caller.source);
        let gives_way = |entry: &Entry<P, G>| match full {
            Full::Peer => entry.idle && entry.caller.peer == caller.peer,
            Full::Total if entry.caller.source == caller.source => entry.idle,
            Full::Total => count(&entry.caller.source) > own + usize::from(!entry.idle),
        };
        self.sessions
            .iter()
            .filter(|(_, entry)| gives_way(entry))
            .max_by_key(|(_, entry)| {
                let of_source = count(&entry.caller.source);
                (entry.idle, of_source, Reverse(entry.since))
            })
            .map(|(id, _)| *id)
    }
}

// === impl Slot ===

impl<P: Ord, G: Ord> Slot<P, G> {
    /// Says whether the session is idle, from now on.
    pub(super) fn set_idle(&self, idle: bool) {
        let mut table = self.sessions.lock();
        let since = table.change();
        if let Some(entry) = table.sessions.get_mut(&self.id) {
            (entry.idle, entry.since) = (idle, since);
        }
    }
}

impl<P, G> Drop for Slot<P, G> {
    fn drop(&mut self) {
        // A culled session is no longer there.
        self.sessions.lock().sessions.remove(&self.id);
        metrics::session_closed();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { total: 6, peer: 3 };

    type Table = Sessions<u8, u8>;

    fn caller(peer: u8, source: u8) -> Caller<u8, u8> {
        Caller { peer, source }
    }

    impl Table {
        fn callers(&self) -> Vec<Caller<u8, u8>> {
            let table = self.0.lock();
            table.sessions.values().map(|entry| entry.caller).collect()
        }

        fn of_source(&self, source: u8) -> usize {
            let callers = self.callers();
            callers.iter().filter(|one| one.source == source).count()
        }

        fn fill(&self, callers: &[(u8, u8)], idle: bool) -> Vec<Slot<u8, u8>> {
            let admit = |(peer, source): &(u8, u8)| {
                let (slot, _) = self.admit(caller(*peer, *source)).unwrap();
                slot.set_idle(idle);
                slot
            };
            callers.iter().map(admit).collect()
        }
    }

    #[test]
    fn longest_idle_of_a_peer_goes() {
        let table = Table::new(LIMITS);
        let slots = table.fill(&[(1, 1), (1, 1), (1, 1), (2, 1)], true);
        slots[0].set_idle(false);
        let (newest, _) = table.admit(caller(1, 1)).unwrap();
        let left: Vec<_> = table.0.lock().sessions.keys().copied().collect();
        assert_eq!(left, [slots[0].id, slots[2].id, slots[3].id, newest.id]);
    }

    #[test]
    fn busy_sessions_of_a_peer_stay() {
        let table = Table::new(LIMITS);
        let slots = table.fill(&[(1, 1), (1, 1), (1, 1)], false);
        assert!(table.admit(caller(1, 1)).is_none());
        drop(slots);
        assert!(table.callers().is_empty());
    }

    /// One source cannot keep the others out, however many keys it has and however busy its sessions are.
    #[test]
    fn largest_source_gives_way() {
        let table = Table::new(LIMITS);
        let crowd: Vec<_> = (0..6).map(|peer| (peer, 1)).collect();
        let _crowd = table.fill(&crowd, false);
        assert!(
            table.admit(caller(9, 1)).is_none(),
            "its own source is full"
        );
        let _honest = table.fill(&[(10, 2), (11, 2), (12, 3)], false);
        assert_eq!((table.of_source(1), table.of_source(2)), (3, 2));
        // Nobody who has as many takes a busy one.
        assert!(table.admit(caller(13, 2)).is_none());
    }

    #[test]
    fn larger_source_takes_none_idle() {
        let table = Table::new(LIMITS);
        let _busy = table.fill(&[(1, 1), (2, 1), (3, 1)], false);
        let _idle = table.fill(&[(4, 4), (5, 5), (6, 6)], true);
        assert!(table.admit(caller(7, 1)).is_none());
        assert!(table.admit(caller(8, 8)).is_some());
        assert_eq!(table.of_source(4), 0, "the longest idle of equal sources");
    }

    proptest! {
        /// Within the limits at any time, and no source takes from one that has no more than itself.
        #[test]
        fn limits_hold_and_shares_are_fair(
            steps in prop::collection::vec((0_u8..12, 0_u8..5, any::<bool>(), any::<u8>()), 1..120),
        ) {
            let table = Table::new(LIMITS);
            let mut slots = Vec::new();
            for (peer, source, idle, dropped) in steps {
                let before = table.callers();
                if let Some((slot, _)) = table.admit(caller(peer, source)) {
                    slot.set_idle(idle);
                    slots.push(slot);
                }
                let after = table.callers();
                prop_assert!(after.len() <= LIMITS.total);
                prop_assert!(after.iter().filter(|one| one.peer == peer).count() <= LIMITS.peer);
                for other in 0..5 {
                    let count = |callers: &[Caller<u8, u8>]| {
                        callers.iter().filter(|one| one.source == other).count()
                    };
                    // A peer at its limit gives up a session of its own, wherever that is.
                    let is_own = before.iter().filter(|one| one.peer == peer).count() >= LIMITS.peer;
                    if other != source && count(&after) < count(&before) && !is_own {
                        let own = after.iter().filter(|one| one.source == source).count();
                        prop_assert!(count(&before) >= own);
                    }
                }
                if dropped < 60 && !slots.is_empty() {
                    slots.remove(usize::from(dropped) % slots.len());
                }
            }
            drop(slots);
            prop_assert!(table.callers().is_empty());
        }
    }
}
