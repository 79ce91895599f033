use dht_core::{Entropy as _, SeededEntropy};
use proptest::prelude::*;

use super::*;
use crate::{sync::SyncFailure, test_util::Net};

struct Test<R> {
    net: Net,
    machine: NetworkDiscovery,
    rng: R,
}

/// A machine that is online, in a directory with these many proven nodes.
fn test(nodes: u64, min_desired_peers: usize) -> Test<impl Rng> {
    let config = Config {
        min_desired_peers,
        ..Config::default()
    };
    let net = Net::new();
    for seed in 1..=nodes {
        net.know(seed);
    }
    let mut machine = NetworkDiscovery::new(&config);
    machine.on_online(net.at());
    Test {
        net,
        machine,
        rng: SeededEntropy::new(1).rng(),
    }
}

impl<R: Rng> Test<R> {
    fn decide(&mut self) -> Decision {
        self.machine.decide(&self.net.view(), &mut self.rng)
    }

    fn begin(&mut self, is_starved: bool) -> Vec<NodeId> {
        self.machine
            .begin(is_starved, &self.net.view(), &mut self.rng)
    }

    /// Each peer of a round tells of so many, or fails.
    fn end(&mut self, peers: &[NodeId], new: usize, succeeds: bool) -> Option<PeersAdded> {
        let mut added = None;
        for peer in peers {
            let report = SyncReport {
                was_connected: true,
                new,
                failure: (!succeeds).then_some(SyncFailure::Call),
                ..SyncReport::of(*peer)
            };
            assert_eq!(added, None);
            added = self.machine.on_synced(&report, self.net.at());
        }
        added
    }
}

#[test]
fn dp29_unattempted_node_begins_round() {
    let mut test = test(1, 50);
    assert_eq!(test.begin(false), [test.net.id(1)]);
    assert_eq!(Config::default().max_peers_per_round, 500);
}

#[test]
fn dp30_empty_directory_idles() {
    assert_eq!(test(0, 50).decide(), Decision::Idle);
}

#[test]
fn dp31_round_without_news_ends_rounds() {
    let mut test = test(3, 3);
    let peers = test.begin(false);
    assert_eq!(test.end(&peers, 0, true), None);
    assert_eq!(test.decide(), Decision::OnConnect);
    assert_eq!(test.begin(false), []);
    assert!(test.machine.asks_on_connect());
}

#[test]
fn dp32_attempted_nodes_are_not_asked() {
    let mut test = test(3, 3);
    let all: Vec<_> = (1..=3).map(|seed| test.net.id(seed)).collect();
    test.machine.attempt(&all, test.net.at());
    assert_eq!(test.decide(), Decision::Idle);
    // N10: not for ever.
    test.net.pass(Duration::from_secs(30 * 60));
    assert!(matches!(test.decide(), Decision::Begin(peers) if peers.len() == 3));
}

/// The machine ends with its task; before the node is online, it asks nobody and has no timer.
#[test]
fn dp39_nothing_happens_before_start() {
    let mut machine = NetworkDiscovery::new(&Config::default());
    let (net, mut rng) = (Net::new(), SeededEntropy::new(1).rng());
    net.know(1);
    assert_eq!(machine.begin(true, &net.view(), &mut rng), []);
    assert_eq!(machine.next_timeout(), None);
    assert!(!machine.asks_on_connect());
}

#[test]
fn rounds_end_after_a_while() {
    let mut test = test(60, 60);
    let mut rounds = 0;
    loop {
        let peers = test.begin(false);
        if peers.is_empty() {
            break;
        }
        assert_eq!(peers.len(), 5);
        rounds += 1;
        let added = test.end(&peers, 2, true).unwrap();
        assert_eq!((added.new, added.succeeded), (10, 5));
        assert_eq!(added.sync_peers.len(), 5);
    }
    assert_eq!(rounds, 10);
    let idle = Duration::from_secs(30 * 60);
    assert_eq!(test.machine.next_timeout(), Some(test.net.at() + idle));
}

#[test]
fn failed_rounds_wait_shortly() {
    let mut test = test(9, 50);
    let peers = test.begin(false);
    assert_eq!(test.end(&peers, 0, false), None);
    assert_eq!(test.begin(false), []);
    test.net.pass(Duration::from_secs(5));
    let others = test.begin(false);
    assert_eq!(others.len(), 4);
    assert!(others.iter().all(|id| !peers.contains(id)));
}

/// A node in a network that is smaller than its pools asks again, less and less often.
#[test]
fn starved_nodes_ask_again() {
    let mut test = test(3, 50);
    let mut asked = Vec::new();
    for second in 0..7_200 {
        let peers = test.begin(true);
        if !peers.is_empty() {
            asked.push(second);
            test.end(&peers, 0, true);
        }
        test.net.pass(Duration::from_secs(1));
    }
    assert_eq!(asked[..4], [0, 12, 34, 76]);
    assert!(asked.len() < 12, "{asked:?}");
}

#[test]
fn sources_are_of_different_networks() {
    let mut test = test(0, 50);
    for seed in 1..=20 {
        test.net
            .know_at(seed, &format!("/ip4/203.0.113.{seed}/tcp/5"));
    }
    let others: Vec<_> = (21..=23)
        .map(|seed| {
            test.net
                .know_at(seed, &format!("/ip4/198.{seed}.100.1/tcp/5"))
        })
        .collect();
    let records =
        test.net
            .directory
            .random(23, &PeerFilter::everybody(test.net.now()), &mut test.rng);
    let chosen = diverse(&records, 5, &test.net.view());
    assert_eq!(chosen.len(), 5);
    assert!(others.iter().all(|id| chosen.contains(id)));
}

proptest! {
    /// Nobody is asked twice within the idle period by a node whose pools are full, and a round has five peers at most.
    #[test]
    fn rounds_ask_each_peer_once(seed: u64, outcomes in prop::collection::vec((0..3_usize, any::<bool>(), 0..400_u64), 1..60)) {
        let mut test = test(30, 20);
        let mut rng = SeededEntropy::new(seed).rng();
        let mut asked: BTreeMap<NodeId, Instant> = BTreeMap::new();
        for (new, succeeds, seconds) in outcomes {
            let peers = test.machine.begin(false, &test.net.view(), &mut rng);
            prop_assert!(peers.len() <= 5);
            for peer in &peers {
                let before = asked.insert(*peer, test.net.at());
                prop_assert!(before.is_none_or(|before| before + Duration::from_secs(1_800) <= test.net.at()));
            }
            test.end(&peers, new, succeeds);
            test.net.pass(Duration::from_secs(seconds));
        }
    }
}
