use std::sync::Arc;

use dht_core::{Entropy, Features, PublicKey, SeededEntropy, Severity, Strategy};
use dht_peers::{
    Connections, Direction,
    test_util::{peer, public_key, record},
};
use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const ME: u64 = 0;

/// A node with neighbours and acquaintances; peers are named by their seed.
struct World {
    connections: Connections,
    directory: Directory,
    config: SelectConfig,
}

impl World {
    fn new() -> Self {
        Self {
            connections: Connections::new(),
            directory: Directory::new(id(ME)),
            config: SelectConfig::default(),
        }
    }

    fn connected(self, seeds: impl IntoIterator<Item = u64>, features: Features) -> Self {
        for seed in seeds {
            self.connections
                .insert(Arc::new(peer(seed, features)), Direction::Outbound);
            self.directory
                .add_or_update(record(seed, features, NOW), NOW);
        }
        self
    }

    /// Connected nodes of one source group.
    fn connected_at(self, seeds: impl IntoIterator<Item = u64>, third: u8) -> Self {
        let group = SourceGroup::of_ip([198, 51, third, 1].into());
        for seed in seeds {
            let node = peer(seed, Features::NODE).at(Some(group));
            (self.connections).insert(Arc::new(node), Direction::Inbound);
        }
        self
    }

    fn known(self, seeds: impl IntoIterator<Item = u64>, features: Features) -> Self {
        for seed in seeds {
            self.directory
                .add_or_update(record(seed, features, NOW), NOW);
        }
        self
    }

    fn select(&self, strategy: &Strategy) -> Selection {
        self.select_seeded(strategy, 1)
    }

    fn select_seeded(&self, strategy: &Strategy, seed: u64) -> Selection {
        let connected = self.connections.snapshot();
        let me = id(ME);
        let candidates = Candidates {
            me: &me,
            connected: &connected,
            directory: &self.directory,
            now: NOW,
        };
        select(
            strategy,
            candidates,
            &self.config,
            &mut SeededEntropy::new(seed).rng(),
        )
    }

    fn ids(&self, strategy: &Strategy) -> Vec<NodeId> {
        self.select(strategy).ids()
    }
}

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

fn key(seed: u64) -> PublicKey {
    public_key(seed)
}

fn broadcast() -> Strategy {
    Strategy::Broadcast { exclude: vec![] }
}

fn propagate(to: u64) -> Strategy {
    Strategy::Propagate {
        destination: Destination::PublicKey(key(to)),
        exclude: vec![],
    }
}

fn closest(target: u64, connected_only: bool) -> Strategy {
    Strategy::ClosestNodes {
        target: id(target),
        exclude: vec![],
        connected_only,
    }
}

fn direct_or_closest(target: u64, connected_only: bool) -> Strategy {
    Strategy::DirectOrClosestNodes {
        target: id(target),
        exclude: vec![],
        connected_only,
    }
}

fn every_strategy(target: u64, exclude: &[NodeId]) -> Vec<Strategy> {
    let exclude = || exclude.to_vec();
    let target_id = id(target);
    vec![
        Strategy::DirectNodeId(target_id),
        Strategy::DirectPublicKey(key(target)),
        Strategy::Flood { exclude: exclude() },
        Strategy::Broadcast { exclude: exclude() },
        Strategy::Random {
            n: 5,
            exclude: exclude(),
        },
        Strategy::SelectedPeers(vec![target_id]),
        Strategy::ClosestNodes {
            target: target_id,
            exclude: exclude(),
            connected_only: true,
        },
        Strategy::ClosestNodes {
            target: target_id,
            exclude: exclude(),
            connected_only: false,
        },
        Strategy::DirectOrClosestNodes {
            target: target_id,
            exclude: exclude(),
            connected_only: true,
        },
        Strategy::DirectOrClosestNodes {
            target: target_id,
            exclude: exclude(),
            connected_only: false,
        },
        Strategy::Propagate {
            destination: Destination::Unknown,
            exclude: exclude(),
        },
        Strategy::Propagate {
            destination: Destination::PublicKey(key(target)),
            exclude: exclude(),
        },
    ]
}

