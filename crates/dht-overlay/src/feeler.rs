//! Feelers: dials that test peers of which this node has only heard, one at a time and slowly, as in Bitcoin.

use std::time::Duration;

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

use crate::{config::Config, pools::cooldown::jittered, view::View};

/// How long a feeler that connected stays, so that the pools may keep it and be told by it.
const STAY: Duration = Duration::from_secs(20);

/// Decides whom a feeler is sent to.
#[derive(Debug)]
pub struct Feelers {
    /// Pause between two; zero for none.
    every: Duration,
    next: Option<Instant>,
    /// The one that was dialled last, while it is not told what became of it.
    dialled: Option<NodeId>,
    /// One that connected, and when it is closed if nobody wants it.
    connected: Option<(NodeId, Instant)>,
}

impl Feelers {
    /// No feeler is under way; the first is sent after one pause.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            every: Duration::from_secs(config.feeler_seconds),
            next: None,
            dialled: None,
            connected: None,
        }
    }

    /// The peer to dial now, if it is time.
    pub fn dial(&mut self, view: &View<'_>, rng: &mut impl Rng) -> Option<NodeId> {
        if self.every.is_zero() || self.dialled.is_some() {
            return None;
        }
        let due = *self
            .next
            .get_or_insert_with(|| view.at + jittered(self.every, rng));
        if view.at < due {
            return None;
        }
        self.next = Some(view.at + jittered(self.every, rng));
        let drawn = view.random_heard_of(1, &[], rng);
        let drawn = drawn.first().map(|record| *record.node_id());
        self.dialled = drawn.filter(|id| !view.connected.contains(id));
        self.dialled
    }

    /// A dial of this peer has ended.
    pub fn on_dialled(&mut self, peer: &NodeId, is_connected: bool, at: Instant) {
        if let Some(peer) = self.dialled.take_if(|dialled| dialled == peer)
            && is_connected
        {
            self.connected = Some((peer, at + STAY));
        }
    }

    /// A peer that connected because of a feeler and whose connection may be closed.
    pub fn done(&mut self, at: Instant) -> Option<NodeId> {
        let (peer, _) = self.connected.take_if(|(_, until)| *until <= at)?;
        Some(peer)
    }

    /// When [`dial`](Self::dial) or [`done`](Self::done) may have something to say.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.next.filter(|_| self.dialled.is_none());
        let until = self.connected.map(|(_, until)| until);
        [next, until].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;
    use crate::test_util::Net;

    #[test]
    fn feelers_are_slow_and_single() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        net.know(1);
        for seed in 2..50 {
            net.hear_of(seed);
        }
        let mut feelers = Feelers::new(&Config::default());
        let mut dials = 0;
        for _ in 0..3_600 {
            if let Some(peer) = feelers.dial(&net.view(), &mut rng) {
                dials += 1;
                assert_ne!(peer, net.id(1), "proven");
                assert_eq!(feelers.dial(&net.view(), &mut rng), None);
                feelers.on_dialled(&peer, dials % 2 == 0, net.at());
            }
            net.pass(Duration::from_secs(1));
            if let Some(peer) = feelers.done(net.at()) {
                assert!(dials % 2 == 0 && peer != net.id(1));
            }
        }
        assert!((26..=34).contains(&dials), "{dials}");
    }
}
