//! Choosing peers among very many.

use std::sync::Arc;

use dht_core::{Entropy, Features, NodeId, RemotePeer, SecretKey, SeededEntropy};
use dht_peers::{Connections, Direction};

use crate::{
    report::{Report, Row},
    sample::{Effort, micros},
};

const CONNECTED: usize = 10_000;

pub(crate) fn run(report: &mut Report, effort: Effort) {
    let name = "select.closest8_of_10k";
    if !report.wants(name) {
        return;
    }
    let mut rng = SeededEntropy::new(11).rng();
    let connections = Connections::new();
    for _ in 0..CONNECTED {
        let key = SecretKey::random(&mut rng).public_key();
        connections.insert(
            Arc::new(RemotePeer::new(key, Features::NODE)),
            Direction::Outbound,
        );
    }
    let targets: Vec<NodeId> = (0..64)
        .map(|_| SecretKey::random(&mut rng).public_key().node_id())
        .collect();
    let mut targets = targets.iter().cycle();
    let row = Row::new(
        name,
        "us",
        "the 8 connected peers closest to a key, of 10 000",
    )
    .target(5.0);
    report.row(row, || {
        micros(effort, || {
            let target = targets.next().copied().unwrap_or_default();
            connections.snapshot().closest(&target, 8, &[])
        })
    });
}
