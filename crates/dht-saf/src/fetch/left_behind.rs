//! Remembers who stores messages that this node had no place for, and when to ask again. No I/O, no clock.

use std::collections::BTreeMap;

use dht_core::{NodeId, RemotePeer, UnixSeconds};

/// Seconds until the first repetition; each further one waits twice as long as the one before.
const FIRST_SECONDS: u64 = 10;
/// Most seconds between two repetitions.
const MOST_SECONDS: u64 = 640;
/// Peers remembered; beyond it the one that has been silent for longest is forgotten, and asked when it connects again.
const MAX_PEERS: usize = 1024;

/// Peers that store messages which were fetched and not taken.
#[derive(Debug, Default)]
pub(super) struct LeftBehind(BTreeMap<NodeId, Repetition>);

#[derive(Debug)]
struct Repetition {
    /// Second in which to ask again.
    at: UnixSeconds,
    /// Seconds waited for that.
    wait: u64,
    /// Second of the peer's last answer.
    answered: UnixSeconds,
    /// It came up, and has not answered since.
    asked: bool,
    /// Newest second read of the peer.
    newest: UnixSeconds,
}

impl LeftBehind {
    /// A peer has answered, and not all of its messages were taken. If one was new, the waits begin anew.
    pub(super) fn add(&mut self, peer: &RemotePeer, is_new: bool, now: UnixSeconds) {
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer.node_id) {
            self.make_room();
        }
        let repetition = self.0.entry(peer.node_id).or_insert(Repetition {
            at: now,
            wait: FIRST_SECONDS,
            answered: now,
            asked: false,
            newest: UnixSeconds(0),
        });
        if is_new {
            repetition.wait = FIRST_SECONDS;
        }
        repetition.at = now.saturating_add(repetition.wait);
        (repetition.answered, repetition.asked) = (now, false);
    }

    /// A page of this peer was read up to second `newest`. Returns the newest second of all.
    pub(super) fn read(&mut self, peer: &NodeId, newest: UnixSeconds) -> UnixSeconds {
        let Some(repetition) = self.0.get_mut(peer) else {
            return newest;
        };
        repetition.newest = repetition.newest.max(newest);
        repetition.newest
    }

    /// The next repetition reads this peer as a whole.
    pub(super) fn restart(&mut self, peer: &NodeId) {
        if let Some(repetition) = self.0.get_mut(peer) {
            repetition.newest = UnixSeconds::default();
        }
    }

    /// Everything this peer had was taken.
    pub(super) fn remove(&mut self, peer: &NodeId) {
        self.0.remove(peer);
    }

    /// Every peer is to be asked now, and read as a whole.
    pub(super) fn hasten(&mut self, now: UnixSeconds) {
        for repetition in self.0.values_mut() {
            (repetition.at, repetition.newest) = (now, UnixSeconds::default());
        }
    }

    /// Messages left behind may have a place now: no peer that has answered waits longer than the first time.
    pub(super) fn room_made(&mut self) {
        for repetition in self.0.values_mut().filter(|it| !it.asked) {
            let first = repetition.answered.saturating_add(FIRST_SECONDS);
            repetition.at = repetition.at.min(first);
            repetition.wait = FIRST_SECONDS;
        }
    }

    /// The peers to ask now. Each comes up again after twice the wait, as it may not answer.
    pub(super) fn due(&mut self, now: UnixSeconds) -> Vec<NodeId> {
        let due = self.0.iter_mut().filter(|(_, it)| it.at <= now);
        due.map(|(peer, it)| {
            it.wait = it.wait.saturating_mul(2).min(MOST_SECONDS);
            (it.at, it.asked) = (now.saturating_add(it.wait), true);
            *peer
        })
        .collect()
    }

    /// Forgets the peer that has been silent for longest.
    fn make_room(&mut self) {
        let silent = self.0.iter().min_by_key(|(_, it)| it.answered);
        if let Some(peer) = silent.map(|(peer, _)| *peer) {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Features, test_util::public_key};

    use super::*;

    fn peer(seed: u64) -> RemotePeer {
        RemotePeer::new(public_key(seed), Features::NODE)
    }

    #[test]
    fn peers_without_answer_are_asked_again() {
        let mut left = LeftBehind::default();
        let (peer, now) = (peer(1), UnixSeconds(1_700_000_000));
        left.add(&peer, false, now);
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
        assert_eq!(left.due(now.saturating_add(29)), []);
        assert_eq!(left.due(now.saturating_add(30)), [peer.node_id]);
        left.hasten(now.saturating_add(31));
        assert_eq!(left.due(now.saturating_add(31)), [peer.node_id]);
        left.remove(&peer.node_id);
        assert_eq!(left.due(UnixSeconds(u64::MAX)), []);
    }

    #[test]
    fn the_longest_silent_make_room() {
        let mut left = LeftBehind::default();
        let start = UnixSeconds(1_700_000_000);
        let most = u64::try_from(MAX_PEERS).unwrap();
        for n in 0..=most {
            left.add(&peer(n), false, start.saturating_add(n));
        }
        let due = left.due(UnixSeconds(u64::MAX));
        assert_eq!(due.len(), MAX_PEERS);
        assert!(!due.contains(&peer(0).node_id) && due.contains(&peer(most).node_id));
    }

    #[test]
    fn repetitions_become_rarer() {
        let mut left = LeftBehind::default();
        let peer = peer(1);
        let mut now = UnixSeconds(1_700_000_000);
        for wait in [10, 20, 40, 80, 160, 320, 640, 640] {
            left.add(&peer, false, now);
            assert_eq!(left.due(now.saturating_add(wait - 1)), []);
            now = now.saturating_add(wait);
            assert_eq!(left.due(now), [peer.node_id]);
            assert_eq!(left.due(now), [], "while it is being asked");
        }
        left.remove(&peer.node_id);
        left.add(&peer, false, now);
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
    }

    #[test]
    fn new_messages_end_long_waits() {
        let mut left = LeftBehind::default();
        let (peer, mut now) = (peer(1), UnixSeconds(1_700_000_000));
        for _ in 0..9 {
            left.add(&peer, false, now);
            now = now.saturating_add(640);
            left.due(now);
        }
        left.add(&peer, true, now);
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
    }

    #[test]
    fn room_hastens_no_silent_peer() {
        let mut left = LeftBehind::default();
        let (peer, now) = (peer(1), UnixSeconds(1_700_000_000));
        left.add(&peer, false, now);
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
        for second in 11..30 {
            left.room_made();
            assert_eq!(left.due(now.saturating_add(second)), []);
        }
        assert_eq!(left.due(now.saturating_add(30)), [peer.node_id]);
        left.room_made();
        assert_eq!(left.due(now.saturating_add(69)), [], "it waits longer");
        assert_eq!(left.due(now.saturating_add(70)), [peer.node_id]);
    }

    #[test]
    fn room_ends_long_waits() {
        let mut left = LeftBehind::default();
        let (peer, mut now) = (peer(1), UnixSeconds(1_700_000_000));
        for _ in 0..9 {
            left.add(&peer, false, now);
            now = now.saturating_add(640);
            left.due(now);
        }
        left.add(&peer, false, now);
        assert_eq!(left.due(now.saturating_add(10)), []);
        left.room_made();
        assert_eq!(
            left.due(now.saturating_add(9)),
            [],
            "however many acks come"
        );
        assert_eq!(left.due(now.saturating_add(10)), [peer.node_id]);
    }
}
