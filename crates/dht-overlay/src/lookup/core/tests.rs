//! Lookups in modelled networks, whose nodes know their neighbours and some others.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use dht_core::{Entropy as _, SeededEntropy};
use proptest::prelude::*;
use rand_core::Rng;

use super::*;

/// Live nodes of a network.
const LIVE: usize = 500;
/// Time until a live node answers, and until one that is gone counts as failed.
const ANSWER: Duration = Duration::from_millis(100);
const GONE: Duration = Duration::from_secs(5);

struct Network {
    /// Nodes that each live node knows; the others are gone.
    known: BTreeMap<NodeId, Vec<NodeId>>,
    rng: Box<dyn Rng>,
}

/// A lookup that has ended.
struct Ended {
    lookup: Lookup,
    /// Nodes in the order in which they were asked.
    asked: Vec<NodeId>,
    took: Duration,
}

fn random_id(rng: &mut impl Rng) -> NodeId {
    let mut bytes = [0; NodeId::LENGTH];
    rng.fill_bytes(&mut bytes);
    NodeId::from_bytes(&bytes).unwrap()
}

fn pick(rng: &mut (impl Rng + ?Sized), ids: &[NodeId]) -> NodeId {
    ids[rng.next_u32() as usize % ids.len()]
}

fn nearest(ids: &[NodeId], target: &NodeId, n: usize) -> Vec<NodeId> {
    let mut ids = ids.to_vec();
    ids.sort_by_key(|id| target.distance(id));
    ids.truncate(n);
    ids
}

/// Each id in a network of its own.
fn candidate(id: NodeId) -> Candidate {
    let [a, b, c, d, ..] = *id.as_bytes();
    Candidate {
        id,
        network: NetGroup::V6([a, b, c, d]),
    }
}

impl Network {
    /// Nodes that know the 20 nearest to them and 40 others, of which so many of ten are gone.
    fn new(seed: u64, gone: usize) -> Self {
        let mut rng = SeededEntropy::new(seed).rng();
        let mut live: Vec<_> = (0..LIVE).map(|_| random_id(&mut rng)).collect();
        live.sort_unstable();
        let others = LIVE * gone / (10 - gone);
        let mut all: Vec<_> = (0..others).map(|_| random_id(&mut rng)).collect();
        all.extend(&live);
        all.sort_unstable();
        let mut known = BTreeMap::new();
        for id in &live {
            // The nearest of all: they have the longest common prefixes, and so are neighbours in the order.
            let at = all.binary_search(id).unwrap();
            let around = &all[at.saturating_sub(100)..(at + 100).min(all.len())];
            let mut knows = nearest(around, id, 21);
            for _ in 0..40 {
                knows.push(pick(&mut rng, &all));
            }
            knows.retain(|other| other != id);
            known.insert(*id, knows);
        }
        let rng = Box::new(rng);
        Self { known, rng }
    }

    fn live(&self) -> Vec<NodeId> {
        self.known.keys().copied().collect()
    }

    /// Some nodes that a newcomer knows.
    fn starts(&mut self) -> Vec<Candidate> {
        let live = self.live();
        let start = |_| pick(&mut *self.rng, &live);
        (0..4).map(start).map(candidate).collect()
    }

    fn answer(&self, of: &NodeId, target: &NodeId, k: usize) -> Option<Vec<Candidate>> {
        let known = nearest(self.known.get(of)?, target, k);
        Some(known.into_iter().map(candidate).collect())
    }

    fn run(&mut self, target: NodeId) -> Ended {
        let starts = self.starts();
        self.run_with(target, starts, |_, _| None)
    }

    /// Runs a lookup in which some nodes answer what `lie` says.
    fn run_with(
        &self,
        target: NodeId,
        starts: Vec<Candidate>,
        mut lie: impl FnMut(&NodeId, &NodeId) -> Option<Vec<Candidate>>,
    ) -> Ended {
        let config = LookupConfig::default();
        let mut lookup = Lookup::new(target, config, starts);
        let (begin, mut asked) = (Instant::now(), Vec::new());
        let mut now = begin;
        let mut pending: Vec<(Instant, NodeId, Option<Vec<Candidate>>)> = Vec::new();
        loop {
            while let Some(id) = lookup.next(now) {
                let answer = lie(&id, &target).or_else(|| self.answer(&id, &target, config.k));
                let after = if answer.is_some() { ANSWER } else { GONE };
                pending.push((now + after, id, answer));
                asked.push(id);
            }
            let due = pending.iter().map(|(at, ..)| *at).min();
            let Some(due) = due else {
                break;
            };
            now = lookup.next_slow(now).map_or(due, |slow| slow.min(due));
            let mut at = 0;
            while let Some((due, id, answer)) = pending.get(at).cloned() {
                if due > now {
                    at += 1;
                    continue;
                }
                pending.remove(at);
                match answer {
                    Some(told) => lookup.answered(&id, told),
                    None => lookup.failed(&id),
                }
            }
        }
        Ended {
            lookup,
            asked,
            took: now - begin,
        }
    }
}

