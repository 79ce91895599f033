use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use dht_core::{
    DedupHash, Entropy as _, FingerprintKey, ManualClock, SeededEntropy, Signing,
    test_util::{clear, encrypted, identity, public_key},
};

use super::*;
use crate::test_support::{self as support, NOW, run_filter};

fn seen() -> Seen {
    Seen::new(
        1_000,
        FingerprintKey::random(&mut SeededEntropy::new(1).rng()),
    )
}

fn layer(allowed: u32) -> DedupLayer<Arc<DedupTable>, Arc<ManualClock>> {
    let table = Arc::new(DedupTable::new(100, [0; 16]));
    DedupLayer::new(table, seen(), allowed, Arc::new(ManualClock::new(NOW)))
}

const DUPLICATE: Disposition = Disposition::Dropped(DropReason::Duplicate);

#[tokio::test]
async fn b040_as_many_pass_as_are_allowed() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    for allowed in [1, 3] {
        let layer = layer(allowed);
        for n in 1..=allowed + 2 {
            let ended = run_filter(layer.clone(), support::verified(frame.clone())).await;
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
        tower_test::mock::spawn_layer::<Inbound<Counted>, Disposition, _>(layer(2));
    for hits in 1..=2 {
        inner.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let frame = encrypted(&identity(3), &public_key(4), b"x", 1);
        let _response = service.call(support::verified(frame.clone()));
        let (message, _) = inner.next_request().await.unwrap();
        assert_eq!(message.envelope.hits, hits);
        assert_eq!(
            message.envelope.hash,
            dedup_key(&support::verified(frame).envelope).unwrap()
        );
    }
}

/// A store whose disk is full.
#[derive(Debug)]
struct Broken;

impl DedupStore for Broken {
    type Error = io::Error;

    fn try_record(&self, _: &DedupHash, _: Sighting, _: UnixSeconds) -> io::Result<u32> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn try_record_repeat(
        &self,
        _: &DedupHash,
        _: Sighting,
        _: u32,
        _: UnixSeconds,
    ) -> io::Result<Option<u32>> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[tokio::test]
async fn b044_a_store_that_fails_lets_nothing_through() {
    let layer = DedupLayer::new(Broken, seen(), 3, Arc::new(ManualClock::new(NOW)));
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let ended = run_filter(layer, support::verified(frame)).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Internal));
}

#[tokio::test]
async fn an_unsigned_body_in_another_encoding_is_a_repeat() {
    let layer = layer(1);
    let frame = clear(&identity(3), Signing::Anonymous, b"x", 1);
    let header = support::sealed(frame.clone()).envelope.header().clone();
    let body = support::sealed(frame.clone()).envelope.body().clone();
    let other = Bytes::from([&body[..], &[0x10, 0x01]].concat());
    let other = dht_core::encode_envelope(&header, &other);
    let passed = run_filter(layer.clone(), support::verified(frame)).await;
    assert_eq!(passed, Disposition::Delivered);
    assert_eq!(run_filter(layer, support::verified(other)).await, DUPLICATE);
}

#[tokio::test]
async fn an_unsigned_body_that_does_not_decode_leaves_no_trace() {
    let table = Arc::new(DedupTable::new(100, [0; 16]));
    let clock = Arc::new(ManualClock::new(NOW));
    let layer = DedupLayer::new(Arc::clone(&table), seen(), 1, clock);
    let frame = clear(&identity(3), Signing::Anonymous, b"x", 1);
    let header = support::sealed(frame).envelope.header().clone();
    let frame = dht_core::encode_envelope(&header, b"\xff");
    for _ in 0..2 {
        let ended = run_filter(layer.clone(), support::verified(frame.clone())).await;
        assert_eq!(ended, Disposition::Dropped(DropReason::UndecodableBody));
    }
    assert!(table.is_empty());
}

#[test]
fn readiness_is_that_of_the_inner_service() {
    support::assert_readiness_is_inner::<Inbound<Verified>, Inbound<Counted>, _>(layer(1));
}

#[test]
fn the_table_never_fails() {
    fn cannot_fail<T: DedupStore<Error = Infallible>>() {}
    cannot_fail::<DedupTable>();
}
