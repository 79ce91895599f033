use dht_core::{Entropy as _, SeededEntropy};

use super::*;
use crate::test_util::Net;

struct Test<R> {
    net: Net,
    overlay: Overlay,
    rng: R,
}

fn test(net: Net, seeds: &[NodeId]) -> Test<impl Rng + use<>> {
    let bootstrap_peers = BootstrapPeers {
        seeds: seeds.to_vec(),
        ..BootstrapPeers::default()
    };
    let overlay = Overlay::new(
        NodeId::default(),
        &Config::default(),
        bootstrap_peers,
        net.at(),
    );
    Test {
        net,
        overlay,
        rng: SeededEntropy::new(1).rng(),
    }
}

impl<R: Rng> Test<R> {
    fn on(&mut self, event: OverlayEvent) -> Vec<OverlayAction> {
        self.overlay.on(event, &self.net.view(), &mut self.rng);
        std::iter::from_fn(|| self.overlay.poll_action()).collect()
    }

    /// Lets time pass up to the next timeout.
    fn tick(&mut self) -> Vec<OverlayAction> {
        let at = self.net.at();
        self.net.pass(self.overlay.next_timeout(at) - at);
        self.on(OverlayEvent::Tick)
    }
}

#[test]
fn lone_node_joins_through_seed() {
    let net = Net::new();
    let seed = net.know(1);
    let mut test = test(net, &[seed]);
    assert_eq!(test.on(OverlayEvent::Tick), [OverlayAction::Dial(seed)]);
    test.net.connect_node(1);
    let dialled = OverlayEvent::Dialled {
        peer: seed,
        outcome: DialOutcome::Connected,
    };
    let mut actions = test.on(dialled);
    let online = Notice::Status(Status::Online { nodes: 1 });
    assert_eq!(actions.remove(0), OverlayAction::Notify(online));
    assert!(
        matches!(actions[..], [OverlayAction::Sync(peer, ask)] if peer == seed && ask.peers == 500)
    );
    let until = test.net.at() + Duration::from_secs(3);
    let mut joins = 0;
    while test.net.at() < until {
        joins += test
            .tick()
            .iter()
            .filter(|action| **action == OverlayAction::Join)
            .count();
    }
    assert_eq!(joins, 1);
}

/// Seeds that a name stands for have their room again once the node is online.
#[test]
fn found_seeds_are_forgotten_online() {
    let mut test = test(Net::new(), &[]);
    let seeds = (1..1_000).map(|seed| test.net.id(seed)).collect();
    test.on(OverlayEvent::Found(seeds));
    let late = test.net.id(1_000);
    assert!(!test.overlay.bootstrap.on_found(late));
    test.net.connect_node(1);
    test.on(OverlayEvent::Tick);
    assert!(test.overlay.bootstrap.on_found(late));
}

/// After the first burst, one dial a second, however many peers there are to dial.
#[test]
fn dials_are_one_a_second() {
    let net = Net::new();
    for seed in 1..=400 {
        net.know(seed);
    }
    let mut test = test(net, &[]);
    let (mut dials, mut actions) = (Vec::new(), test.on(OverlayEvent::Tick));
    let start = test.net.at();
    while test.net.at() < start + Duration::from_secs(120) {
        let mut next = Vec::new();
        for action in std::mem::take(&mut actions) {
            if let OverlayAction::Dial(peer) = action {
                dials.push(test.net.at() - start);
                let outcome = DialOutcome::Failed;
                next.extend(test.on(OverlayEvent::Dialled { peer, outcome }));
            }
        }
        actions = next;
        actions.extend(test.tick());
    }
    let burst = 8 + 4 + 5;
    assert!(dials.len() > 60, "{}", dials.len());
    for (second, window) in dials.windows(burst + 10).enumerate() {
        let length = window[burst + 9] - window[0];
        assert!(length >= Duration::from_secs(9), "{second}: {length:?}");
    }
}

/// A peer of a round that is not connected is dialled first, and one that does not answer ends the round.
#[test]
fn sync_peers_are_connected_first() {
    let net = Net::new();
    let peer = net.know(2);
    let mut test = test(net, &[]);
    test.net.connect_node(1);
    let actions = test.on(OverlayEvent::Tick);
    assert!(actions.contains(&OverlayAction::Dial(peer)));
    let is_sync = |action: &OverlayAction| matches!(action, OverlayAction::Sync(..));
    assert!(!actions.iter().any(is_sync), "{actions:?}");
    let outcome = DialOutcome::Failed;
    let actions = test.on(OverlayEvent::Dialled { peer, outcome });
    // The round has failed: those that are connected are asked meanwhile.
    assert!(actions.iter().any(is_sync), "{actions:?}");
}

#[test]
fn one_machine_needs_few_timers() {
    let net = Net::new();
    for seed in 1..=12 {
        net.know(seed);
    }
    let mut test = test(net, &[]);
    for seed in 1..=12 {
        let peer = test.net.connect_node(seed);
        test.on(OverlayEvent::Connected(peer));
    }
    let (start, mut ticks) = (test.net.at(), 0);
    while test.net.at() < start + Duration::from_secs(3_600) {
        for action in test.tick() {
            match action {
                OverlayAction::Sync(peer, _) => {
                    let report = SyncReport {
                        was_connected: true,
                        ..SyncReport::of(peer)
                    };
                    test.on(OverlayEvent::Synced(report));
                }
                OverlayAction::Join => {
                    test.on(OverlayEvent::Joined { was_sent: true });
                }
                _ => {}
            }
        }
        ticks += 1;
    }
    assert!(ticks < 200, "{ticks}");
}
