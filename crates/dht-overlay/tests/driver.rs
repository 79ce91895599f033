//! The driver over the ports of no node.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{io, sync::Arc};

use dht_core::{Features, ManualClock, NodeId, SeededEntropy, UnixSeconds};
use dht_overlay::{
    BootstrapPeers, Config, DialOutcome, Driver, Notice, Overlay, OverlayEvent, Ports, Summary,
    sync::Learner,
};
use dht_peers::{
    ClaimPolicy, Directory,
    policy::{AttributionProfile, BanPolicy, BanTerms},
    test_util::record,
};
use tokio::{io::DuplexStream, sync::mpsc, time::Instant};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// Tells who is dialled.
struct Dials(mpsc::Sender<NodeId>);

impl Ports for Dials {
    type Stream = DuplexStream;

    async fn dial(&self, peer: NodeId) -> DialOutcome {
        self.0.send(peer).await.unwrap();
        DialOutcome::Failed
    }

    async fn open_sync(&self, _: NodeId) -> io::Result<DuplexStream> {
        Err(io::ErrorKind::NotConnected.into())
    }

    async fn join(&self) -> bool {
        false
    }

    async fn look_up(&self, _: String) -> Vec<NodeId> {
        Vec::new()
    }

    fn disconnect(&self, _: &NodeId) {}

    fn changed(&self, _: &Summary) {}

    fn notify(&self, _: Notice) {}
}

fn driver(directory: &Directory) -> (Driver<Dials>, mpsc::Receiver<NodeId>) {
    let clock = Arc::new(ManualClock::new(NOW));
    let (profile, terms) = (AttributionProfile::Strict, BanTerms::default());
    let (dials, dialled) = mpsc::channel(100);
    let driver = Driver {
        ports: Arc::new(Dials(dials)),
        overlay: Overlay::new(
            *directory.me(),
            &Config::default(),
            BootstrapPeers::default(),
            Instant::now(),
        ),
        learner: Learner {
            directory: directory.clone(),
            bans: BanPolicy::new(profile, terms, directory.clone(), clock.clone()),
            clock: clock.clone(),
            claims: ClaimPolicy::default(),
        },
        connections: directory.connections(),
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
    };
    (driver, dialled)
}

#[tokio::test(start_paused = true)]
async fn dp39_driver_ends_with_its_node() {
    let directory = Directory::new(NodeId::default());
    let (driver, _dialled) = driver(&directory);
    let start = Instant::now();
    let (sender, events) = mpsc::channel::<OverlayEvent>(1);
    drop(sender);
    driver.run(events).await;
    assert!(start.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn known_peers_are_dialled_at_start() {
    let directory = Directory::new(NodeId::default());
    for seed in 1..=3 {
        directory.add_or_update(record(seed, Features::NODE, NOW), NOW);
    }
    let (driver, mut dialled) = driver(&directory);
    let (_sender, events) = mpsc::channel::<OverlayEvent>(1);
    let running = tokio::spawn(driver.run(events));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(dialled.recv().await.unwrap());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    running.abort();
}
