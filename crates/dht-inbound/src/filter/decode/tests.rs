use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Disposition, Features, ManualClock, Signing,
    test_util::{clear, identity},
};
use dht_peers::PeerRecord;
use dht_stack::BytePermit;

use super::*;
use crate::{
    filter::RateLimits,
    test_support::{DELIVERER, NOW, peer, received, run_check},
};

fn decode(known_in: Option<Directory>) -> Decode {
    Decode {
        limiter: RateLimiter::new(RateLimits::default(), [0; 16]),
        clock: Arc::new(ManualClock::new(NOW)),
        known_in,
    }
}

fn directory() -> Directory {
    let directory = Directory::new(*identity(1).node_id());
    let deliverer = peer(DELIVERER).public_key;
    directory.add_or_update(PeerRecord::new(deliverer, Features::NODE, NOW), NOW);
    directory
}

fn dropped(reason: DropReason) -> Disposition {
    Disposition::Dropped(reason)
}

#[tokio::test]
async fn b059_undecodable_or_unknown_source_is_dropped() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let directory = directory();
    let check = decode(Some(directory.clone()));
    let run = |message| run_check(check.clone(), message);

    assert_eq!(
        run(received(Bytes::new())).await,
        dropped(DropReason::Empty)
    );
    let junk = Bytes::from_static(b"\xff\xff\xff");
    assert_eq!(run(received(junk)).await, dropped(DropReason::Undecodable));
    assert_eq!(run(received(frame.clone())).await, Disposition::Delivered);
    let stranger = InboundFrame {
        source: peer(9),
        frame,
        permit: BytePermit::none(),
    };
    assert_eq!(run(stranger).await, dropped(DropReason::UnknownSource));
    assert_eq!(directory.banned(NOW), []);
}

#[tokio::test]
async fn b060_appended_unknown_field_is_dropped() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let check = decode(None);
    let longer = Bytes::from([&frame[..], &[0x78, 0x01]].concat());
    let ended = run_check(check, received(longer)).await;
    assert_eq!(ended, dropped(DropReason::NotCanonical));
}

#[tokio::test]
async fn permit_lives_with_the_message() {
    let budget = dht_stack::ByteBudget::new(1 << 20);
    let check = decode(None);
    let (mut service, mut inner) =
        tower_test::mock::spawn_layer::<InboundEnvelope<RawEnvelope>, Disposition, _>(
            dht_stack::FilterLayer::new(check),
        );
    inner.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let permit = budget.try_acquire(1_000).unwrap();
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let response = service.call(InboundFrame {
        permit,
        ..received(frame)
    });
    let (message, reply) = inner.next_request().await.unwrap();
    assert!(budget.available() < budget.total());
    drop(message);
    assert_eq!(budget.available(), budget.total());
    reply.send_response(Disposition::Delivered);
    assert_eq!(response.await.unwrap(), Disposition::Delivered);
}
