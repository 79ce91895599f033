//! The first peers, and the way back when all are lost: anchors, then the pools, then seeds, those named in DNS last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dht_core::NodeId;
use rand_core::Rng;
use tokio::time::Instant;

use crate::{pools::cooldown::jittered, view::View};

/// How long the peers that are known already have before seeds are asked, and these before names are looked up.
const GRACE: Duration = Duration::from_secs(3);
/// Pause after the first dial of a seed, or the first look-up of a name.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between two dials of a seed, or two look-ups of a name.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Longest pause between two dials of a seed while nobody is connected: the way back after an outage of this node.
const LONGEST_PAUSE_ALONE: Duration = Duration::from_secs(30);
/// Seeds that are dialled at once.
const SEEDS_AT_ONCE: usize = 3;
/// Seeds above which none that a name stands for is added.
const MAX_KNOWN_SEEDS: usize = 200;

/// The peers at which a node begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapPeers {
    /// Peers of an earlier run that are dialled first.
    pub anchors: Vec<NodeId>,
    /// Peers that are dialled when nobody else answers. The directory has their addresses.
    pub seeds: Vec<NodeId>,
    /// Names that stand for further seeds, looked up when nobody else answers.
    pub names: Vec<String>,
}

/// Decides when anchors and seeds are dialled, and names of seeds looked up.
#[derive(Debug)]
pub struct Bootstrap {
    anchors: Vec<NodeId>,
    seeds: BTreeMap<NodeId, Attempts>,
    /// Those of them that a name stands for.
    found: BTreeSet<NodeId>,
    names: BTreeMap<String, Attempts>,
    /// Since when the node needs peers.
    needy: Option<Instant>,
}

/// Dials of a seed, or look-ups of a name, since the node last had what it needs.
#[derive(Debug, Default)]
struct Attempts {
    made: u32,
    next: Option<Instant>,
}

impl Attempts {
    fn is_due(&self, at: Instant) -> bool {
        self.next.is_none_or(|next| next <= at)
    }

    fn add(&mut self, at: Instant, longest: Duration, rng: &mut impl Rng) {
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.made.min(16))).min(longest);
        self.made = self.made.saturating_add(1);
        self.next = Some(at + jittered(pause, rng));
    }
}

impl Bootstrap {
    /// A node that has just started.
    #[must_use]
    pub fn new(bootstrap_peers: BootstrapPeers) -> Self {
        Self {
            anchors: bootstrap_peers.anchors,
            seeds: untried(bootstrap_peers.seeds),
            found: BTreeSet::new(),
            names: untried(bootstrap_peers.names),
            needy: None,
        }
    }

    /// Takes in whether too few nodes are connected, with pools that know nobody else. Asked before
    /// [`dials`](Self::dials) and [`names`](Self::names).
    pub fn on_need(&mut self, needs_peers: bool, view: &View<'_>) {
        if needs_peers {
            self.needy.get_or_insert(view.at);
            return;
        }
        self.needy = None;
        let (seeds, names) = (self.seeds.values_mut(), self.names.values_mut());
        seeds.chain(names).for_each(|attempts| attempts.made = 0);
    }

    /// Takes in a seed that a name stands for, which is dialled as the others until the node is online; false if there is no
    /// room for it.
    pub fn on_found(&mut self, seed: NodeId) -> bool {
        if self.seeds.contains_key(&seed) {
            return true;
        }
        let is_taken = self.seeds.len() < MAX_KNOWN_SEEDS;
        if is_taken {
            self.seeds.insert(seed, Attempts::default());
            self.found.insert(seed);
        }
        is_taken
    }

    /// Takes in that the node is online. Seeds that a name stands for are forgotten: it is looked up again when they are needed.
    pub fn on_online(&mut self) {
        for seed in std::mem::take(&mut self.found) {
            self.seeds.remove(&seed);
        }
    }

    /// The peers to dial now.
    pub fn dials(&mut self, view: &View<'_>, rng: &mut impl Rng) -> Vec<NodeId> {
        let mut dials = std::mem::take(&mut self.anchors);
        // Nobody else may be known: then nothing is waited for.
        let knows_others = !dials.is_empty() || view.directory.len() > self.seeds.len();
        let grace = if knows_others { GRACE } else { Duration::ZERO };
        if self.needy.is_none_or(|since| view.at < since + grace) {
            return dials;
        }
        let mut due: Vec<_> = self
            .seeds
            .iter_mut()
            .filter(|(id, dials)| !view.connected.contains(id) && dials.is_due(view.at))
            .map(|(id, dials)| (dials.made, rng.next_u32(), *id, dials))
            .collect();
        // The least tried first, those alike in any order.
        due.sort_by_key(|(tried, chance, ..)| (*tried, *chance));
        let longest = match view.connected.is_empty() {
            true => LONGEST_PAUSE_ALONE,
            false => LONGEST_PAUSE,
        };
        for (_, _, id, attempts) in due.into_iter().take(SEEDS_AT_ONCE) {
            attempts.add(view.at, longest, rng);
            dials.push(id);
        }
        dials
    }

