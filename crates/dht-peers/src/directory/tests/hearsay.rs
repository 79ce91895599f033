//! Effects of the claims of strangers on the directory.

use super::*;

/// A claim of the `n`-th stranger, which would lie at `distance` from this node.
fn hearsay(n: u64, address: &str, distance: u64) -> PeerRecord {
    let signed = Arc::new(claim(77, &[address], Features::NODE, NOW));
    let mut record = PeerRecord::from_claim(public_key(77), signed, NOW);
    // Keys are free, but making them takes long; nothing here checks the signature again.
    let mut id = [0; NodeId::LENGTH];
    for (to, from) in id.iter_mut().zip(public_key(0).node_id().as_bytes()) {
        *to = *from;
    }
    for (to, from) in id.iter_mut().zip(distance.to_be_bytes()) {
        *to ^= from;
    }
    for (to, from) in id.iter_mut().rev().zip(n.to_le_bytes()) {
        *to ^= from;
    }
    record.node_id = NodeId::from_bytes(&id).unwrap();
    record
}

/// A connected peer in the group of this IP address.
fn neighbour(directory: &Directory, seed: u64, ip: [u8; 4]) -> NodeId {
    let record = PeerRecord::new(public_key(seed), Features::NODE, NOW);
    directory.authenticated(record, NetGroup::of_ip(ip.into()), NOW);
    let peer = Arc::new(crate::test_util::peer(seed, Features::NODE));
    let connections = directory.connections();
    connections.insert(peer, crate::Direction::Inbound);
    public_key(seed).node_id()
}

fn small() -> Directory {
    Directory::with_limits(
        public_key(0).node_id(),
        DirectoryLimits {
            proven_bytes: 55_000,
            heard_of_bytes: 230_000,
            max_bans: 5,
        },
    )
}

/// 10^5 claims over one connection push out neither proven peers, nor what other sources told.
#[test]
fn claim_flood_leaves_other_sources() {
    let directory = small();
    let honest = neighbour(&directory, 1, [5, 5, 1, 1]);
    let hostile = neighbour(&directory, 2, [6, 6, 1, 1]);
    for seed in 10..30 {
        add(&directory, seed, Features::NODE);
    }
    let told: Vec<_> = (0..50_u8)
        .map(|n| hearsay(u64::from(n), &format!("/ip4/50.{n}.1.1/tcp/5"), u64::MAX))
        .collect();
    for record in &told {
        directory.hear(record.clone(), &honest, NOW);
    }
    let template = hearsay(0, "/ip4/60.1.1.1/tcp/5", 1);
    for n in 0..100_000_u64 {
        let mut record = hearsay_at(&template, n);
        let [a, b, ..] = n.to_le_bytes();
        record.addresses[0].address = Address::tcp([60, a, b, 1].into(), 5);
        directory.hear(record, &hostile, NOW);
    }
    assert!(told.iter().all(|peer| directory.contains(peer.node_id())));
    assert!((10..30).all(|seed| directory.contains(&public_key(seed).node_id())));
    let all = PeerFilter::heard_of(NOW);
    assert!(directory.count(&all) > 100, "the rest is the flood's");
    assert!(directory.count(&all) < 400);
}

/// The template under another node id.
fn hearsay_at(template: &PeerRecord, n: u64) -> PeerRecord {
    let mut record = template.clone();
    let mut id = [0xee; NodeId::LENGTH];
    for (to, from) in id.iter_mut().zip(n.to_le_bytes()) {
        *to = from;
    }
    record.node_id = NodeId::from_bytes(&id).unwrap();
    record
}

/// Of one source, claims of addresses in one network group do not push out the others.
#[test]
fn address_groups_share_a_source() {
    let directory = small();
    let relay = neighbour(&directory, 1, [5, 5, 1, 1]);
    let told = hearsay(1, "/ip4/50.1.1.1/tcp/5", u64::MAX);
    directory.hear(told.clone(), &relay, NOW);
    let template = hearsay(0, "/ip4/60.1.1.1/tcp/5", 1);
    for n in 0..10_000 {
        directory.hear(hearsay_at(&template, n), &relay, NOW);
    }
    assert!(directory.contains(told.node_id()));
    assert!(!directory.contains(hearsay_at(&template, 0).node_id()));
    assert!(directory.contains(hearsay_at(&template, 9_999).node_id()));
}