/// The directory may have lost it, or a snapshot of connections may be ahead of it.
#[test]
fn connected_peer_is_found_without_record() {
    let world = World::new().connected([1, 2], Features::NODE);
    for strategy in [
        Strategy::DirectPublicKey(key(1)),
        Strategy::DirectNodeId(id(1)),
    ] {
        world.directory.remove(&id(1));
        assert_eq!(world.ids(&strategy), [id(1)]);
    }
    let until = NOW.saturating_add(600);
    world
        .directory
        .ban(key(1), until, Severity::Low, "test", NOW);
    assert_eq!(world.ids(&Strategy::DirectPublicKey(key(1))), []);
    assert_eq!(world.ids(&Strategy::DirectPublicKey(key(3))), []);
}

#[test]
fn b001_broadcast_without_connections_selects_nobody() {
    let world = World::new()
        .known([1], Features::NODE)
        .known([2], Features::CLIENT);
    assert!(world.select(&broadcast()).is_empty());
}

#[test]
fn b002_broadcast_with_one_connection_selects_it() {
    let world = World::new().connected([1], Features::NODE);
    assert_eq!(world.ids(&broadcast()), [id(1)]);
    let unknown = Strategy::Propagate {
        destination: Destination::Unknown,
        exclude: vec![],
    };
    assert_eq!(world.ids(&unknown), [id(1)]);
}

#[test]
fn b003_propagate_to_key_selects_one_connection() {
    let world = World::new()
        .connected([1], Features::NODE)
        .known([2], Features::CLIENT);
    assert_eq!(world.ids(&propagate(2)), [id(1)]);
}

#[test]
fn b004_closest_nodes_appends_a_disconnected_node() {
    let world = World::new()
        .connected([1], Features::NODE)
        .known([2], Features::NODE)
        .known([3], Features::CLIENT);
    assert_eq!(world.ids(&closest(9, false)), [id(1), id(2)]);
    assert_eq!(world.ids(&closest(9, true)), [id(1)]);
    // Without a connection to the target the other strategy does the same.
    assert_eq!(world.ids(&direct_or_closest(9, false)), [id(1), id(2)]);
}

#[test]
fn b005_connected_target_is_selected_alone() {
    let world = World::new()
        .connected([1, 2], Features::NODE)
        .connected([3], Features::CLIENT);
    assert_eq!(world.ids(&direct_or_closest(1, true)), [id(1)]);
    assert_eq!(world.ids(&direct_or_closest(3, true)), [id(3)], "any role");
    let excluded = Strategy::DirectOrClosestNodes {
        target: id(1),
        exclude: vec![id(1)],
        connected_only: true,
    };
    assert_eq!(world.ids(&excluded), [id(1)], "exclusions are ignored");
}

#[test]
fn b006_direct_node_id_selects_known_client() {
    let world = World::new().known([1], Features::CLIENT);
    assert_eq!(world.ids(&Strategy::DirectNodeId(id(1))), [id(1)]);
    assert_eq!(world.ids(&Strategy::DirectPublicKey(key(1))), [id(1)]);
    assert!(world.select(&Strategy::DirectNodeId(id(2))).is_empty());
    assert!(world.select(&Strategy::DirectPublicKey(key(2))).is_empty());
}

#[test]
fn b007_direct_strategies_skip_banned_peers() {
    let world = World::new().known([1], Features::NODE);
    world
        .directory
        .ban(key(1), NOW.saturating_add(60), Severity::Low, "test", NOW);
    assert!(world.select(&Strategy::DirectNodeId(id(1))).is_empty());
    assert!(world.select(&Strategy::DirectPublicKey(key(1))).is_empty());
    world.directory.unban(key(1));
    assert_eq!(world.ids(&Strategy::DirectNodeId(id(1))), [id(1)]);
}

#[test]
fn b008_propagate_does_not_choose_excluded_destination() {
    let world = World::new().connected(1..=4, Features::NODE);
    let excluding = |exclude| Strategy::Propagate {
        destination: Destination::PublicKey(key(1)),
        exclude,
    };
    assert_eq!(world.ids(&excluding(vec![])), [id(1)]);
    let mut others = vec![id(2), id(3), id(4)];
    others.sort_by_key(|other| other.distance(&id(1)));
    assert_eq!(world.ids(&excluding(vec![id(1)])), others);
}