/// With everybody there, and with three entries of five gone. Whom a newcomer knows decides what a single lookup finds, so
/// that 64 of each kind are judged together: nearly all find the nearest node, and most of the next seven.
#[test]
fn closest_nodes_are_found() {
    for gone in [0, 6] {
        let (mut first, mut hits) = (0, 0);
        for seed in 0..64 {
            let mut network = Network::new(seed, gone);
            let target = random_id(&mut network.rng);
            let ended = network.run(target);
            let expected = nearest(&network.live(), &target, 8);
            let found = ended.lookup.closest();
            first += usize::from(found.first() == expected.first());
            hits += expected.iter().filter(|id| found.contains(id)).count();
            assert!(ended.took < Duration::from_secs(40), "{:?}", ended.took);
        }
        assert!(first >= 63, "{first} of 64, {gone} of 10 gone");
        assert!(
            hits >= 64 * 8 * 98 / 100,
            "{hits} of 512, {gone} of 10 gone"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nobody_is_asked_twice(seed: u64) {
        let mut network = Network::new(seed, 3);
        let target = random_id(&mut network.rng);
        let ended = network.run(target);
        let distinct: HashSet<_> = ended.asked.iter().collect();
        prop_assert_eq!(distinct.len(), ended.asked.len());
        prop_assert!(ended.asked.len() <= LookupConfig::default().max_queries);
    }

    /// A node that is asked first on its path tells of nodes next to the target, all its own and in two networks.
    #[test]
    fn liar_does_not_take_every_path(seed: u64) {
        let mut network = Network::new(seed, 0);
        let target = random_id(&mut network.rng);
        let liar = network.live()[0];
        let own: Vec<_> = (1..=100_u8).map(|n| {
            let mut bytes = *target.as_bytes();
            bytes[12] ^= n;
            let network = NetGroup::V4([6, n % 2]);
            Candidate { id: NodeId::from_bytes(&bytes).unwrap(), network }
        }).collect();
        let lie = |id: &NodeId, _: &NodeId| {
            let is_own = *id == liar || own.iter().any(|own| own.id == *id);
            is_own.then(|| own.clone())
        };
        let mut starts = network.starts();
        starts.retain(|start| start.id != liar);
        starts.truncate(1);
        starts.push(candidate(liar));
        let ended = network.run_with(target, starts, lie);
        let honest = network.live();
        let expected = nearest(&honest, &target, 1);
        prop_assert!(ended.lookup.closest().contains(&expected[0]));
        let asked = ended.asked.iter().filter(|id| own.iter().any(|own| own.id == **id));
        prop_assert!(asked.count() <= 2 * LookupConfig::default().max_per_network);
    }
}

/// Each node tells of another, a little nearer, for ever.
#[test]
fn endless_chain_has_an_end() {
    let network = Network::new(1, 0);
    let target = NodeId::default();
    let at = |n: u8| {
        let mut bytes = [0; NodeId::LENGTH];
        bytes[0] = 255 - n;
        candidate(NodeId::from_bytes(&bytes).unwrap())
    };
    let lie = |id: &NodeId, _: &NodeId| {
        let n = 255 - id.as_bytes()[0];
        Some(vec![at(n.saturating_add(1))])
    };
    let ended = network.run_with(target, vec![at(0)], lie);
    assert_eq!(ended.asked.len(), LookupConfig::default().max_hops + 1);
}

/// The record of a target that did not answer has changed.
#[test]
fn renewed_node_is_asked_again() {
    let (target, now) = (NodeId::default(), Instant::now());
    let mut lookup = Lookup::new(target, LookupConfig::default(), [candidate(target)]);
    assert_eq!(lookup.next(now), Some(target));
    assert_eq!(lookup.next(now), None);
    // Not while it is being asked.
    lookup.renew(&target);
    assert_eq!(lookup.next(now), None);
    lookup.failed(&target);
    assert_eq!(lookup.next(now), None);
    lookup.renew(&target);
    assert_eq!(lookup.next(now), Some(target));
    assert!(lookup.closest().is_empty());
}

#[test]
fn no_more_than_alpha_at_once() {
    let config = LookupConfig::default();
    let ids = (0..40_u8).map(|n| candidate(NodeId::from_bytes(&[n; NodeId::LENGTH]).unwrap()));
    let (target, mut now) = (NodeId::default(), Instant::now());
    let mut lookup = Lookup::new(target, config, ids);
    for slow in 1..=MOST_AT_ONCE {
        let asked = std::iter::from_fn(|| lookup.next(now)).count();
        assert_eq!(asked, config.alpha, "round {slow}");
        assert_eq!(lookup.next_slow(now), Some(now + config.slow));
        now += config.slow;
    }
    assert_eq!(lookup.next(now), None);
    assert_eq!(lookup.next_slow(now), None);
}
