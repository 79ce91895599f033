use dht_core::{Entropy as _, Features, SeededEntropy};
use dht_peers::test_util::peer_at;
use proptest::prelude::*;

use super::*;
use crate::test_util::Net;

struct Test<R> {
    net: Net,
    pools: Pools,
    rng: R,
}

/// Pools of these sizes of the node 0, which knows nobody.
fn test(neighbours: usize, random_peers: usize) -> Test<impl Rng> {
    test_of(Config {
        neighbours,
        random_peers,
        ..Config::default()
    })
}

fn test_of(config: Config) -> Test<impl Rng> {
    Test {
        net: Net::new(),
        pools: Pools::new(NodeId::default(), &config, BTreeSet::new()),
        rng: SeededEntropy::new(1).rng(),
    }
}

impl<R: Rng> Test<R> {
    fn on(&mut self, event: PoolEvent) -> Vec<PoolAction> {
        self.pools.on(event, &self.net.view(), &mut self.rng)
    }

    fn start(&mut self) -> Vec<NodeId> {
        let actions = self.on(PoolEvent::Changed);
        dials(&actions)
    }

    /// The peer of this seed connects; whom that makes the pools dial.
    fn connect(&mut self, seed: u64) -> Vec<NodeId> {
        let id = self.net.connect_node(seed);
        dials(&self.on(PoolEvent::Connected(id)))
    }

    fn disconnect(&mut self, seed: u64, minimized: bool) -> Vec<NodeId> {
        self.net.disconnect(seed);
        let peer = self.net.id(seed);
        dials(&self.on(PoolEvent::Disconnected { peer, minimized }))
    }

    fn fail(&mut self, peer: NodeId) -> Vec<NodeId> {
        let is_local = false;
        dials(&self.on(PoolEvent::DialFailed { peer, is_local }))
    }

    /// Seeds of these peers, nearest first.
    fn sorted(&self, seeds: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        let mut seeds: Vec<_> = seeds.collect();
        seeds.sort_by_key(|seed| self.net.id(*seed));
        seeds
    }

    fn neighbours(&self) -> Vec<NodeId> {
        let members = self.pools.neighbours().members().iter();
        members.map(|member| member.id).collect()
    }
}

fn dials(actions: &[PoolAction]) -> Vec<NodeId> {
    let dials = actions.iter().filter_map(|action| match action {
        PoolAction::Dial(id) => Some(*id),
        PoolAction::Disconnect(_) => None,
    });
    dials.collect()
}

#[test]
fn dp40_nearest_nodes_are_dialled() {
    let mut test = test(4, 0);
    (1..=10).for_each(|seed| {
        test.net.know(seed);
    });
    let nearest = test.sorted(1..=10);
    let expected: Vec<_> = nearest.iter().map(|seed| test.net.id(*seed)).collect();
    assert_eq!(test.start(), expected[..4]);
    assert_eq!(test.start(), [], "under way");
}

/// A name of seeds that stands for peers which the node has met keeps none of them out of the pools, and once the node is
/// online none at all.
#[test]
fn found_seeds_bar_no_proven_peers() {
    let mut test = test(4, 0);
    let (proven, heard_of) = (test.net.know(1), test.net.hear_of(2));
    for seed in [proven, heard_of] {
        test.pools.on_found(seed, &test.net.view());
    }
    assert_eq!(test.start(), [proven]);
    test.pools.on_online();
    assert_eq!(test.start(), [heard_of]);
}

#[test]
fn dp41_lost_neighbour_is_redialled_once() {
    let mut test = test(5, 0);
    (1..=5).for_each(|seed| {
        test.net.know(seed);
    });
    test.start();
    (1..=5).for_each(|seed| assert_eq!(test.connect(seed), []));
    test.net.pass(Duration::from_secs(60));
    let lost = test.net.id(3);
    assert_eq!(test.disconnect(3, false), [lost]);
    assert_eq!(test.start(), []);
    assert_eq!(test.fail(lost), [], "left alone");
    test.net.pass(Duration::from_secs(20));
    assert_eq!(test.start(), [lost], "after a pause");
}

#[test]
fn dp42_minimised_neighbour_is_replaced() {
    let mut test = test(3, 0);
    (1..=4).for_each(|seed| {
        test.net.know(seed);
    });
    let nearest = test.sorted(1..=4);
    test.start();
    for seed in &nearest[..3] {
        test.connect(*seed);
    }
    test.net.pass(Duration::from_secs(60));
    let next = test.net.id(nearest[3]);
    assert_eq!(test.disconnect(nearest[1], true), [next]);
}

