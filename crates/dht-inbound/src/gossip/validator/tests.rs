use bytes::Bytes;
use dht_core::{
    Encryption, SendQueueError, Signing,
    test_util::{clear, encrypted, frame, identity, public_key},
};
use dht_stack::ThenLayer;
use tokio::time::{Instant, advance};

use super::*;
use crate::test_support::{self as support, ME, OutRecorder, bans};
use dht_peers::{policy::AttributionProfile, test_util::BanLog};

/// Answers after a while.
#[derive(Clone, Copy, Debug)]
struct Slow(Duration, Acceptance);

impl GossipValidator for Slow {
    fn validate(&self, _: &OpenedMessage) -> ValidationFuture {
        let Self(after, acceptance) = *self;
        Box::pin(async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            acceptance
        })
    }
}

struct Setup {
    out: Arc<OutRecorder>,
    banned: BanLog,
    layer: ThenLayer<Validate, Gossip>,
}

fn setup(after: u64, acceptance: Acceptance) -> Setup {
    let out = Arc::new(OutRecorder::default());
    let (bans, banned) = bans(AttributionProfile::Strict);
    let gossip = Gossip {
        validator: Some(Arc::new(Slow(Duration::from_millis(after), acceptance))),
        relay: Some(Arc::clone(&out) as Arc<dyn SendQueue>),
        bans,
    };
    let layer = ThenLayer::new(Validate(Duration::from_secs(2)), gossip);
    Setup { out, banned, layer }
}

impl Setup {
    async fn run(&self, message: OpenedMessage) -> Disposition {
        support::run_filter(self.layer.clone(), message).await
    }
}

const REFUSED: Disposition = Disposition::Dropped(DropReason::Refused);

fn gossip(signing: Signing) -> OpenedMessage {
    support::message(clear(&identity(3), signing, b"x", 1))
}

#[tokio::test]
async fn accepted_gossip_is_delivered_and_relayed() {
    let setup = setup(0, Acceptance::Accept);
    assert_eq!(
        setup.run(gossip(Signing::Origin)).await,
        Disposition::Delivered
    );
    let sent = setup.out.forwarded.lock();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].frame, clear(&identity(3), Signing::Origin, b"x", 1));
    let exclude = vec![support::peer(support::DELIVERER).node_id];
    let destination = Destination::Unknown;
    assert_eq!(
        sent[0].strategy,
        Strategy::Propagate {
            destination,
            exclude
        }
    );
}

#[tokio::test]
async fn ignored_gossip_ends_without_blame() {
    let setup = setup(0, Acceptance::Ignore);
    assert_eq!(setup.run(gossip(Signing::Origin)).await, REFUSED);
    assert!(setup.out.forwarded.lock().is_empty());
    assert_eq!(setup.banned.take(), []);
}

#[tokio::test]
async fn rejected_gossip_bans_its_signer() {
    let setup = setup(0, Acceptance::Reject);
    assert_eq!(setup.run(gossip(Signing::Origin)).await, REFUSED);
    let banned = setup.banned.take();
    assert_eq!(banned.len(), 1);
    assert_eq!(banned[0].public_key, Some(public_key(3).into()));
    assert_eq!(banned[0].offence, Some(Offence::RejectedGossip));
    // The origin of an anonymous one is not known, and its deliverer may not have looked.
    assert_eq!(setup.run(gossip(Signing::Anonymous)).await, REFUSED);
    assert_eq!(setup.banned.take(), []);
    assert!(setup.out.forwarded.lock().is_empty());
}

#[tokio::test]
async fn only_gossip_is_judged() {
    let setup = setup(0, Acceptance::Reject);
    let from = identity(3);
    let directed = Destination::PublicKey(public_key(4));
    for frame in [
        frame(&from, directed, Encryption::Clear, Signing::Origin, b"x", 1),
        encrypted(&from, &public_key(ME), b"x", 1),
        encrypted(&from, &public_key(4), b"x", 1),
    ] {
        assert_eq!(
            setup.run(support::message(frame)).await,
            Disposition::Delivered
        );
    }
    assert!(setup.out.forwarded.lock().is_empty());
}

#[tokio::test]
async fn repeats_and_stored_messages_stay_here() {
    let setup = setup(0, Acceptance::Accept);
    let repeat = OpenedMessage {
        occurrences: 2,
        ..gossip(Signing::Origin)
    };
    let stored = OpenedMessage {
        is_saf: true,
        ..gossip(Signing::Origin)
    };
    for message in [repeat, stored] {
        assert_eq!(setup.run(message).await, Disposition::Delivered);
    }
    assert!(setup.out.forwarded.lock().is_empty());
}

/// An answer in time counts and a late one is ignored.
#[tokio::test(start_paused = true)]
async fn late_acceptance_is_ignored() {
    let started = Instant::now();
    let in_time = setup(1_999, Acceptance::Accept);
    assert_eq!(
        in_time.run(gossip(Signing::Origin)).await,
        Disposition::Delivered
    );
    assert_eq!(started.elapsed(), Duration::from_millis(1_999));

    let late = setup(3_000, Acceptance::Reject);
    assert_eq!(late.run(gossip(Signing::Origin)).await, REFUSED);
    assert_eq!(started.elapsed(), Duration::from_millis(3_999));
    advance(Duration::from_secs(9)).await;
    assert_eq!(late.banned.take(), []);
}

#[tokio::test]
async fn default_accepts_all_and_relays_nothing() {
    let (bans, _) = bans(AttributionProfile::Strict);
    let gossip = Gossip {
        validator: None,
        relay: None,
        bans,
    };
    let layer = ThenLayer::new(Validate(Duration::ZERO), gossip);
    let ended = support::run_filter(layer, self::gossip(Signing::Anonymous)).await;
    assert_eq!(ended, Disposition::Delivered);
}

/// A full send queue does not keep the application from its message.
#[tokio::test]
async fn full_outbox_does_not_prevent_delivery() {
    let setup = setup(0, Acceptance::Accept);
    *setup.out.refuse.lock() = Some(SendQueueError::Full);
    assert_eq!(
        setup.run(gossip(Signing::Origin)).await,
        Disposition::Delivered
    );
}

#[test]
fn readiness_is_that_of_inner_service() {
    let layer = setup(0, Acceptance::Accept).layer;
    support::assert_readiness_is_inner::<OpenedMessage, OpenedMessage, _>(layer);
}

#[test]
fn the_frame_is_shared_not_copied() {
    let message = gossip(Signing::Origin);
    let frame: &Bytes = &message.opened.frame;
    let part = message.opened.parts().unwrap()[1].as_ptr_range();
    let range = frame.as_ptr_range();
    assert!(range.start <= part.start && part.end <= range.end);
}