#[test]
fn b009_clients_are_not_chosen_among_many() {
    let world = World::new()
        .connected([1], Features::NODE)
        .connected([2], Features::CLIENT);
    for strategy in [
        Strategy::Flood { exclude: vec![] },
        broadcast(),
        closest(2, true),
        closest(2, false),
        Strategy::Propagate {
            destination: Destination::Unknown,
            exclude: vec![],
        },
        Strategy::Random {
            n: 9,
            exclude: vec![],
        },
    ] {
        assert_eq!(world.ids(&strategy), [id(1)], "{strategy:?}");
    }
}

#[test]
fn b015_only_two_strategies_are_direct() {
    let direct: Vec<_> = every_strategy(1, &[])
        .iter()
        .filter(|s| s.is_direct())
        .map(Strategy::name)
        .collect();
    assert_eq!(direct, ["direct_node_id", "direct_public_key"]);
}

#[test]
fn b016_only_direct_public_key_has_key() {
    for strategy in every_strategy(1, &[]) {
        let expected = (strategy.name() == "direct_public_key").then(|| key(1));
        assert_eq!(strategy.direct_public_key().copied(), expected);
    }
}

#[test]
fn b017_messages_to_many_are_broadcasts() {
    // The target is known but not connected.
    let world = World::new()
        .connected([2, 3], Features::NODE)
        .known([1], Features::NODE);
    for strategy in every_strategy(1, &[]) {
        let one = ["direct_node_id", "direct_public_key", "selected_peers"];
        let expected = !one.contains(&strategy.name());
        assert_eq!(
            world.select(&strategy).is_broadcast(),
            expected,
            "{strategy:?}"
        );
    }
}

/// Direct or closest is a broadcast unless only the target is chosen.
#[test]
fn f2_target_alone_is_no_broadcast() {
    let world = World::new().connected([1, 2], Features::NODE);
    assert!(!world.select(&direct_or_closest(1, true)).is_broadcast());
    assert!(world.select(&direct_or_closest(9, true)).is_broadcast());
}

#[test]
fn f3_this_node_is_never_selected() {
    let world = World::new().known([1], Features::NODE);
    let both = world.select(&Strategy::SelectedPeers(vec![id(ME), id(1), id(ME)]));
    assert_eq!((both.ids(), both.only_ourselves()), (vec![id(1)], false));
    for strategy in [
        Strategy::SelectedPeers(vec![id(ME)]),
        Strategy::DirectNodeId(id(ME)),
        Strategy::DirectPublicKey(key(ME)),
    ] {
        let selection = world.select(&strategy);
        assert!(
            selection.is_empty() && selection.only_ourselves(),
            "{strategy:?}"
        );
    }
    let nobody = world.select(&Strategy::DirectNodeId(id(77)));
    assert!(nobody.is_empty() && !nobody.only_ourselves());
}

/// Selected peers are taken as given up to the bound.
#[test]
fn selected_peers_are_bounded() {
    let mut world = World::new();
    let listed = vec![id(3), id(1), id(3)];
    assert_eq!(world.ids(&Strategy::SelectedPeers(listed.clone())), listed);
    world.config.max_dialled = 2;
    assert_eq!(world.ids(&Strategy::SelectedPeers(listed)), [id(3), id(1)]);
}

#[test]
fn random_of_none_is_nobody() {
    let world = World::new().known(1..=5, Features::NODE);
    assert!(
        world
            .select(&Strategy::Random {
                n: 0,
                exclude: vec![]
            })
            .is_empty()
    );
    assert_eq!(
        world
            .select(&Strategy::Random {
                n: 3,
                exclude: vec![]
            })
            .len(),
        3
    );
}