#[test]
fn dp43_near_client_is_ignored() {
    let mut test = test(2, 2);
    test.net.know(1);
    test.connect(1);
    let near = NodeId::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    test.net.connect(peer_at(near, Features::CLIENT));
    test.on(PoolEvent::Connected(near));
    assert_eq!(test.neighbours(), [test.net.id(1)]);
    assert_eq!(test.pools.random().members().len(), 0);
    test.net.connect(peer_at(near, Features::NODE));
    test.on(PoolEvent::Connected(near));
    assert_eq!(test.neighbours(), [near, test.net.id(1)]);
}

#[test]
fn dp45_empty_random_pool_stays_empty() {
    let mut test = test(1, 0);
    (1..=9).for_each(|seed| {
        test.net.know(seed);
    });
    test.start();
    test.connect(test.sorted(1..=9)[0]);
    for _ in 0..200 {
        test.net.pass(Duration::from_secs(120));
        assert_eq!(test.start(), []);
    }
    assert_eq!(test.pools.random().members().len(), 0);
}

/// Connected neighbours stay in the pool (N1), and a farther one is there until a nearer one is connected (N2).
#[test]
fn farther_neighbour_stays_until_replaced() {
    let mut test = test(2, 0);
    let nearest = test.sorted(1..=4);
    for seed in &nearest[2..] {
        test.net.know(*seed);
        test.connect(*seed);
    }
    let farther = [nearest[2], nearest[3]].map(|seed| test.net.id(seed));
    assert_eq!(test.neighbours(), farther);
    let near = [nearest[0], nearest[1]].map(|seed| test.net.know(seed));
    assert_eq!(test.start(), near[..1], "one at a time");
    assert_eq!(test.start(), []);
    assert_eq!(test.neighbours(), farther);
    assert_eq!(test.connect(nearest[0]), near[1..]);
    assert_eq!(test.neighbours(), [near[0], farther[0]]);
    assert_eq!(test.fail(near[1]), []);
    assert_eq!(test.neighbours(), [near[0], farther[0]]);
}

#[test]
fn tenured_neighbours_are_replaced_slowly() {
    let mut test = test(4, 0);
    let nearest = test.sorted(1..=40);
    for seed in &nearest[36..] {
        test.net.know(*seed);
        test.connect(*seed);
    }
    let tenured = test.neighbours();
    test.net.pass(TENURE);
    // As many keys near this node as somebody likes to make.
    for (minutes, kept) in [(0, 3), (9, 3), (11, 2), (15, 2), (22, 1)] {
        let mut until = test.net.at();
        while until < test.net.at() + Duration::from_secs(1) {
            for seed in &nearest[..36] {
                test.net.know(*seed);
                test.connect(*seed);
            }
            until += Duration::from_secs(1);
        }
        let still = test
            .neighbours()
            .iter()
            .filter(|id| tenured.contains(id))
            .count();
        assert_eq!(still, kept, "after {minutes} minutes");
        let next = [9, 2, 4, 7, 0][[0, 9, 11, 15, 22]
            .iter()
            .position(|m| *m == minutes)
            .unwrap()];
        test.net.pass(Duration::from_secs(60 * next));
    }
}

#[test]
fn one_network_takes_few_places() {
    let mut test = test(8, 4);
    for seed in 1..=100 {
        test.net
            .know_at(seed, &format!("/ip4/203.0.113.{seed}/tcp/5"));
    }
    for seed in 101..=106 {
        test.net
            .know_at(seed, &format!("/ip4/198.{seed}.100.1/tcp/5"));
    }
    let dialled = test.start();
    let of_one = (1..=100).filter(|seed| dialled.contains(&test.net.id(*seed)));
    assert_eq!(of_one.count(), 2 + 2);
    assert_eq!(test.pools.neighbours().room(), 0);
}

/// Dials that fail while this node has nobody are not held against the peers.
#[test]
fn own_outage_is_forgiven() {
    let mut test = test(4, 0);
    (1..=4).for_each(|seed| {
        test.net.know(seed);
    });
    test.start();
    (1..=4).for_each(|seed| {
        test.connect(seed);
    });
    test.net.pass(Duration::from_secs(3_600));
    test.net.disconnect_all();
    let mut dialled: Vec<_> = test.start();
    assert_eq!(dialled.len(), 4);
    for _ in 0..30 {
        for peer in std::mem::take(&mut dialled) {
            dialled.extend(test.fail(peer));
        }
        test.net.pass(Duration::from_secs(20));
        dialled.extend(test.start());
        assert!(dialled.len() <= 4);
    }
    test.connect(1);
    assert_eq!(
        test.pools.neighbours().room(),
        0,
        "the others are dialled at once"
    );
}

