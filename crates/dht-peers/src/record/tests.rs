use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    MAX_PROTOCOLS, MAX_USER_AGENT_BYTES,
    test_util::{claim, public_key},
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn address(n: u8) -> String {
    format!("/ip4/10.0.0.{n}/tcp/5")
}

fn claimed(at: u64, hosts: &[u8], features: Features) -> PeerRecord {
    let addresses: Vec<_> = hosts.iter().map(|n| address(*n)).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let claim = Arc::new(claim(1, &addresses, features, UnixSeconds(at)));
    PeerRecord::from_claim(public_key(1), claim, NOW)
}

fn named(hosts: &[u8]) -> PeerRecord {
    let addresses = hosts.iter().map(|n| address(*n).parse().unwrap());
    PeerRecord::seed(public_key(1), Features::CLIENT, addresses, NOW)
}

fn hosts(record: &PeerRecord) -> Vec<String> {
    record
        .addresses()
        .iter()
        .map(|held| held.address.to_string())
        .collect()
}

fn texts(hosts: &[u8]) -> Vec<String> {
    hosts.iter().map(|n| address(*n)).collect()
}

/// Only a strictly newer claim replaces addresses, and never those the operator configured.
#[test]
fn newer_claim_keeps_operator_addresses() {
    let mut peer = named(&[1]);
    peer.merge(&claimed(10, &[1, 2, 3], Features::CLIENT), NOW);
    peer.seen_at(&address(2).parse().unwrap(), NOW, DialTimes::default());
    peer.merge(&claimed(11, &[2, 4], Features::NODE), NOW);
    assert_eq!(hosts(&peer), texts(&[1, 2, 4]));
    assert_eq!(
        peer.addresses()[1].last_seen(),
        Some(NOW),
        "an address named again keeps its history"
    );
    assert_eq!(
        peer.addresses()[1].claim().unwrap().signature.updated_at(),
        11
    );
    assert_eq!(peer.features(), Features::NODE);
    assert!(peer.is_seed());
}

/// An address at which this node reached the peer stays, whatever newer claims say.
#[test]
fn newer_claim_keeps_addresses_that_worked() {
    let mut peer = claimed(10, &[1, 2], Features::NODE);
    peer.seen_at(&address(1).parse().unwrap(), NOW, DialTimes::default());
    peer.merge(&claimed(11, &[3], Features::NODE), NOW);
    assert_eq!(hosts(&peer), texts(&[1, 3]));
    // One that names only addresses of a local network has none to dial.
    peer.merge(&claimed(12, &[], Features::CLIENT), NOW);
    assert_eq!(hosts(&peer), texts(&[1, 3]));
    assert_eq!(peer.features(), Features::CLIENT);
}

/// Addresses that worked once do not crowd out the one that was claimed last.
#[test]
fn failed_addresses_yield_to_new_ones() {
    let old: Vec<u8> = (1..=10).collect();
    let mut peer = claimed(10, &old, Features::NODE);
    for n in old {
        peer.seen_at(&address(n).parse().unwrap(), NOW, DialTimes::default());
        peer.failed_at(&address(n).parse().unwrap(), NOW, "refused");
    }
    peer.merge(&claimed(11, &[11], Features::NODE), NOW);
    assert_eq!(peer.addresses().len(), MAX_ADDRESSES);
    assert!(hosts(&peer).contains(&address(11)));
    assert!(!peer.is_offline());
}

#[test]
fn an_older_claim_is_ignored() {
    let mut peer = claimed(10, &[1], Features::NODE);
    let before = peer.clone();
    peer.merge(&claimed(9, &[2], Features::CLIENT), NOW);
    assert_eq!(peer, before);
}

#[test]
fn unsigned_features_never_overrule_signed_ones() {
    let mut peer = claimed(10, &[1], Features::NODE);
    peer.merge(&named(&[2]), NOW);
    assert_eq!(peer.features(), Features::NODE);
    assert_eq!(hosts(&peer), texts(&[1, 2]));
}

#[test]
fn peer_heard_again_is_undeleted() {
    let mut peer = claimed(10, &[1], Features::NODE);
    peer.deleted_at = NOW.into();
    peer.merge(&claimed(10, &[1], Features::NODE), NOW);
    assert_eq!(peer.deleted_at(), None);
    peer.deleted_at = NOW.into();
    peer.seen_at(&address(1).parse().unwrap(), NOW, DialTimes::default());
    assert_eq!(peer.deleted_at(), None);
}

