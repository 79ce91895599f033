//! Remembers peers that end the connection instead of answering, and when to ask them again. No I/O, no clock.
//!
//! A request to a peer that has just hung up dials it, and a peer that has just connected is asked: with a peer that accepts
//! this node no more, as when a clock is wrong, the two would chase each other.

use std::collections::BTreeMap;

use dht_core::{NodeId, UnixSeconds};

/// Hang-ups in a row after each of which the peer is asked as soon as it is connected again.
const FREE: u32 = 5;
/// Longest pause, in seconds; the first one is a second, and each further one twice as long as the one before.
const MOST_SECONDS: u64 = 600;
/// Peers remembered. Over it they are forgotten: keys are free, and each then costs [`FREE`] requests more.
const MAX_PEERS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct HangUps(BTreeMap<NodeId, HangUp>);

#[derive(Debug, Default)]
struct HangUp {
    /// Hang-ups since the last answer.
    count: u32,
    /// Second before which the peer is not asked.
    until: UnixSeconds,
    /// Whether it has connected since, and is to be asked then.
    is_waiting: bool,
}

impl HangUps {
    /// The connection to a peer ended while its answer was awaited.
    pub(super) fn note(&mut self, peer: NodeId, now: UnixSeconds) {
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer) {
            self.0.clear();
        }
        let hang_up = self.0.entry(peer).or_default();
        hang_up.count = hang_up.count.saturating_add(1);
        if let Some(doublings) = hang_up.count.checked_sub(FREE + 1) {
            let pause = 1_u64.checked_shl(doublings).unwrap_or(MOST_SECONDS);
            hang_up.until = now.saturating_add(pause.min(MOST_SECONDS));
        }
        hang_up.is_waiting = false;
    }

    /// A peer has answered.
    pub(super) fn remove(&mut self, peer: &NodeId) {
        self.0.remove(peer);
    }

    /// Whether to ask a peer that has just connected. If not, it is [due](Self::due) once its pause is over.
    pub(super) fn may_ask(&mut self, peer: &NodeId, now: UnixSeconds) -> bool {
        match self.0.get_mut(peer) {
            Some(hang_up) if hang_up.is_paused(now) => {
                hang_up.is_waiting = true;
                false
            }
            _ => true,
        }
    }

    /// The peers whose pause is over, each once.
    pub(super) fn due(&mut self, now: UnixSeconds) -> Vec<NodeId> {
        let due = self.0.iter_mut();
        let due = due.filter(|(_, hang_up)| hang_up.is_waiting && !hang_up.is_paused(now));
        due.map(|(peer, hang_up)| {
            hang_up.is_waiting = false;
            *peer
        })
        .collect()
    }
}

impl HangUp {
    /// A pause that seems longer than any was begun before the clock was set back: it is over.
    const fn is_paused(&self, now: UnixSeconds) -> bool {
        let left = self.until.saturating_since(now);
        left > 0 && left <= MOST_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use dht_core::test_util::public_key;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    #[test]
    fn pauses_grow_until_an_answer() {
        let (mut hang_ups, peer) = (HangUps::default(), public_key(1).node_id());
        for _ in 0..FREE {
            hang_ups.note(peer, NOW);
            assert!(hang_ups.may_ask(&peer, NOW));
        }
        for pause in [1, 2, 4] {
            hang_ups.note(peer, NOW);
            assert!(!hang_ups.may_ask(&peer, NOW));
            assert_eq!(hang_ups.due(NOW.saturating_add(pause - 1)), []);
            assert_eq!(hang_ups.due(NOW.saturating_add(pause)), [peer]);
            assert_eq!(hang_ups.due(NOW.saturating_add(pause)), []);
        }
        for _ in 0..100 {
            hang_ups.note(peer, NOW);
        }
        assert!(!hang_ups.may_ask(&peer, NOW.saturating_add(MOST_SECONDS - 1)));
        assert!(hang_ups.may_ask(&peer, NOW.saturating_add(MOST_SECONDS)));
        assert!(hang_ups.may_ask(&peer, UnixSeconds(NOW.0 - 1)));
        hang_ups.remove(&peer);
        assert!(hang_ups.may_ask(&peer, NOW));
    }

    #[test]
    fn remembered_peers_are_bounded() {
        let mut hang_ups = HangUps::default();
        for seed in 0..=u64::try_from(MAX_PEERS).unwrap() {
            hang_ups.note(public_key(seed).node_id(), NOW);
        }
        assert_eq!(hang_ups.0.len(), 1);
    }
}
