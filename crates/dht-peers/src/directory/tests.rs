use std::collections::BTreeSet;

use dht_core::{Distance, Features, Severity};
use parking_lot::Mutex;
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{
    AllowListFull, BanOutcome, FOREVER, FeatureRule, MAX_ALLOWED,
    test_util::{claim, public_key, record},
};

mod hearsay;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const LATER: UnixSeconds = UnixSeconds(NOW.0 + 600);

const FEATURES: [Features; 4] = [
    Features::NODE,
    Features::CLIENT,
    Features::MESSAGE_PROPAGATION,
    Features::DHT_STORE_FORWARD,
];

fn directory() -> Directory {
    Directory::new(public_key(0).node_id())
}

fn add(directory: &Directory, seed: u64, features: Features) -> NodeId {
    directory.add_or_update(record(seed, features, NOW), NOW);
    public_key(seed).node_id()
}

fn fail(directory: &Directory, seed: u64) {
    let id = public_key(seed).node_id();
    assert!(directory.mark_failed(&id, &Address::memory(seed + 1), "refused", NOW));
}

/// A directory of `n` peers of all kinds in all states, and their ids.
fn populated(n: u64) -> (Directory, Vec<NodeId>) {
    let directory = directory();
    let ids = (1..=n)
        .map(|seed| {
            add(
                &directory,
                seed,
                FEATURES[usize::try_from(seed).unwrap() % 4],
            )
        })
        .collect();
    for seed in 1..=n {
        let id = public_key(seed).node_id();
        match seed % 7 {
            1 => fail(&directory, seed),
            2 => assert!(directory.delete(&id, NOW)),
            3 => _ = directory.ban(id, LATER, Severity::Low, "test", NOW),
            4 => _ = directory.mark_seen(&id, &Address::memory(1), DialTimes::default(), NOW),
            _ => (),
        }
    }
    (directory, ids)
}