/// Known peers are chosen only if a dial is worth it.
#[test]
fn only_peers_worth_dialling_are_chosen() {
    let exclude = vec![id(6)];
    let world = World::new()
        .known([1, 4, 5, 6], Features::NODE)
        .known([2], Features::MESSAGE_PROPAGATION)
        .known([3], Features::CLIENT);
    let until = NOW.saturating_add(1);
    world
        .directory
        .ban(id(4), until, Severity::Low, "test", NOW);
    let offline = world.directory.find(&id(5)).unwrap();
    for held in offline.addresses() {
        world
            .directory
            .mark_failed(&id(5), &held.address, "no answer", NOW);
    }
    let sorted = |strategy: &Strategy| {
        let mut ids = world.ids(strategy);
        ids.sort_unstable();
        ids
    };
    let mut expected = vec![id(1), id(2)];
    expected.sort_unstable();
    let closest = Strategy::ClosestNodes {
        target: id(9),
        exclude: exclude.clone(),
        connected_only: false,
    };
    // Whoever passes messages on is good enough to be near, a full node alone to be drawn.
    assert_eq!(sorted(&closest), expected);
    assert_eq!(sorted(&Strategy::Random { n: 9, exclude }), [id(1)]);
    // Exclusions and a bad connection do not concern a peer that is named.
    assert_eq!(world.ids(&Strategy::DirectNodeId(id(5))), [id(5)]);
    assert_eq!(world.ids(&Strategy::DirectNodeId(id(3))), [id(3)]);
}

#[test]
fn factors_bound_the_choice() {
    let world = World::new().connected(1..=30, Features::NODE);
    assert_eq!(world.select(&broadcast()).len(), 8);
    assert_eq!(world.select(&Strategy::Flood { exclude: vec![] }).len(), 30);
    let unknown = Strategy::Propagate {
        destination: Destination::Unknown,
        exclude: vec![],
    };
    assert_eq!(world.select(&unknown).len(), 20);
    assert_eq!(world.select(&propagate(99)).len(), 8);
    assert_eq!(world.select(&closest(99, true)).len(), 8);
    // At least two more, even if the factor is reached.
    let world = world.known(31..=40, Features::NODE);
    assert_eq!(world.select(&closest(99, false)).len(), 10);
}

/// Where a join of a node with nine connected nodes goes.
#[test]
fn dp16_join_reaches_eight_and_two() {
    let world = World::new()
        .connected(1..=9, Features::NODE)
        .known(10..=30, Features::NODE);
    let chosen = world.ids(&closest(ME, false));
    let connected: Vec<_> = (1..=9).map(id).collect();
    let is_connected = |id: &&NodeId| connected.contains(*id);
    assert_eq!(chosen.len(), 10);
    assert_eq!(chosen.iter().filter(is_connected).count(), 8);
    // The ninth connected one is known, too, and taken as such if nobody else is.
    let alone = World::new().connected(1..=9, Features::NODE);
    assert_eq!(alone.ids(&closest(ME, false)).len(), 9);
}

#[test]
fn one_seed_gives_one_choice() {
    let world = World::new().connected(1..=30, Features::NODE);
    assert_eq!(
        world.select_seeded(&broadcast(), 5),
        world.select_seeded(&broadcast(), 5)
    );
    assert_ne!(
        world.select_seeded(&broadcast(), 5),
        world.select_seeded(&broadcast(), 6)
    );
}

#[test]
fn f1_propagation_prefers_closer_nodes_if_configured() {
    let mut world = World::new().connected(1..=30, Features::NODE);
    // A destination this node is close to itself, so that some neighbours are farther.
    let to = (100..).find(|to| {
        (1..=30)
            .filter(|n| id(*n).distance(&id(*to)) < id(ME).distance(&id(*to)))
            .count()
            == 3
    });
    let to = to.unwrap();
    let closer = |peer: &NodeId| peer.distance(&id(to)) < id(ME).distance(&id(to));
    assert_eq!(world.select(&propagate(to)).len(), 8);
    world.config.propagation = PropagationRule::PreferCloser;
    let chosen = world.ids(&propagate(to));
    assert_eq!(chosen.len(), 3);
    assert!(chosen.iter().all(closer));
    // Nobody is closer: all of them.
    let nearest =
        (100..).find(|to| (1..=30).all(|n| id(n).distance(&id(*to)) > id(ME).distance(&id(*to))));
    assert_eq!(world.select(&propagate(nearest.unwrap())).len(), 8);
    // The network's rule begins to filter when there are enough candidates.
    world.config.propagation = PropagationRule::Legacy;
    world.config.propagation_factor = 5;
    assert!(world.ids(&propagate(to)).iter().all(closer));
}

