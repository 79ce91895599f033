//! The memory a directory really takes, as the operating system counts it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{fs, sync::Arc};

use dht_core::{Address, Claim, Features, PublicKey, SecretKey, UnixSeconds};
use dht_peers::{Directory, DirectoryLimits, NetGroup, PeerFilter, PeerRecord};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MIB: usize = 1024 * 1024;

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

fn secret(seed: u64) -> SecretKey {
    let mut bytes = [1; 64];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    SecretKey::from_uniform_bytes(&bytes).unwrap()
}

/// Five addresses each, in an allocation of their own, as a message brings them.
fn claimed(key: PublicKey, seed: u64, template: &Claim) -> PeerRecord {
    let addresses = (0..5_u8).map(|n| {
        let [a, b, c, ..] = seed.to_le_bytes();
        Address::tcp([60 + n, a, b, c].into(), 5)
    });
    let claim = Claim {
        addresses: addresses.collect(),
        ..template.clone()
    };
    PeerRecord::from_claim(key, Arc::new(claim), NOW)
}

/// Ten thousand peers authenticate themselves, each tells of another, and the directory may take 8 MiB, a quarter of
/// them for bans.
#[test]
fn directory_stays_within_its_memory() {
    let signed = Claim::sign_with_nonce(&secret(1), Vec::new(), Features::NODE, NOW, &secret(2));
    let limits = DirectoryLimits::within(8 * MIB);
    let directory = Directory::with_limits(secret(0).public_key().node_id(), limits);
    let before = resident_bytes();
    for seed in 1..10_000 {
        let key = secret(seed).public_key();
        let [a, b, ..] = seed.to_le_bytes();
        let from = NetGroup::of_ip([a, b, 1, 1].into());
        directory.authenticated(claimed(key, seed, &signed), from, NOW);
        let other = secret(1_000_000 + seed).public_key();
        directory.hear(claimed(other, seed, &signed), &key.node_id(), NOW);
    }
    let taken = resident_bytes().saturating_sub(before);
    let proven = directory.count(&PeerFilter::reachable(NOW));
    let heard_of = directory.count(&PeerFilter::heard_of(NOW));
    let measured = format!("{proven} proven, {heard_of} heard of, {} KiB", taken / 1024);
    // The allocator keeps some of what it once gave.
    assert!(taken < 13 * MIB / 2, "{measured}");
    assert!(
        taken > 4 * MIB,
        "the limits are far from the truth: {measured}"
    );
    assert!(proven > 1_000 && heard_of > 500, "{measured}");
    println!("{measured}");
}