#[test]
fn random_peers_change_one_by_one() {
    let mut test = test(1, 4);
    for seed in 1..=60 {
        test.net.know(seed);
    }
    let connect_all = |test: &mut Test<_>, mut dialled: Vec<NodeId>| {
        let mut count = 0;
        while let Some(id) = dialled.pop() {
            count += 1;
            let seed = (1..=60).find(|seed| test.net.id(*seed) == id).unwrap();
            dialled.extend(test.connect(seed));
        }
        count
    };
    let dialled = test.start();
    connect_all(&mut test, dialled);
    let ids = |test: &Test<_>| -> BTreeSet<NodeId> {
        let members = test.pools.random().members().iter();
        members.map(|member| member.id).collect()
    };
    let mut before = ids(&test);
    assert_eq!(before.len(), 4);
    for _ in 0..12 {
        test.net.pass(Duration::from_secs(29 * 60));
        assert_eq!(test.start(), []);
        test.net.pass(Duration::from_secs(2 * 60));
        let dialled = test.start();
        let count = connect_all(&mut test, dialled);
        let after = ids(&test);
        assert_eq!(after.len(), 4);
        assert!(count <= 1 && before.intersection(&after).count() == 3);
        before = after;
    }
}

#[test]
fn spare_connections_are_closed() {
    let mut test = test_of(Config {
        neighbours: 2,
        random_peers: 0,
        minimize_connections: true,
        ..Config::default()
    });
    for seed in 1..=5 {
        test.net.know(seed);
        test.connect(seed);
    }
    assert_eq!(test.on(PoolEvent::Changed), []);
    test.net.pass(MINIMIZED_AGE);
    let farthest: Vec<_> = test.sorted(1..=5)[2..]
        .iter()
        .rev()
        .map(|seed| PoolAction::Disconnect(test.net.id(*seed)))
        .collect();
    assert_eq!(test.on(PoolEvent::Changed), farthest);
}

#[derive(Clone, Debug)]
enum Step {
    Know(u64),
    Hear(u64),
    Connect(u64),
    Disconnect(u64, bool),
    Fail(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let seed = 1..40_u64;
    prop_oneof![
        seed.clone().prop_map(Step::Know),
        seed.clone().prop_map(Step::Hear),
        seed.clone().prop_map(Step::Connect),
        (seed.clone(), any::<bool>())
            .prop_map(|(seed, minimized)| Step::Disconnect(seed, minimized)),
        seed.prop_map(Step::Fail),
        (1..1_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happens, pools keep their sizes and limits, hold nobody twice, know who is connected, wait for nobody whom they
    /// did not dial, and dial nobody who is connected or has just failed.
    #[test]
    fn pools_keep_their_promises(steps in prop::collection::vec(step(), 1..120)) {
        let mut test = test(4, 2);
        let mut under_way = BTreeSet::new();
        for step in steps {
            let actions = match step {
                Step::Know(seed) => {
                    test.net.know_at(seed, &format!("/ip4/203.{}.113.1/tcp/5", seed / 3));
                    test.on(PoolEvent::Changed)
                }
                Step::Hear(seed) => {
                    test.net.hear_of(seed);
                    test.on(PoolEvent::Changed)
                }
                Step::Connect(seed) => {
                    let id = test.net.connect_node(seed);
                    under_way.remove(&id);
                    test.on(PoolEvent::Connected(id))
                }
                Step::Disconnect(seed, minimized) => {
                    test.net.disconnect(seed);
                    let peer = test.net.id(seed);
                    test.on(PoolEvent::Disconnected { peer, minimized })
                }
                Step::Fail(seed) => {
                    let peer = test.net.id(seed);
                    if !under_way.remove(&peer) {
                        continue;
                    }
                    let actions = test.on(PoolEvent::DialFailed { peer, is_local: false });
                    prop_assert!(!dials(&actions).contains(&peer));
                    actions
                }
                Step::Pass(seconds) => {
                    test.net.pass(Duration::from_secs(seconds));
                    test.on(PoolEvent::Changed)
                }
            };
            let view = test.net.view();
            for peer in dials(&actions) {
                prop_assert!(!view.connected.contains(&peer));
                under_way.insert(peer);
            }
            let (neighbours, random) = (test.pools.neighbours(), test.pools.random());
            prop_assert!(neighbours.members().len() <= 4 && random.members().len() <= 2);
            prop_assert!(neighbours.members().is_sorted_by_key(|member| member.distance));
            for member in neighbours.members().iter().chain(random.members()) {
                prop_assert_eq!(member.since.is_some(), view.connected.contains(&member.id));
                prop_assert!(member.since.is_some() || under_way.contains(&member.id));
            }
            let ids = neighbours.members().iter().map(|member| member.id);
            prop_assert!(ids.clone().all(|id| !random.contains(&id)));
            for id in ids {
                let record = view.directory.find(&id);
                let network = record.and_then(|record| view.network(&record));
                prop_assert!(network.is_none_or(|network| neighbours.of_network(network) <= 2));
            }
        }
    }
}
