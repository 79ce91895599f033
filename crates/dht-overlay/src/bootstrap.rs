//! The first peers, and the way back when all are lost: anchors, then the pools, then seeds.

use std::{collections::BTreeMap, time::Duration};

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

use crate::{pools::cooldown::jittered, view::View};

/// How long the peers that are known already have before seeds are asked.
const GRACE: Duration = Duration::from_secs(3);
/// Pause after the first dial of a seed.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between two dials of a seed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Longest pause while nobody is connected: the way back after an outage of this node.
const LONGEST_PAUSE_ALONE: Duration = Duration::from_secs(30);
/// Seeds that are dialled at once.
const SEEDS_AT_ONCE: usize = 3;

/// Decides when anchors and seeds are dialled.
#[derive(Debug)]
pub struct Bootstrap {
    /// Peers of an earlier run that are tried first.
    anchors: Vec<NodeId>,
    seeds: BTreeMap<NodeId, Seed>,
    /// Since when the node needs peers.
    needy: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seed {
    /// Dials since the node last had what it needs.
    dials: u32,
    next: Option<Instant>,
}

impl Bootstrap {
    /// A node that has just started.
    #[must_use]
    pub fn new(
        anchors: impl IntoIterator<Item = NodeId>,
        seeds: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let seeds = seeds.into_iter().map(|id| (id, Seed::default()));
        Self {
            anchors: anchors.into_iter().collect(),
            seeds: seeds.collect(),
            needy: None,
        }
    }

    /// The peers to dial now. `needs_peers` says that too few nodes are connected, and that the pools know nobody else.
    pub fn dials(&mut self, needs_peers: bool, view: &View<'_>, rng: &mut impl Rng) -> Vec<NodeId> {
        let mut dials = std::mem::take(&mut self.anchors);
        if !needs_peers {
            self.needy = None;
            self.seeds.values_mut().for_each(|seed| seed.dials = 0);
            return dials;
        }
        // Nobody else may be known: then nothing is waited for.
        let knows_others = !dials.is_empty() || view.directory.len() > self.seeds.len();
        let grace = if knows_others { GRACE } else { Duration::ZERO };
        let since = *self.needy.get_or_insert(view.at);
        if view.at < since + grace {
            return dials;
        }
        let is_alone = view.connected.is_empty();
        let mut due: Vec<_> = self
            .seeds
            .iter_mut()
            .filter(|(id, seed)| {
                !view.connected.contains(id) && seed.next.is_none_or(|next| next <= view.at)
            })
            .map(|(id, seed)| (seed.dials, rng.next_u32(), *id, seed))
            .collect();
        // The least tried first, those alike in any order.
        due.sort_by_key(|(tried, chance, ..)| (*tried, *chance));
        for (_, _, id, seed) in due.into_iter().take(SEEDS_AT_ONCE) {
            let longest = if is_alone {
                LONGEST_PAUSE_ALONE
            } else {
                LONGEST_PAUSE
            };
            let pause = (FIRST_PAUSE * 2_u32.saturating_pow(seed.dials.min(16))).min(longest);
            seed.dials += 1;
            seed.next = Some(view.at + jittered(pause, rng));
            dials.push(id);
        }
        dials
    }

    /// When [`dials`](Self::dials) may have more to say.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let since = self.needy?;
        let next = self.seeds.values().map(|seed| seed.next.unwrap_or(since));
        Some(next.min()?.max(since + GRACE))
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;
    use crate::test_util::Net;

    #[test]
    fn seeds_come_after_anchors() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let (anchor, seed) = (net.know(1), net.know(2));
        let mut bootstrap = Bootstrap::new([anchor], [seed]);
        assert_eq!(bootstrap.dials(true, &net.view(), &mut rng), [anchor]);
        net.pass(GRACE);
        assert_eq!(bootstrap.dials(true, &net.view(), &mut rng), [seed]);
        assert_eq!(bootstrap.dials(true, &net.view(), &mut rng), []);
        let mut without = Bootstrap::new([], [seed]);
        net.pass(GRACE);
        assert_eq!(without.dials(false, &net.view(), &mut rng), []);
    }

    #[test]
    fn seeds_are_dialled_at_once_alone() {
        let (net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let seed = net.know(1);
        let mut bootstrap = Bootstrap::new([], [seed]);
        assert_eq!(bootstrap.dials(true, &net.view(), &mut rng), [seed]);
    }

    /// A node without anybody dials its seeds again and again, at most every five and at least every forty seconds.
    #[test]
    fn lost_nodes_back_off() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let seeds: Vec<_> = (1..=9).map(|seed| net.know(seed)).collect();
        let mut bootstrap = Bootstrap::new([], seeds);
        let mut last = BTreeMap::new();
        for second in 0..3_600 {
            for id in bootstrap.dials(true, &net.view(), &mut rng) {
                if let Some(before) = last.insert(id, second) {
                    let pause = second - before;
                    assert!((4..=40).contains(&pause), "{pause}");
                }
            }
            net.pass(Duration::from_secs(1));
        }
        assert!(last.len() == 9 && last.values().all(|second| second + 40 >= 3_600));
    }
}