#[test]
fn the_ten_best_addresses_are_kept() {
    let mut peer = named(&[1, 2, 3, 4, 5, 6, 7, 8]);
    peer.seen_at(&address(8).parse().unwrap(), NOW, DialTimes::default());
    peer.failed_at(&address(7).parse().unwrap(), NOW, "refused");
    let mut newer = claimed(10, &[11, 12, 13, 14, 15], Features::NODE);
    for n in 11..=15 {
        newer.seen_at(&address(n).parse().unwrap(), NOW, DialTimes::default());
    }
    peer.merge(&newer, NOW);
    assert_eq!(peer.addresses().len(), MAX_ADDRESSES);
    for n in [8, 11, 12, 13, 14, 15] {
        assert!(hosts(&peer).contains(&address(n)));
    }
}

#[test]
fn dialling_starts_with_the_best_address() {
    let mut peer = named(&[1, 2, 3]);
    let at = |n| address(n).parse().unwrap();
    peer.failed_at(&at(1), NOW, "refused");
    let latency = |ms| DialTimes {
        latency: Some(Duration::from_millis(ms)),
        dial_time: None,
    };
    peer.seen_at(&at(2), NOW, latency(900));
    peer.seen_at(&at(3), NOW, latency(100));
    let order: Vec<_> = peer
        .dial_order(NOW)
        .iter()
        .map(|held| held.address.to_string())
        .collect();
    assert_eq!(order, texts(&[3, 2, 1]));
}

#[test]
fn offline_means_every_address_failed() {
    let mut peer = named(&[1, 2]);
    assert!(!named(&[]).is_offline());
    peer.failed_at(&address(1).parse().unwrap(), NOW, "refused");
    assert!(!peer.is_offline());
    peer.failed_at(
        &address(2).parse().unwrap(),
        NOW.saturating_add(5),
        "refused",
    );
    assert!(peer.is_offline());
    assert_eq!(peer.offline_since(), Some(NOW));
    peer.seen_at(&address(2).parse().unwrap(), NOW, DialTimes::default());
    assert!(!peer.is_offline());
    assert_eq!(peer.addresses()[1].attempts(), 0);
}

#[test]
fn text_of_a_peer_is_cut() {
    let peer = named(&[]).with_agent(&"a".repeat(80), vec![Bytes::new(); 50]);
    assert_eq!(peer.user_agent().len(), MAX_USER_AGENT_BYTES);
    assert_eq!(peer.protocols().len(), MAX_PROTOCOLS);
}

/// A directory holds a hundred thousand of each.
#[test]
fn records_are_small() {
    assert_eq!(size_of::<PeerRecord>(), 120);
    assert_eq!(size_of::<AddressRecord>(), 72);
    assert_eq!(size_of::<Claim>(), 104);
}

/// Records of one peer with up to 3 operator's and 3 claimed addresses, so that none has to be cut.
fn records() -> impl Strategy<Value = PeerRecord> {
    let claim = proptest::option::of((0_u64..4, proptest::collection::vec(0_u8..5, 1..4)));
    let history = proptest::collection::vec((0_u8..8, 0_u64..100, any::<bool>()), 0..4);
    (claim, proptest::collection::vec(4_u8..7, 0..3), history).prop_map(
        |(claim, names, history)| {
            let mut record = match claim {
                Some((at, hosts)) => claimed(at, &hosts, Features::NODE),
                None => PeerRecord::new(public_key(1), Features::CLIENT, NOW),
            };
            record.merge(&named(&names), NOW);
            for (host, at, good) in history {
                let (host, at) = (address(host).parse().unwrap(), NOW.saturating_add(at));
                if good {
                    record.seen_at(&host, at, DialTimes::default());
                } else {
                    record.failed_at(&host, at, "refused");
                }
            }
            record
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merge_is_idempotent_and_bounded(mut held in records(), incoming in records()) {
        let newest = [&held, &incoming].iter().filter_map(|r| r.claim()).map(|c| c.signature.updated_at()).max();
        held.merge(&incoming, NOW);
        let once = held.clone();
        held.merge(&incoming, NOW);
        prop_assert_eq!(&held, &once);
        prop_assert!(held.addresses().len() <= MAX_ADDRESSES);
        prop_assert_eq!(held.claim().map(|c| c.signature.updated_at()), newest);
        let distinct: std::collections::BTreeSet<_> = hosts(&held).into_iter().collect();
        prop_assert_eq!(distinct.len(), held.addresses().len());
    }
}
