use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Disposition, Entropy as _, FingerprintKey, ManualClock, SeededEntropy, Signing,
    test_util::{clear, encrypted, identity, public_key},
};
use dht_stack::FilterLayer;

use super::*;
use crate::test_support::{self as support, NOW, run_check};

fn check(allowed: u32) -> Dedup {
    let key = FingerprintKey::random(&mut SeededEntropy::new(1).rng());
    Dedup {
        recipient: public_key(9),
        // No `Commit` follows here: what is reserved would be forgotten.
        relays_gossip: true,
        table: DedupTable::new(100, [0; 16]),
        fingerprints: FingerprintCache::new(1_000, key),
        allowed,
        clock: Arc::new(ManualClock::new(NOW)),
    }
}

const DUPLICATE: Disposition = Disposition::Dropped(DropReason::Duplicate);

#[tokio::test]
async fn b040_as_many_pass_as_are_allowed() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    for allowed in [1, 3] {
        let layer = check(allowed);
        for n in 1..=allowed + 2 {
            let ended = run_check(layer.clone(), support::verified(frame.clone())).await;
            let expected = if n <= allowed {
                Disposition::Delivered
            } else {
                DUPLICATE
            };
            assert_eq!(ended, expected);
        }
    }
}

#[tokio::test]
async fn the_count_travels_with_the_message() {
    let (mut service, mut inner) =
        tower_test::mock::spawn_layer::<InboundEnvelope<Deduped>, Disposition, _>(
            FilterLayer::new(check(2)),
        );
    for occurrences in 1..=2 {
        inner.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let frame = encrypted(&identity(3), &public_key(4), b"x", 1);
        let _response = service.call(support::verified(frame.clone()));
        let (message, _) = inner.next_request().await.unwrap();
        assert_eq!(message.envelope.occurrences, occurrences);
        assert_eq!(
            message.envelope.hash,
            dedup_key(&support::verified(frame).envelope).unwrap()
        );
    }
}

#[tokio::test]
async fn reencoded_unsigned_body_is_a_repeat() {
    let layer = check(1);
    let frame = clear(&identity(3), Signing::Anonymous, b"x", 1);
    let header = support::sealed(frame.clone()).envelope.header().clone();
    let body = support::sealed(frame.clone()).envelope.body().clone();
    let other = Bytes::from([&body[..], &[0x10, 0x01]].concat());
    let other = dht_core::encode_envelope(&header, &other);
    let passed = run_check(layer.clone(), support::verified(frame)).await;
    assert_eq!(passed, Disposition::Delivered);
    assert_eq!(run_check(layer, support::verified(other)).await, DUPLICATE);
}

#[tokio::test]
async fn deliverers_of_repeats_are_noted() {
    use futures::FutureExt as _;
    let layer = check(1);
    let table = layer.table.clone();
    let frame = encrypted(&identity(3), &public_key(4), b"x", 1);
    for n in 0..2 {
        let message = support::verified(frame.clone());
        let deliverer = message.source.node_id;
        let hash = dedup_key(&message.envelope).unwrap();
        let stranger = *identity(77).node_id();
        let noted = |peer| table.handed_over(&peer, &hash).now_or_never().is_some();
        assert_eq!(noted(deliverer), n > 0);
        run_check(layer.clone(), message).await;
        assert!(noted(deliverer) && !noted(stranger));
    }
}

/// An unsigned body that does not decode leaves no trace.
#[tokio::test]
async fn undecodable_unsigned_body_leaves_no_trace() {
    let layer = check(1);
    let table = layer.table.clone();
    let frame = clear(&identity(3), Signing::Anonymous, b"x", 1);
    let header = support::sealed(frame).envelope.header().clone();
    let frame = dht_core::encode_envelope(&header, b"\xff");
    for _ in 0..2 {
        let ended = run_check(layer.clone(), support::verified(frame.clone())).await;
        assert_eq!(ended, Disposition::Dropped(DropReason::UndecodableBody));
    }
    assert!(table.is_empty());
}

/// The store of this node had no place for it, and may have one now.
#[tokio::test]
async fn refused_copies_pass_once_more() {
    let check = check(1);
    let frame = encrypted(&identity(3), &public_key(4), b"x", 1);
    let message = || support::verified(frame.clone());
    let hash = dedup_key(&message().envelope).unwrap();
    let first = check.check(message()).unwrap().envelope;
    assert_eq!((first.occurrences, first.already_forwarded), (1, false));
    assert_eq!(check.check(message()).unwrap_err(), DropReason::Duplicate);
    check.table.set_store_refused(&hash, Some(NOW));
    assert_eq!(check.check(message()).unwrap_err(), DropReason::Duplicate);
    let check = Dedup {
        clock: Arc::new(ManualClock::new(NOW.saturating_add(5))),
        ..check
    };
    let again = check.check(message()).unwrap().envelope;
    assert_eq!((again.occurrences, again.already_forwarded), (1, true));
    check.table.set_store_refused(&hash, None);
    assert_eq!(check.check(message()).unwrap_err(), DropReason::Duplicate);
}
