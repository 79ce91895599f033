//! The peer directory: finding peers, entering them, and reading them from their file.

use std::{sync::Arc, time::Instant};

use dht_core::{
    Address, Claim, Entropy as _, Features, NodeId, SecretKey, SeededEntropy, UnixSeconds,
};
use dht_peers::{Directory, DirectoryFile, DirectoryLimits, NetGroup, PeerFilter, PeerRecord};

use crate::{
    report::{Report, Row},
    sample::{Effort, median, micros, micros_with},
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const PEERS: usize = 100_000;
const MANY_PEERS: usize = 1_000_000;
/// Fewer, to see that everything runs.
const FEW_PEERS: usize = 2_000;

pub(crate) fn run(report: &mut Report, effort: Effort) -> anyhow::Result<()> {
    if !report.wants("peers.") {
        return Ok(());
    }
    let peers = records(if effort.quick { FEW_PEERS } else { PEERS });
    memory(report, &peers);
    let directory = filled(&peers);
    let ids: Vec<_> = peers.iter().map(|peer| *peer.node_id()).collect();
    let targets = targets();

    let row = Row::new(
        "peers.closest20",
        "us",
        "the 20 proven peers closest to an id, of 100 000",
    );
    closest(report, effort, row.target(20.0), &directory, &targets);

    let row = Row::new("peers.lookup", "ns", "one peer by its node id, of 100 000").target(200.0);
    let mut wanted = ids.iter().cycle().step_by(7_919);
    report.row(row, || {
        1_000.0 * micros(effort, || directory.find(wanted.next()?))
    });

    let row = Row::new(
        "peers.upsert",
        "/s",
        "peers that authenticate themselves, half of them known",
    );
    let mut at = 0;
    let next = || {
        at = (at + 7_919) % peers.len();
        let mut peer = peers.get(at)?.clone();
        if at % 2 == 0 {
            peer = peer.with_agent(&at.to_string(), []);
        } else {
            directory.remove(peer.node_id());
        }
        Some(peer)
    };
    report.row(row.target(200_000.0), || {
        1e6 / micros_with(effort, next, |peer| {
            peer.map(|peer| directory.authenticated(peer, NetGroup::V4([1, 2]), NOW))
        })
    });

    restore(report, effort, &peers)?;
    drop((directory, peers));

    let row = Row::new(
        "peers.closest20_1m",
        "us",
        "the 20 proven peers closest to an id, of 1 000 000",
    );
    let row = row.target(40.0);
    if report.wants(row.name) {
        let many = filled(&records(if effort.quick { FEW_PEERS } else { MANY_PEERS }));
        closest(report, effort, row, &many, &targets);
    }
    Ok(())
}

fn closest(
    report: &mut Report,
    effort: Effort,
    row: Row<'_>,
    directory: &Directory,
    targets: &[NodeId],
) {
    let mut targets = targets.iter().cycle();
    report.row(row, || {
        micros(effort, || {
            let target = targets.next().copied().unwrap_or_default();
            directory.closest(&target, 20, &PeerFilter::active(NOW))
        })
    });
}

/// As the kernel counts it: an allocator gives more than what is asked for.
fn memory(report: &mut Report, peers: &[PeerRecord]) {
    let row = Row::new(
        "peers.bytes",
        "bytes",
        "memory of a proven peer with one address",
    )
    .target(600.0);
    if !report.wants(row.name) {
        return;
    }
    let Some(before) = crate::memory::resident_kib() else {
        return;
    };
    let directory = filled(peers);
    let after = crate::memory::resident_kib().unwrap_or(before);
    drop(directory);
    report.row(row, || (after - before) * 1_024.0 / peers.len() as f64);
}

#[expect(clippy::disallowed_methods, reason = "it is measured")]
fn restore(report: &mut Report, effort: Effort, peers: &[PeerRecord]) -> anyhow::Result<()> {
    let row = Row::new(
        "peers.restore",
        "s",
        "a directory of 100 000 peers from its file",
    )
    .target(1.0);
    if !report.wants(row.name) {
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    let empty = || Directory::with_limits(NodeId::default(), limits());
    let directory = empty();
    let file = DirectoryFile::open_blocking(home.path(), &directory, NOW);
    fill(&directory, peers);
    if let Some(file) = file {
        file.save_blocking().expect("the file is written");
    }
    let times = (0..effort.samples).map(|_| {
        let directory = empty();
        let begin = Instant::now();
        let file = DirectoryFile::open_blocking(home.path(), &directory, NOW);
        let took = begin.elapsed().as_secs_f64();
        assert!(file.is_some() && directory.len() == peers.len());
        took
    });
    let times = times.collect();
    report.row(row, || median(times));
    Ok(())
}

const fn limits() -> DirectoryLimits {
    DirectoryLimits::within(16 * 1024 * 1024 * 1024)
}

fn filled(peers: &[PeerRecord]) -> Directory {
    let directory = Directory::with_limits(NodeId::default(), limits());
    fill(&directory, peers);
    directory
}

/// In allocations of their own, as peers bring them.
fn fill(directory: &Directory, peers: &[PeerRecord]) {
    for (at, peer) in peers.iter().enumerate() {
        let [a, b, ..] = at.to_le_bytes();
        let claim = peer.claim().map(|claim| Arc::new(Claim::clone(claim)));
        let (Some(claim), Ok(key)) = (claim, peer.public_key().decode()) else {
            continue;
        };
        let peer = PeerRecord::from_claim(key, claim, NOW).with_agent("dht/1.0.0", []);
        directory.authenticated(peer, NetGroup::V4([a, b]), NOW);
    }
}

/// Peers with one address each. Nobody checks the signature again.
fn records(n: usize) -> Vec<PeerRecord> {
    let mut rng = SeededEntropy::new(17).rng();
    let secret = SecretKey::random(&mut rng);
    let signed = Claim::sign(&secret, Vec::new(), Features::NODE, NOW, &mut rng);
    let record = |at: usize| {
        let key = SecretKey::random(&mut rng).public_key();
        let [a, b, c, ..] = at.to_le_bytes();
        let claim = Claim {
            addresses: vec![Address::tcp([60, a, b, c].into(), 18_189)],
            ..signed.clone()
        };
        PeerRecord::from_claim(key, Arc::new(claim), NOW)
    };
    (0..n).map(record).collect()
}

fn targets() -> Vec<NodeId> {
    let mut rng = SeededEntropy::new(18).rng();
    (0..64)
        .map(|_| SecretKey::random(&mut rng).public_key().node_id())
        .collect()
}
