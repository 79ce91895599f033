//! Feelers: dials that test peers of which this node has only heard, one at a time, as in Bitcoin.

use std::{collections::VecDeque, time::Duration};

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

use crate::{config::Config, pools::cooldown::jittered, view::View};

/// How long a feeler that connected stays, so that the pools may keep it and be told by it.
const STAY: Duration = Duration::from_secs(20);
/// Successes that make up for a failure: of the feelers of a node, four in five connect, or they get rare.
const FAILURE_COST: u32 = 4;
/// Longest pause, in usual ones.
const LONGEST_PAUSE: u32 = 32;

/// Decides whom a feeler is sent to, and when: at once to a node that is nearer than a neighbour, as long as feelers connect, and
/// now and then to any other.
#[derive(Debug)]
pub struct Feelers {
    /// Usual pause between two; zero for none.
    every: Duration,
    /// Failures that no successes made up for, each [`FAILURE_COST`]; pauses are longer by as many usual ones.
    excess: u32,
    next: Option<Instant>,
    /// The one that was dialled last, while it is not told what became of it.
    dialled: Option<NodeId>,
    /// Those that connected, and when they are closed if nobody wants them, the first to be closed first.
    connected: VecDeque<(NodeId, Instant)>,
}

impl Feelers {
    /// No feeler is under way; the first to nobody in particular is sent after one pause.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            every: Duration::from_secs(config.feeler_seconds),
            excess: 0,
            next: None,
            dialled: None,
            connected: VecDeque::new(),
        }
    }

    /// The peer to dial now, if it is time. `nearer` is a node that would be a neighbour if it connected.
    pub fn dial(
        &mut self,
        nearer: Option<NodeId>,
        view: &View<'_>,
        rng: &mut impl Rng,
    ) -> Option<NodeId> {
        if self.every.is_zero() || self.dialled.is_some() {
            return None;
        }
        let pause = self.every * (1 + self.excess);
        let due = *self
            .next
            .get_or_insert_with(|| view.at + jittered(pause, rng));
        let is_due = due <= view.at;
        if is_due {
            self.next = Some(view.at + jittered(pause, rng));
        }
        let nearer = nearer.filter(|_| is_due || self.excess == 0);
        let drawn = || Some(*view.random_heard_of(1, &[], rng).first()?.node_id());
        let peer = nearer.or_else(|| is_due.then(drawn).flatten());
        self.dialled = peer.filter(|id| !view.connected.contains(id));
        self.dialled
    }

    /// The dial of a peer gave a connection.
    pub fn on_connected(&mut self, peer: &NodeId, at: Instant) {
        if let Some(peer) = self.dialled.take_if(|dialled| dialled == peer) {
            self.excess = self.excess.saturating_sub(1);
            self.connected.push_back((peer, at + STAY));
        }
    }

    /// The dial of a peer gave no connection.
    pub fn on_failed(&mut self, peer: &NodeId, at: Instant, rng: &mut impl Rng) {
        if self.dialled.take_if(|dialled| dialled == peer).is_some() {
            self.excess = (self.excess + FAILURE_COST).min(LONGEST_PAUSE - 1);
            self.next = Some(at + jittered(self.every * (1 + self.excess), rng));
        }
    }

    /// The dial of a peer was not made.
    pub fn on_refused(&mut self, peer: &NodeId) {
        self.dialled.take_if(|dialled| dialled == peer);
    }

    /// A peer that connected because of a feeler and whose connection may be closed.
    pub fn done(&mut self, at: Instant) -> Option<NodeId> {
        let is_over = |(_, until): &mut (NodeId, Instant)| *until <= at;
        let (peer, _) = self.connected.pop_front_if(is_over)?;
        Some(peer)
    }

    /// When [`dial`](Self::dial) or [`done`](Self::done) may have something to say.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.next.filter(|_| self.dialled.is_none());
        let until = self.connected.front().map(|(_, until)| *until);
        [next, until].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;
    use crate::test_util::Net;

    /// Sends feelers for so many minutes, of which every `bad`-th fails; how many were sent, and how many failed.
    fn feel(nearer: Option<u64>, bad: usize, minutes: u64) -> (usize, usize) {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        net.know(1);
        for seed in 2..50 {
            net.hear_of(seed);
        }
        let mut feelers = Feelers::new(&Config::default());
        let (mut sent, mut failed) = (0, 0);
        for _ in 0..minutes * 60 {
            let nearer = nearer.map(|seed| net.id(seed));
            if let Some(peer) = feelers.dial(nearer, &net.view(), &mut rng) {
                sent += 1;
                assert_ne!(peer, net.id(1), "proven");
                assert_eq!(feelers.dial(nearer, &net.view(), &mut rng), None);
                if sent % bad == 0 {
                    failed += 1;
                    feelers.on_failed(&peer, net.at(), &mut rng);
                } else {
                    feelers.on_connected(&peer, net.at());
                }
            }
            net.pass(Duration::from_secs(1));
            while let Some(peer) = feelers.done(net.at()) {
                assert_ne!(peer, net.id(1));
            }
        }
        (sent, failed)
    }

    #[test]
    fn feelers_are_slow_and_single() {
        let (sent, failed) = feel(None, usize::MAX, 60);
        assert!((26..=34).contains(&sent) && failed == 0, "{sent}");
    }

    #[test]
    fn nearer_nodes_are_felt_at_once() {
        let (sent, failed) = feel(Some(2), usize::MAX, 1);
        assert_eq!((sent, failed), (60, 0));
    }

    /// Pauses of 2, 10, 18 … 64 minutes.
    #[test]
    fn feelers_that_fail_get_rare() {
        for nearer in [None, Some(2)] {
            let (sent, failed) = feel(nearer, 1, 24 * 60);
            assert!(sent == failed && (20..=36).contains(&sent), "{sent}");
        }
        let (sent, failed) = feel(Some(2), 2, 24 * 60);
        assert!(failed * 2 <= sent && sent < 100, "{sent}");
    }

    #[test]
    fn refused_feelers_cost_nothing() {
        let (net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let peer = net.hear_of(1);
        let mut feelers = Feelers::new(&Config::default());
        for _ in 0..2 {
            let dialled = feelers.dial(Some(peer), &net.view(), &mut rng);
            assert_eq!(dialled, Some(peer));
            feelers.on_refused(&peer);
        }
    }
}