#[test]
fn explanations_name_every_peer_and_reason() {
    let world = World::new()
        .connected([1], Features::NODE)
        .known([2], Features::NODE);
    let text = world.select(&closest(9, false)).explain();
    assert!(text.starts_with("closest_nodes: 2 chosen\n"));
    assert!(text.contains(&format!("{}: connected node near the target", id(1))));
    assert!(text.contains(&format!("{}: known peer near the target", id(2))));
}

fn seeds(from: u64) -> impl proptest::strategy::Strategy<Value = Vec<u64>> {
    proptest::collection::vec(from..from + 40, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn selections_keep_their_promises(
        connected in seeds(1), clients in seeds(101), known in seeds(201), excluded in seeds(1),
        more_excluded in seeds(201), target in 1_u64..250, seed: u64,
    ) {
        let world = World::new()
            .connected(connected, Features::NODE)
            .connected(clients, Features::CLIENT)
            .known(known, Features::NODE);
        let exclude: Vec<_> = excluded.into_iter().chain(more_excluded).map(id).collect();
        let nodes: Vec<_> = world.connections.snapshot().nodes().iter().map(|node| node.node_id).collect();
        for strategy in every_strategy(target, &exclude) {
            let selection = world.select_seeded(&strategy, seed);
            let chosen = selection.ids();
            let mut distinct = chosen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), chosen.len(), "{:?}", &strategy);

            let only_target = chosen == [id(target)];
            let names_target = strategy.is_direct()
                || matches!(strategy, Strategy::SelectedPeers(_) | Strategy::DirectOrClosestNodes { .. });
            if !(only_target && names_target) {
                prop_assert!(chosen.iter().all(|peer| !exclude.contains(peer)), "{:?}", &strategy);
            }
            prop_assert!(!chosen.contains(&id(ME)));

            if let Strategy::ClosestNodes { connected_only, .. } = strategy {
                let mut naive: Vec<_> = nodes.iter().copied().filter(|n| !exclude.contains(n)).collect();
                naive.sort_by_key(|node| node.distance(&id(target)));
                naive.truncate(8);
                let near = naive.len();
                if !connected_only {
                    let mut rest: Vec<_> = (1..=40_u64).chain(201..=240).map(id)
                        .filter(|peer| world.directory.contains(peer) && !exclude.contains(peer) && !naive.contains(peer))
                        .collect();
                    rest.sort_by_key(|node| node.distance(&id(target)));
                    naive.extend(rest.into_iter().take((8 - near).max(2)));
                }
                prop_assert_eq!(chosen, naive);
            }
        }
    }
}

/// Keys near a destination are free; addresses are not.
#[test]
fn one_source_group_gets_two_copies() {
    let to = 900;
    let distance = |seed: &u64| id(*seed).distance(&id(to));
    // The 120 nearest of many keys are of one source group, the others of one each.
    let mut seeds: Vec<u64> = (1..=140).collect();
    seeds.sort_by_key(distance);
    let (near, far) = seeds.split_at(120);
    let mut world = World::new().connected_at(near.iter().copied(), 1);
    for (third, seed) in (2..).zip(far) {
        world = world.connected_at([*seed], third);
    }
    for rule in [PropagationRule::Legacy, PropagationRule::PreferCloser] {
        world.config.propagation = rule;
        let ids = world.ids(&propagate(to));
        let is_near = |chosen: &&NodeId| near.iter().any(|seed| id(*seed) == **chosen);
        assert!(ids.iter().filter(is_near).count() <= 2, "{rule:?}: {ids:?}");
        assert!(ids.iter().any(|id| !is_near(&id)), "{rule:?}: {ids:?}");
    }
}

/// A node whose peers are all of one source group still passes messages on.
#[test]
fn only_source_group_takes_every_copy() {
    let mut world = World::new().connected_at(1..=20, 1);
    let most = world
        .config
        .neighbouring_nodes
        .min(world.config.propagation_factor);
    world.config.propagation = PropagationRule::Legacy;
    assert_eq!(world.ids(&propagate(900)).len(), most);
}
