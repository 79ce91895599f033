use std::sync::Arc;

use dht_core::{
    DedupHash, Disposition, Entropy as _, FingerprintKey, ManualClock, SeededEntropy, Signing,
    UnixSeconds,
    test_util::{clear, identity},
};
use dht_dedup::MIN_RETENTION_SECONDS;

use super::*;
use crate::test_support::{self as support, NOW, raw, run_check};

fn cache() -> FingerprintCache {
    let key = FingerprintKey::random(&mut SeededEntropy::new(1).rng());
    FingerprintCache::new(1_024, key)
}

const META: DedupMeta = DedupMeta {
    signed: true,
    expires: None,
};

fn check(
    table: &DedupTable,
    seen: &FingerprintCache,
    allowed: u32,
    clock: &Arc<ManualClock>,
) -> Arc<ExactCopy> {
    let clock = Arc::clone(clock) as SharedClock;
    Arc::new(ExactCopy::new(table.clone(), seen.clone(), allowed, clock))
}

#[tokio::test]
async fn only_copies_of_validated_envelopes_drop() {
    let (seen, table) = (cache(), DedupTable::new(100, [0; 16]));
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = check(&table, &seen, 1, &clock);
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);

    // Passing once proves nothing: nobody has validated it yet.
    for _ in 0..3 {
        let passed = run_check(layer.clone(), raw(frame.clone())).await;
        assert_eq!(passed, Disposition::Delivered);
    }
    let envelope = raw(frame.clone()).envelope;
    let hash = support::sealed(frame.clone()).envelope.dedup_hash();
    assert_eq!(table.record(&hash, META, NOW), 1);
    seen.insert(seen.fingerprint(&envelope), hash);

    let duplicate = Disposition::Dropped(DropReason::Duplicate);
    assert_eq!(
        run_check(layer.clone(), raw(frame.clone())).await,
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
    assert_eq!(run_check(layer.clone(), raw(tagged)).await, duplicate);
    let changed = dht_core::Header {
        expires: Some(UnixSeconds(NOW.0 + 5)),
        ..header
    };
    let changed = dht_core::encode_envelope(&changed, &body);
    assert_eq!(
        run_check(layer.clone(), raw(changed)).await,
        Disposition::Delivered
    );

    // A message that the table has forgotten is not a duplicate, whatever the cache remembers.
    clock.advance(24 * 3_600 + MIN_RETENTION_SECONDS);
    for n in 0..200_u8 {
        table.record(&DedupHash([n; 32]), META, clock.now());
    }
    table.trim(clock.now());
    assert_eq!(run_check(layer, raw(frame)).await, Disposition::Delivered);
}

#[tokio::test]
async fn copies_below_the_limit_pass() {
    let (seen, table) = (cache(), DedupTable::new(100, [0; 16]));
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = check(&table, &seen, 3, &clock);
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let hash = support::sealed(frame.clone()).envelope.dedup_hash();
    seen.insert(seen.fingerprint(&raw(frame.clone()).envelope), hash);
    for _ in 0..3 {
        let passed = run_check(layer.clone(), raw(frame.clone())).await;
        assert_eq!(passed, Disposition::Delivered);
        table.record(&hash, META, NOW);
    }
    let ended = run_check(layer, raw(frame)).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Duplicate));
    assert_eq!(table.count(&hash), 4);
}
