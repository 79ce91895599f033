//! Peers that are left alone for a while after a dial of them failed.

use std::{collections::BTreeMap, time::Duration};

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

/// Pause after the first failure of a peer that answered before.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause of a peer that answered before.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Pause after the first failure of a peer that never answered.
const FIRST_PAUSE_OF_UNPROVEN: Duration = Duration::from_secs(10 * 60);
/// Longest pause of a peer that never answered (06 section 11, `offline_peer_cooldown`).
const LONGEST_PAUSE_OF_UNPROVEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest pause while this node is offline: the fault is then likely its own.
const LONGEST_PAUSE_OFFLINE: Duration = Duration::from_secs(60);
/// Time within which peers fail for the same reason, so that they come back together: a network that was cut finds itself again
/// soon after the first of them answers.
const TOGETHER: Duration = Duration::from_secs(2 * 60);
/// Peers that are remembered; beyond it the one whose pause ends first is forgotten.
const MAX_PEERS: usize = 1_024;

/// Peers that are left alone, with the time until then.
#[derive(Debug, Default)]
pub(crate) struct Cooldown(BTreeMap<NodeId, Pause>);

#[derive(Debug)]
struct Pause {
    /// Failures in a row.
    failures: u32,
    /// When the first of them was since the peer was connected.
    since: Option<Instant>,
    /// Whether the last of them was a connection that ended soon.
    is_short: bool,
    until: Instant,
}

/// Standing of a peer whose dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It answered before.
    Proven,
    /// Its connection has just ended, soon after it was made.
    Short,
    /// Others told of it.
    HeardOf,
    /// This node is offline, so that the failure says nothing of the peer.
    Outage,
}

impl Cooldown {
    /// A dial of this peer failed: the pause doubles each time, give or take a quarter.
    pub(crate) fn failed(&mut self, peer: NodeId, known: Known, at: Instant, rng: &mut impl Rng) {
        let before = self.0.get(&peer).map_or(0, |pause| pause.failures);
        let (first, longest) = match known {
            Known::Proven | Known::Short => (FIRST_PAUSE, LONGEST_PAUSE),
            Known::HeardOf => (FIRST_PAUSE_OF_UNPROVEN, LONGEST_PAUSE_OF_UNPROVEN),
            Known::Outage => (FIRST_PAUSE, LONGEST_PAUSE_OFFLINE),
        };
        let pause = (first * 2_u32.saturating_pow(before.min(16))).min(longest);
        let since = self.0.get(&peer).and_then(|pause| pause.since);
        let pause = Pause {
            failures: before.saturating_add(1),
            since: since.or(Some(at)),
            is_short: known == Known::Short,
            until: at + jittered(pause, rng),
        };
        self.set(peer, pause);
    }

    /// Leaves a peer alone that did nothing wrong.
    pub(crate) fn rest(&mut self, peer: NodeId, until: Instant) {
        let before = self.0.get(&peer);
        let pause = Pause {
            failures: before.map_or(0, |pause| pause.failures),
            since: before.and_then(|pause| pause.since),
            is_short: before.is_some_and(|pause| pause.is_short),
            until,
        };
        self.set(peer, pause);
    }

    /// The peer is connected. Those that failed when it did are soon tried again. Its failures count until
    /// [`lasted`](Self::lasted).
    pub(crate) fn recovered(&mut self, peer: &NodeId, at: Instant, rng: &mut impl Rng) {
        let Some(pause) = self.0.get_mut(peer) else {
            return;
        };
        pause.until = at;
        let Some(failed) = pause.since.take() else {
            return;
        };
        for pause in self.0.values_mut() {
            let is_together = |since: Instant| failed.max(since) - failed.min(since) <= TOGETHER;
            if pause.since.is_some_and(is_together) {
                pause.until = pause.until.min(at + jittered(FIRST_PAUSE, rng));
            }
        }
    }

    /// The peer was connected for a while: its failures are forgotten.
    pub(crate) fn lasted(&mut self, peer: &NodeId) {
        self.0.remove(peer);
    }

    /// This node was offline: dials that failed meanwhile say nothing of the peers.
    pub(crate) fn forgive(&mut self) {
        self.0.retain(|_, pause| pause.is_short);
    }

    /// Whether a peer is left alone because its connections end soon.
    pub(crate) fn is_short(&self, peer: &NodeId, at: Instant) -> bool {
        let pause = self.0.get(peer);
        pause.is_some_and(|pause| pause.is_short && pause.until > at)
    }

    /// Peers that are left alone now.
    pub(crate) fn peers(&self, at: Instant) -> impl Iterator<Item = NodeId> {
        let paused = self.0.iter().filter(move |(_, pause)| pause.until > at);
        paused.map(|(id, _)| *id)
    }