    /// The names to look up now.
    pub fn names(&mut self, view: &View<'_>, rng: &mut impl Rng) -> Vec<String> {
        let knows_others = !view.directory.is_empty();
        let grace = if knows_others {
            2 * GRACE
        } else {
            Duration::ZERO
        };
        if self.needy.is_none_or(|since| view.at < since + grace) {
            return Vec::new();
        }
        let due = self.names.iter_mut();
        due.filter(|(_, lookups)| lookups.is_due(view.at))
            .map(|(name, lookups)| {
                lookups.add(view.at, LONGEST_PAUSE, rng);
                name.clone()
            })
            .collect()
    }

    /// When [`dials`](Self::dials) or [`names`](Self::names) may have more to say.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let since = self.needy?;
        let next = |attempts: &Attempts, grace| attempts.next.unwrap_or(since).max(since + grace);
        let seeds = self.seeds.values().map(|dials| next(dials, GRACE));
        let names = self.names.values().map(|lookups| next(lookups, 2 * GRACE));
        seeds.chain(names).min()
    }
}

fn untried<T: Ord>(all: Vec<T>) -> BTreeMap<T, Attempts> {
    let all = all.into_iter();
    all.map(|one| (one, Attempts::default())).collect()
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, SeededEntropy};

    use super::*;
    use crate::test_util::Net;

    fn bootstrap_peers(anchors: &[NodeId], seeds: &[NodeId], names: &[&str]) -> BootstrapPeers {
        BootstrapPeers {
            anchors: anchors.to_vec(),
            seeds: seeds.to_vec(),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn seeds_come_after_anchors() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let (anchor, seed) = (net.know(1), net.know(2));
        let mut bootstrap = Bootstrap::new(bootstrap_peers(&[anchor], &[seed], &[]));
        bootstrap.on_need(true, &net.view());
        assert_eq!(bootstrap.dials(&net.view(), &mut rng), [anchor]);
        net.pass(GRACE);
        assert_eq!(bootstrap.dials(&net.view(), &mut rng), [seed]);
        assert_eq!(bootstrap.dials(&net.view(), &mut rng), []);
        let mut without = Bootstrap::new(bootstrap_peers(&[], &[seed], &[]));
        without.on_need(false, &net.view());
        net.pass(GRACE);
        assert_eq!(without.dials(&net.view(), &mut rng), []);
    }

    #[test]
    fn seeds_are_dialled_at_once_alone() {
        let (net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let seed = net.know(1);
        let mut bootstrap = Bootstrap::new(bootstrap_peers(&[], &[seed], &[]));
        bootstrap.on_need(true, &net.view());
        assert_eq!(bootstrap.dials(&net.view(), &mut rng), [seed]);
    }

    /// Names are looked up once the seeds have had their time, at once if there are none, and what they stand for is a seed.
    #[test]
    fn names_come_after_seeds() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let mut alone = Bootstrap::new(bootstrap_peers(&[], &[], &["a", "b"]));
        alone.on_need(true, &net.view());
        assert_eq!(alone.names(&net.view(), &mut rng), ["a", "b"]);
        assert!(alone.names(&net.view(), &mut rng).is_empty());
        let seed = net.know(1);
        let mut bootstrap = Bootstrap::new(bootstrap_peers(&[], &[seed], &["a"]));
        bootstrap.on_need(true, &net.view());
        assert_eq!(bootstrap.dials(&net.view(), &mut rng), [seed]);
        assert!(bootstrap.names(&net.view(), &mut rng).is_empty());
        net.pass(2 * GRACE);
        assert_eq!(bootstrap.names(&net.view(), &mut rng), ["a"]);
        let found = net.know(2);
        assert!(bootstrap.on_found(found));
        // The least tried first.
        let dials = bootstrap.dials(&net.view(), &mut rng);
        assert_eq!(dials.first(), Some(&found));
        bootstrap.on_need(false, &net.view());
        net.pass(LONGEST_PAUSE * 2);
        assert!(bootstrap.names(&net.view(), &mut rng).is_empty());
    }

    /// A name that stands for ever more seeds takes no more than its room, and that only until the node is online.
    #[test]
    fn found_seeds_are_bounded() {
        let net = Net::new();
        let mut bootstrap = Bootstrap::new(BootstrapPeers::default());
        let taken = (0..1_000).filter(|seed| bootstrap.on_found(net.id(*seed)));
        assert_eq!(taken.count(), MAX_KNOWN_SEEDS);
        bootstrap.on_online();
        let taken = (1_000..2_000).filter(|seed| bootstrap.on_found(net.id(*seed)));
        assert_eq!(taken.count(), MAX_KNOWN_SEEDS);
    }

    /// A node without anybody dials its seeds again and again, at most every five and at least every forty seconds.
    #[test]
    fn lost_nodes_back_off() {
        let (mut net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
        let seeds: Vec<_> = (1..=9).map(|seed| net.know(seed)).collect();
        let mut bootstrap = Bootstrap::new(bootstrap_peers(&[], &seeds, &[]));
        let mut last = BTreeMap::new();
        for second in 0..3_600 {
            bootstrap.on_need(true, &net.view());
            for id in bootstrap.dials(&net.view(), &mut rng) {
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
