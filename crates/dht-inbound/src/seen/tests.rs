use std::sync::Arc;

use dht_core::{
    Entropy as _, ManualClock, SeededEntropy, Signing, UnixSeconds,
    test_util::{clear, identity},
};

use super::*;
use crate::{
    DedupTable, MIN_RETENTION_SECONDS,
    test_support::{self as support, NOW, raw, run_filter},
};

fn seen(capacity: usize) -> Seen {
    Seen::new(
        capacity,
        FingerprintKey::random(&mut SeededEntropy::new(1).rng()),
    )
}

fn fingerprint(n: u64) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    // As spread as the real ones.
    bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Fingerprint(bytes)
}

fn sighting() -> Sighting {
    Sighting {
        signed: true,
        expires: None,
    }
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_newest() {
    let seen = seen(1_024);
    for n in 0..100_000 {
        seen.insert(fingerprint(n), DedupHash([7; 32]));
        assert_eq!(seen.find(fingerprint(n)), Some(DedupHash([7; 32])));
    }
    assert!(seen.len() <= 1_024);
    assert_eq!(seen.find(fingerprint(0)), None);
}

#[tokio::test]
async fn only_exact_copies_of_what_was_validated_are_dropped_here() {
    let (seen, table) = (seen(1_024), Arc::new(DedupTable::new(100, [0; 16])));
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = SeenLayer::new(Arc::clone(&table), seen.clone(), 1, Arc::clone(&clock));
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);

    // Passing once proves nothing: nobody has validated it yet.
    for _ in 0..3 {
        let passed = run_filter(layer.clone(), raw(frame.clone())).await;
        assert_eq!(passed, Disposition::Delivered);
    }
    let envelope = raw(frame.clone()).envelope;
    let hash = support::sealed(frame.clone()).envelope.dedup_hash();
    assert_eq!(table.record(&hash, sighting(), NOW), 1);
    seen.insert(seen.fingerprint(&envelope), hash);

    let duplicate = Disposition::Dropped(DropReason::Duplicate);
    assert_eq!(
        run_filter(layer.clone(), raw(frame.clone())).await,
        duplicate
    );
    assert_eq!(table.count(&hash), 2, "repeats are counted");

    // A copy with another tag is the same; with another anything else it is not.
    let header = support::sealed(frame.clone()).envelope.header().clone();
    let body = support::sealed(frame.clone()).envelope.body().clone();
    let tagged = dht_core::Header {
        tag: dht_core::MessageTag(99),
        ..header.clone()
    };
    let tagged = dht_core::encode_envelope(&tagged, &body);
    assert_eq!(run_filter(layer.clone(), raw(tagged)).await, duplicate);
    let changed = dht_core::Header {
        expires: Some(UnixSeconds(NOW.0 + 5)),
        ..header
    };
    let changed = dht_core::encode_envelope(&changed, &body);
    assert_eq!(
        run_filter(layer.clone(), raw(changed)).await,
        Disposition::Delivered
    );

    // What the table has forgotten is not a duplicate, whatever the cache remembers.
    clock.advance(24 * 3_600 + MIN_RETENTION_SECONDS);
    for n in 0..200_u8 {
        table.record(&DedupHash([n; 32]), sighting(), clock.now());
    }
    table.trim(clock.now());
    assert_eq!(run_filter(layer, raw(frame)).await, Disposition::Delivered);
}

#[tokio::test]
async fn copies_below_the_limit_go_the_long_way_and_are_counted_there() {
    let (seen, table) = (seen(1_024), Arc::new(DedupTable::new(100, [0; 16])));
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = SeenLayer::new(Arc::clone(&table), seen.clone(), 3, clock);
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let hash = support::sealed(frame.clone()).envelope.dedup_hash();
    seen.insert(seen.fingerprint(&raw(frame.clone()).envelope), hash);
    for _ in 0..3 {
        let passed = run_filter(layer.clone(), raw(frame.clone())).await;
        assert_eq!(passed, Disposition::Delivered);
        table.record(&hash, sighting(), NOW);
    }
    let ended = run_filter(layer, raw(frame)).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Duplicate));
    assert_eq!(table.count(&hash), 4);
}

#[test]
fn readiness_is_that_of_the_inner_service() {
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = SeenLayer::new(Arc::new(DedupTable::new(1, [0; 16])), seen(64), 1, clock);
    support::assert_readiness_is_inner::<Inbound<RawEnvelope>, Inbound<RawEnvelope>, _>(layer);
}