fn filters(now: UnixSeconds, exclude: &[NodeId]) -> Vec<PeerFilter<'_>> {
    let presets = [
        PeerFilter::everybody(now),
        PeerFilter::allowed(now),
        PeerFilter::reachable(now),
        PeerFilter::active(now),
    ];
    let rules = [
        FeatureRule::Any,
        FeatureRule::Exactly(Features::NODE),
        FeatureRule::Contains(Features::MESSAGE_PROPAGATION),
    ];
    presets
        .into_iter()
        .flat_map(|preset| rules.map(|rule| preset.features(rule).exclude(exclude)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn queries_equal_the_naive_ones(
        size in 0_u64..60, target: [u8; 13], n in 0_usize..20, later: bool, seed: u64,
    ) {
        let (directory, ids) = populated(size);
        let target = NodeId::from_bytes(&target).unwrap();
        let now = if later { LATER } else { NOW };
        let exclude: Vec<_> = ids.iter().copied().step_by(3).collect();
        for filter in filters(now, &exclude) {
            let mut naive: Vec<_> =
                ids.iter().filter_map(|id| directory.find(id)).filter(|peer| filter.matches(peer)).collect();
            naive.sort_by_key(|peer| peer.node_id().distance(&target));
            prop_assert_eq!(directory.count(&filter), naive.len());

            let chosen = directory.random(n, &filter, &mut ChaCha12Rng::seed_from_u64(seed));
            let distinct: BTreeSet<_> = chosen.iter().map(|peer| *peer.node_id()).collect();
            prop_assert_eq!(distinct.len(), n.min(naive.len()));
            prop_assert_eq!(distinct.len(), chosen.len());
            prop_assert!(chosen.iter().all(|peer| filter.matches(peer)));

            naive.truncate(n);
            prop_assert_eq!(directory.closest(&target, n, &filter), naive);
        }
    }

    #[test]
    fn random_stays_complete_while_peers_change(steps in proptest::collection::vec((1_u64..20, 0_usize..5), 0..60)) {
        let directory = directory();
        let mut model = BTreeSet::new();
        for (seed, step) in steps {
            let id = public_key(seed).node_id();
            match FEATURES.get(step) {
                Some(features) => {
                    add(&directory, seed, *features);
                    model.insert(id);
                }
                None => prop_assert_eq!(directory.remove(&id).is_some(), model.remove(&id)),
            }
            let everybody = directory.random(100, &PeerFilter::everybody(NOW), &mut ChaCha12Rng::seed_from_u64(1));
            let everybody: BTreeSet<_> = everybody.iter().map(|peer| *peer.node_id()).collect();
            prop_assert_eq!(&everybody, &model);
        }
    }

    #[test]
    fn bans_end_when_they_should(lengths in proptest::collection::vec(0_u64..50, 1..20), wait in 0_u64..60) {
        let directory = directory();
        for (seed, length) in lengths.iter().enumerate() {
            if seed % 2 == 0 {
                add(&directory, seed as u64 + 1, Features::NODE);
            }
            let until = NOW.saturating_add(*length);
            directory.ban(public_key(seed as u64 + 1), until, Severity::Low, "test", NOW);
        }
        let now = NOW.saturating_add(wait);
        let mut active = 0;
        for (seed, length) in lengths.iter().enumerate() {
            let id = public_key(seed as u64 + 1).node_id();
            prop_assert_eq!(directory.is_banned(&id, now), wait < *length);
            if let Some(peer) = directory.find(&id) {
                prop_assert_eq!(peer.is_banned(now), wait < *length);
            }
            active += usize::from(wait < *length);
        }
        prop_assert_eq!(directory.banned(now).len(), active);
    }
}

#[test]
fn own_record_is_ignored() {
    let directory = directory();
    assert_eq!(
        directory.add_or_update(record(0, Features::NODE, NOW), NOW),
        Change::Ourselves
    );
    assert!(directory.is_empty());
    let outcome = directory.ban(public_key(0), FOREVER, Severity::High, "test", NOW);
    assert_eq!(outcome, BanOutcome::Ourselves);
}

#[test]
fn the_same_record_twice_changes_nothing() {
    let directory = directory();
    assert_eq!(
        directory.add_or_update(record(1, Features::NODE, NOW), NOW),
        Change::Added
    );
    let generation = directory.generation();
    assert_eq!(
        directory.add_or_update(record(1, Features::NODE, NOW), NOW),
        Change::Unchanged
    );
    assert_eq!(directory.generation(), generation);
}

/// Peers are found by node id, by public key and by a prefix of either.
#[test]
fn peers_are_found_by_prefix() {
    let (directory, ids) = populated(40);
    let key = public_key(5);
    assert_eq!(
        directory.find_by_key(&key).unwrap().node_id(),
        &key.node_id()
    );
    for id in &ids {
        let digits = id.to_string();
        for length in [26, 20, 1] {
            let found = directory.find_by_prefix(&digits[..length], 100);
            assert!(found.iter().any(|peer| peer.node_id() == id));
            assert!(
                found
                    .iter()
                    .all(|peer| peer.node_id().to_string().starts_with(&digits[..length]))
            );
        }
    }
    let by_key = directory.find_by_prefix(&key.to_string().to_uppercase(), 5);
    assert_eq!(by_key[0].public_key(), key.compressed());
    assert_eq!(directory.find_by_prefix("", 7).len(), 7);
    assert!(directory.find_by_prefix("xyz", 7).is_empty());
    assert!(directory.find_by_prefix(&"0".repeat(300), 7).is_empty());
}

#[test]
fn unknown_peers_can_be_banned() {
    let directory = directory();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    directory.on_ban(move |ban| tell.lock().push(ban.node_id));
    directory.ban(public_key(1), LATER, Severity::Medium, "by key", NOW);
    directory.ban(
        public_key(2).node_id(),
        LATER,
        Severity::Medium,
        "by id",
        NOW,
    );
    assert_eq!(
        *told.lock(),
        [public_key(1).node_id(), public_key(2).node_id()]
    );

    // The ban is there when the peer becomes known, and stays when it is forgotten.
    let id = add(&directory, 2, Features::NODE);
    assert!(directory.find(&id).unwrap().is_banned(NOW));
    assert!(
        directory
            .closest(&id, 1, &PeerFilter::allowed(NOW))
            .is_empty()
    );
    directory.remove(&id);
    assert!(directory.is_banned(&id, NOW));
    assert!(directory.unban(id));
    assert!(!directory.is_banned(&id, NOW));
    assert_eq!(&*directory.banned(NOW)[0].reason, "by key");
}

#[test]
fn the_longer_ban_stands() {
    let directory = directory();
    let id = add(&directory, 1, Features::NODE);
    directory.ban(id, FOREVER, Severity::High, "long", NOW);
    directory.ban(id, LATER, Severity::Low, "short", NOW);
    let ban = &directory.banned(LATER)[0];
    assert_eq!((&*ban.reason, ban.severity), ("long", Severity::High));
    assert_eq!(ban.public_key, Some(public_key(1).into()));
}

#[test]
fn the_allow_list_is_bounded() {
    let directory = directory();
    let id = |n: usize| {
        let mut bytes = [0; NodeId::LENGTH];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(&bytes).unwrap()
    };
    for n in 0..MAX_ALLOWED {
        assert_eq!(directory.allow(id(n)), Ok(true));
    }
    assert_eq!(directory.allow(id(MAX_ALLOWED)), Err(AllowListFull));
    assert_eq!(directory.allow(id(0)), Ok(false));
    assert!(directory.disallow(&id(0)));
    assert_eq!(directory.allow(id(MAX_ALLOWED)), Ok(true));
    assert_eq!(directory.allowed().len(), MAX_ALLOWED);
}

#[test]
fn the_allow_list_wins() {
    let directory = directory();
    let id = public_key(1).node_id();
    directory.ban(id, LATER, Severity::Low, "test", NOW);
    assert_eq!(directory.allow(id), Ok(true));
    assert!(!directory.is_banned(&id, NOW));
    let outcome = directory.ban(id, LATER, Severity::Low, "test", NOW);
    assert_eq!(outcome, BanOutcome::AllowListed);
    assert_eq!(directory.allowed(), [id]);
    assert!(directory.disallow(&id));
    assert!(matches!(
        directory.ban(id, LATER, Severity::Low, "test", NOW),
        BanOutcome::Banned(_)
    ));
    assert_eq!(
        directory.ban(id, NOW, Severity::Low, "past", NOW),
        BanOutcome::AlreadyOver
    );
}

#[test]
fn bans_of_unknown_peers_are_bounded() {
    let me = public_key(0).node_id();
    let directory = Directory::with_limits(
        me,
        DirectoryLimits {
            max_bans: 5,
            ..DirectoryLimits::default()
        },
    );
    let known = add(&directory, 100, Features::NODE);
    directory.ban(known, NOW.saturating_add(1), Severity::Low, "known", NOW);
    for seed in 1..=20 {
        directory.ban(
            public_key(seed),
            NOW.saturating_add(seed + 1),
            Severity::Low,
            "test",
            NOW,
        );
    }
    assert_eq!(directory.banned(NOW).len(), 6);
    assert!(directory.is_banned(&known, NOW));
    assert!(directory.is_banned(&public_key(20).node_id(), NOW));
    assert!(!directory.is_banned(&public_key(1).node_id(), NOW));
}

#[test]
fn full_directory_drops_least_useful() {
    let me = public_key(0).node_id();
    let directory = Directory::with_limits(
        me,
        DirectoryLimits {
            // The operator's seed and the peer it allowed do not count.
            proven_bytes: shares::bytes(&record(1, Features::NODE, NOW)) * 7 - 1,
            ..DirectoryLimits::default()
        },
    );
    let ids: Vec<_> = (1..=6)
        .map(|seed| add(&directory, seed, Features::NODE))
        .collect();
    let seed_peer = PeerRecord::seed(public_key(9), Features::NODE, [], NOW);
    for (id, seed) in ids.iter().zip(1..).skip(2) {
        directory.mark_seen(id, &Address::memory(seed + 1), DialTimes::default(), NOW);
    }
    fail(&directory, 1);
    directory.allow(ids[1]).unwrap();
    directory.add_or_update(seed_peer, NOW);
    for seed in [7, 8] {
        add(&directory, seed, Features::NODE);
    }
    assert!(!directory.contains(&ids[0]), "the offline peer goes first");
    // Then one never seen, and neither the newcomer nor the seed nor the peer that is allowed.
    let newcomer = add(&directory, 10, Features::NODE);
    assert!(!directory.contains(&public_key(7).node_id()));
    for id in [newcomer, ids[1], public_key(9).node_id()] {
        assert!(directory.contains(&id));
    }
    // Then the one not seen for longest that is not connected.
    let connected = Arc::new(crate::test_util::peer(3, Features::NODE));
    let connections = directory.connections();
    connections.insert(connected, crate::Direction::Inbound);
    let (second, later) = (ids[3], NOW.saturating_add(1));
    for seed in [5, 6, 8, 10] {
        let (id, address) = (public_key(seed).node_id(), Address::memory(seed + 1));
        directory.mark_seen(&id, &address, DialTimes::default(), later);
    }
    add(&directory, 11, Features::NODE);
    assert!(directory.contains(&ids[2]) && !directory.contains(&second));
}

#[test]
fn region_follows_definition_after_every_change() {
    let directory = directory();
    let me = *directory.me();
    let far = NodeId::from_bytes(&me.as_bytes().map(|byte| !byte)).unwrap();
    let everything = RegionThresholds {
        nodes: Distance::MAX,
        clients: Distance::MAX,
    };
    assert_eq!(directory.region_thresholds(4, NOW), everything);

    let mut nodes: Vec<_> = (1..=12)
        .map(|seed| add(&directory, seed, Features::NODE))
        .collect();
    nodes.sort_by_key(|id| id.distance(&me));
    for seed in 21..=24 {
        add(&directory, seed, Features::CLIENT);
    }
    assert!(!directory.in_region(&far, 4, NOW));
    assert!(directory.in_region(&far, 0, NOW));
    assert!(
        directory.in_region(&far, 5, NOW),
        "there are only four clients"
    );
    let threshold = |now| directory.region_thresholds(4, now).nodes;
    assert_eq!(threshold(NOW), me.distance(&nodes[3]));

    directory.ban(nodes[0], LATER, Severity::Low, "test", NOW);
    assert_eq!(threshold(NOW), me.distance(&nodes[4]));
    assert_eq!(
        threshold(LATER),
        me.distance(&nodes[3]),
        "the ban has lapsed"
    );
    assert_eq!(threshold(NOW), me.distance(&nodes[4]));
    directory.unban(nodes[0]);
    assert_eq!(threshold(NOW), me.distance(&nodes[3]));
    directory.delete(&nodes[0], NOW);
    assert_eq!(threshold(NOW), me.distance(&nodes[4]));
    directory.remove(&nodes[1]);
    assert_eq!(threshold(NOW), me.distance(&nodes[5]));
    assert_eq!(
        directory.region_thresholds(2, NOW).nodes,
        me.distance(&nodes[3])
    );

    let third = (1..=12)
        .find(|seed| public_key(*seed).node_id() == nodes[2])
        .unwrap();
    fail(&directory, third);
    assert_eq!(
        directory.region_thresholds(2, NOW).nodes,
        me.distance(&nodes[4])
    );
}

#[test]
fn newer_claim_moves_peer_between_roles() {
    let directory = directory();
    let key = public_key(1);
    let with = |features, at| {
        let signed = Arc::new(claim(1, &["/ip4/1.2.3.4/tcp/5"], features, UnixSeconds(at)));
        PeerRecord::from_claim(key, signed, NOW)
    };
    directory.add_or_update(with(Features::CLIENT, 10), NOW);
    assert_eq!(
        directory.add_or_update(with(Features::NODE, 11), NOW),
        Change::Updated
    );
    let nodes = PeerFilter::heard_of(NOW).features(FeatureRule::Exactly(Features::NODE));
    let clients = PeerFilter::heard_of(NOW).features(FeatureRule::Exactly(Features::CLIENT));
    assert_eq!((directory.count(&nodes), directory.count(&clients)), (1, 0));
    let held = directory.find_by_key(&key).unwrap();
    assert!(held.addresses()[0].claim().is_some());
}