    /// When the next pause after `at` ends.
    pub(crate) fn next(&self, at: Instant) -> Option<Instant> {
        let ends = self.0.values().map(|pause| pause.until);
        ends.filter(|until| *until > at).min()
    }

    fn set(&mut self, peer: NodeId, pause: Pause) {
        self.0.insert(peer, pause);
        if self.0.len() > MAX_PEERS {
            let first = self.0.iter().min_by_key(|(_, pause)| pause.until);
            if let Some(id) = first.map(|(id, _)| *id) {
                self.0.remove(&id);
            }
        }
    }
}

/// The duration give or take a quarter.
pub(crate) fn jittered(duration: Duration, rng: &mut impl Rng) -> Duration {
    let share = 0.75 + f64::from(rng.next_u32()) / f64::from(u32::MAX) / 2.0;
    duration.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;

    fn id(n: u16) -> NodeId {
        let mut bytes = [0; 13];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(&bytes).unwrap()
    }

    /// Pauses in seconds of a peer that fails again and again.
    fn pauses(known: Known) -> Vec<u64> {
        let (mut cooldown, mut rng) = (Cooldown::default(), SeededEntropy::new(1).rng());
        let mut at = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            cooldown.failed(id(1), known, at, &mut rng);
            let until = cooldown.next(at).unwrap();
            pauses.push((until - at).as_secs());
            assert!(cooldown.peers(at).eq([id(1)]));
            at = until;
            assert_eq!(cooldown.peers(at).count(), 0);
        }
        pauses
    }

    #[test]
    fn failures_make_pauses_longer() {
        for (known, first, longest) in [
            (Known::Proven, 15, 3_600),
            (Known::HeardOf, 600, 86_400),
            (Known::Outage, 15, 60),
        ] {
            let pauses = pauses(known);
            let near =
                |expected: u64, found: u64| (expected * 3 / 4..=expected * 5 / 4).contains(&found);
            assert!(near(first, pauses[0]), "{pauses:?}");
            assert!(near(first * 2, pauses[1]), "{pauses:?}");
            assert!(near(longest, pauses[11]), "{pauses:?}");
        }
    }

    /// A cut that lasts an hour ends: the first peer that answers says so for all that it hid, and for no other.
    #[test]
    fn peers_lost_together_return_together() {
        let (mut cooldown, mut rng) = (Cooldown::default(), SeededEntropy::new(1).rng());
        let minute = Duration::from_secs(60);
        let start = Instant::now();
        cooldown.failed(id(9), Known::Proven, start, &mut rng);
        for minutes in [30, 31, 35, 40, 50, 70] {
            for n in [1, 2, 3, 9] {
                cooldown.failed(id(n), Known::Proven, start + minute * minutes, &mut rng);
            }
        }
        let end = start + minute * 71;
        assert_eq!(cooldown.peers(end).count(), 4);
        cooldown.recovered(&id(1), end, &mut rng);
        assert!(cooldown.peers(end + minute).eq([id(9)]));
    }

    #[test]
    fn short_connections_forgive_nothing() {
        let (mut cooldown, mut rng) = (Cooldown::default(), SeededEntropy::new(1).rng());
        let (start, hour) = (Instant::now(), Duration::from_secs(60 * 60));
        for _ in 0..12 {
            cooldown.failed(id(1), Known::Short, start, &mut rng);
            cooldown.recovered(&id(1), start, &mut rng);
            assert_eq!(cooldown.peers(start).count(), 0);
            cooldown.forgive();
        }
        cooldown.failed(id(1), Known::Short, start, &mut rng);
        assert!(cooldown.is_short(&id(1), start));
        assert!(cooldown.next(start).unwrap() >= start + hour / 2);
        cooldown.lasted(&id(1));
        cooldown.failed(id(1), Known::Proven, start, &mut rng);
        assert!(cooldown.next(start).unwrap() <= start + hour / 60);
    }

    #[test]
    fn remembered_failures_are_bounded() {
        let (mut cooldown, mut rng) = (Cooldown::default(), SeededEntropy::new(1).rng());
        let at = Instant::now();
        for n in 0..2_000 {
            cooldown.failed(id(n), Known::Proven, at, &mut rng);
        }
        assert_eq!(cooldown.peers(at).count(), MAX_PEERS);
        let one = cooldown.peers(at).next().unwrap();
        cooldown.recovered(&one, at, &mut rng);
        assert_eq!(cooldown.peers(at).count(), MAX_PEERS - 1);
        cooldown.lasted(&one);
        cooldown.forgive();
        assert_eq!(cooldown.next(at), None);
    }
}
