use bytes::Bytes;
use dht_core::{
    Features, Signing,
    test_util::{clear, identity},
};
use dht_peers::PeerRecord;
use dht_peers::policy::AttributionProfile;
use dht_stack::BytePermit;

use super::*;
use crate::test_support::{self as support, NEIGHBOUR, NOW, bans, peer, received, run_filter};

fn directory() -> Directory {
    let directory = Directory::new(*identity(1).node_id());
    let neighbour = peer(NEIGHBOUR).public_key;
    directory.add_or_update(PeerRecord::new(neighbour, Features::NODE, NOW), NOW);
    directory
}

fn dropped(reason: DropReason) -> Disposition {
    Disposition::Dropped(reason)
}

#[tokio::test]
async fn b059_what_is_empty_undecodable_or_of_unknown_source_is_dropped() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
        let (bans, banned) = bans(profile);
        let layer = DecodeLayer::new(directory(), bans);
        let run = |message| run_filter(layer.clone(), message);

        assert_eq!(
            run(received(Bytes::new())).await,
            dropped(DropReason::Empty)
        );
        let junk = Bytes::from_static(b"\xff\xff\xff");
        assert_eq!(run(received(junk)).await, dropped(DropReason::Undecodable));
        assert_eq!(run(received(frame.clone())).await, Disposition::Delivered);
        assert_eq!(banned.take(), [], "nobody known is banned");

        let (source, permit) = (peer(9), BytePermit::none());
        let stranger = Received {
            source: Arc::clone(&source),
            frame: frame.clone(),
            permit,
        };
        assert_eq!(run(stranger).await, dropped(DropReason::UnknownSource));
        let bans: Vec<_> = banned
            .take()
            .iter()
            .map(|ban| (ban.node_id, ban.until.saturating_since(NOW)))
            .collect();
        match profile {
            AttributionProfile::Strict => assert_eq!(bans, [(source.node_id, 300)]),
            AttributionProfile::Legacy => assert_eq!(bans, []),
        }
    }
}

#[tokio::test]
async fn b060_an_appended_unknown_field_is_dropped_without_a_ban() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let (bans, banned) = bans(AttributionProfile::Legacy);
    let layer = DecodeLayer::new(Authenticated, bans);
    let longer = Bytes::from([&frame[..], &[0x78, 0x01]].concat());
    let ended = run_filter(layer, received(longer)).await;
    assert_eq!(ended, dropped(DropReason::NotCanonical));
    assert_eq!(banned.take(), []);
}

#[tokio::test]
async fn the_permit_lives_as_long_as_the_message() {
    let budget = dht_stack::ByteBudget::new(1 << 20);
    let (bans, _) = bans(AttributionProfile::Strict);
    let layer = DecodeLayer::new(Authenticated, bans);
    let (mut service, mut inner) =
        tower_test::mock::spawn_layer::<Inbound<RawEnvelope>, Disposition, _>(layer);
    inner.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let permit = budget.try_acquire(1_000).unwrap();
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let response = service.call(Received {
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

#[test]
fn readiness_is_that_of_the_inner_service() {
    let (bans, _) = bans(AttributionProfile::Strict);
    support::assert_readiness_is_inner::<Received, Inbound<RawEnvelope>, _>(DecodeLayer::new(
        Authenticated,
        bans,
    ));
}