/// A source that many peers authenticate themselves from pushes out its own, and no peer that is connected.
#[test]
fn many_keys_of_one_group_share() {
    let directory = small();
    let first = neighbour(&directory, 1, [6, 6, 1, 1]);
    let other = neighbour(&directory, 2, [5, 5, 1, 1]);
    directory.connections().remove(&other);
    let template = PeerRecord::new(public_key(3), Features::NODE, NOW);
    for n in 0..10_000 {
        let from = NetGroup::of_ip([6, 6, 9, 9].into());
        directory.authenticated(hearsay_at(&template, n), from, NOW);
    }
    assert!(directory.contains(&first) && directory.contains(&other));
    assert!(directory.len() < 200, "{}", directory.len());
}

/// A thousand keys of one network group, all nearer than anybody else, narrow the region by one peer. Those whose
/// network is not known, as behind a proxy, count each.
#[test]
fn region_counts_each_source_once() {
    for (from, counts) in [(NetGroup::V4([6, 6]), 1), (NetGroup::Unknown, 8)] {
        let directory = directory();
        let me = *directory.me();
        let mut others: Vec<_> = (1..=20_u8)
            .map(|seed| neighbour(&directory, seed.into(), [20, seed, 1, 1]))
            .collect();
        others.sort_by_key(|id| id.distance(&me));
        let threshold = || directory.region_thresholds(8, NOW).nodes;
        assert_eq!(threshold(), me.distance(&others[7]));
        let template = PeerRecord::new(public_key(30), Features::NODE, NOW);
        for n in 1..=1_000 {
            directory.authenticated(hearsay_at(&template, n), from, NOW);
        }
        let nearest = match counts {
            1 => me.distance(&others[6]),
            _ => me.distance(&directory.closest(&me, 8, &PeerFilter::reachable(NOW))[7].node_id),
        };
        assert_eq!(threshold(), nearest, "{from:?}");
    }
}

/// A thousand signed joins of peers nobody can reach decide neither what is in the region, nor who is closest.
#[test]
fn signed_joins_leave_the_region() {
    let directory = directory();
    let relay = neighbour(&directory, 1, [5, 5, 1, 1]);
    for seed in 10..30 {
        add(&directory, seed, Features::NODE);
    }
    let me = *directory.me();
    let (before, reachable) = (
        directory.region_thresholds(8, NOW),
        PeerFilter::reachable(NOW),
    );
    let closest = directory.closest(&me, 8, &reachable);
    assert_ne!(before.nodes, Distance::MAX);
    for n in 1..=1_000 {
        let join = hearsay(n, "/ip4/60.1.1.1/tcp/5", 0);
        assert_eq!(directory.hear(join, &relay, NOW), Change::Added);
    }
    assert_eq!(directory.region_thresholds(8, NOW), before);
    assert_eq!(directory.closest(&me, 8, &reachable), closest);
    let rng = &mut ChaCha12Rng::seed_from_u64(1);
    let drawn = directory.random(100, &reachable, rng);
    assert!(drawn.iter().all(|peer| peer.is_proven()));
    // They are there, as suggestions.
    assert_eq!(directory.count(&PeerFilter::heard_of(NOW)), 1_000);
}

/// One that authenticates itself, whichever side dialled, is proven from then on and counts.
#[test]
fn authentication_proves_a_heard_peer() {
    let directory = directory();
    let relay = neighbour(&directory, 1, [5, 5, 1, 1]);
    let address: Address = "/ip4/50.1.1.1/tcp/5".parse().unwrap();
    let heard = |seed| {
        let signed = Arc::new(claim(seed, &["/ip4/50.1.1.1/tcp/5"], Features::NODE, NOW));
        PeerRecord::from_claim(public_key(seed), signed, NOW)
    };
    let ids = [2, 3].map(|seed| {
        directory.hear(heard(seed), &relay, NOW);
        public_key(seed).node_id()
    });
    let reachable = PeerFilter::reachable(NOW);
    assert_eq!(directory.count(&reachable), 1);
    assert!(directory.mark_seen(&ids[0], &address, DialTimes::default(), NOW));
    directory.authenticated(heard(3), NetGroup::Unknown, LATER);
    assert_eq!(directory.count(&reachable), 3);
    assert_eq!(directory.count(&PeerFilter::heard_of(NOW)), 0);
    let inbound = directory.find(&ids[1]).unwrap();
    assert!(inbound.is_proven());
    assert_eq!(inbound.last_seen(), Some(LATER));
    // Hearsay about a proven peer leaves it proven.
    directory.hear(heard(2), &relay, NOW);
    assert!(directory.find(&ids[0]).unwrap().is_proven());
}
