use bytes::Bytes;
use dht_core::{
    Destination, Encryption, ManualClock, MessageType, NodeId, Priority, SendQueueError, Signing,
    UnixSeconds, encode_parts,
    test_util::{clear, encrypted, identity, public_key},
};

use super::*;
use crate::test_support::{self as support, DELIVERER, Forwarded, NOW, OutRecorder, bans, peer};
use dht_peers::{policy::AttributionProfile, test_util::BanLog};

struct Setup {
    out: Arc<OutRecorder>,
    banned: BanLog,
    clock: Arc<ManualClock>,
    check: Forward,
}

fn setup() -> Setup {
    setup_under(AttributionProfile::Strict)
}

fn setup_under(profile: AttributionProfile) -> Setup {
    let out = Arc::new(OutRecorder::default());
    let clock = Arc::new(ManualClock::new(NOW));
    let (bans, banned) = bans(profile);
    let check = Forward {
        send_queue: Arc::clone(&out) as Arc<dyn SendQueue>,
        bans,
        clock: Arc::clone(&clock) as SharedClock,
    };
    Setup {
        out,
        banned,
        clock,
        check,
    }
}

impl Setup {
    /// Disposition of a message that the protocol check ends if it is unreadable, and the messages sent.
    async fn run(&self, message: OpenedMessage) -> (Disposition, Vec<Forwarded>) {
        let message = self.check.check(message).expect("always passed on");
        let disposition = match message.is_readable() {
            true => Disposition::Delivered,
            false => message
                .outcome
                .unwrap_or_else(|| DropReason::NotForUs.into()),
        };
        let sent = std::mem::take(&mut *self.out.forwarded.lock());
        (disposition, sent)
    }
}

fn theirs() -> Bytes {
    encrypted(&identity(3), &public_key(4), b"x", 1)
}

fn of_type(message_type: MessageType) -> Bytes {
    let key = public_key(4);
    let (destination, encryption) = (Destination::PublicKey(key), Encryption::EncryptFor(key));
    let body = encode_parts(&[Bytes::from_static(b"x")]);
    let from = identity(3);
    support::frame(
        &from,
        message_type,
        destination,
        encryption,
        Signing::Anonymous,
        body,
    )
}

fn exclude() -> Vec<NodeId> {
    vec![peer(DELIVERER).node_id]
}

#[tokio::test]
async fn b072_readable_message_is_only_passed_on() {
    let setup = setup();
    let message = support::message(clear(&identity(3), Signing::Origin, b"x", 1));
    assert_eq!(setup.run(message).await, (Disposition::Delivered, vec![]));
}

/// An unreadable message is passed on and sent as received.
#[tokio::test]
async fn b073_unreadable_message_is_sent_as_received() {
    let setup = setup();
    let (disposition, sent) = setup.run(support::message(theirs())).await;
    assert_eq!(disposition, Disposition::Forwarded);
    assert_eq!(
        sent,
        [Forwarded {
            frame: theirs(),
            strategy: Strategy::Propagate {
                destination: Destination::PublicKey(public_key(4)),
                exclude: exclude(),
            },
            priority: Priority::Gossip,
            tag: dht_core::MessageTag(1),
        }]
    );
    assert_eq!(setup.banned.take(), []);
}

#[tokio::test]
async fn stored_message_goes_straight_to_recipient() {
    let setup = setup();
    let message = OpenedMessage {
        stored: Some(true),
        ..support::message(theirs())
    };
    let (disposition, sent) = setup.run(message).await;
    assert_eq!(disposition, Disposition::Forwarded);
    let strategy = Strategy::DirectOrClosestNodes {
        target: public_key(4).node_id(),
        exclude: exclude(),
        connected_only: true,
    };
    assert_eq!(sent[0].strategy, strategy);
    // Considered, but not stored.
    let message = OpenedMessage {
        stored: Some(false),
        ..support::message(theirs())
    };
    assert_eq!(setup.run(message).await.1[0].strategy.name(), "propagate");
}

/// A message that was in the store is not sent again.
#[tokio::test]
async fn b074_stored_message_is_not_sent_again() {
    let setup = setup();
    let message = OpenedMessage {
        stored: Some(true),
        already_forwarded: true,
        ..support::message(theirs())
    };
    assert_eq!(setup.run(message).await, (Disposition::Stored, vec![]));
}

#[tokio::test]
async fn b075_only_forwardable_types_are_sent() {
    let setup = setup();
    for kind in [
        MessageType::DiscoveryResponse,
        MessageType::SafRequestMessages,
        MessageType::SafStoredMessages,
    ] {
        let ended = setup.run(support::message(of_type(kind))).await;
        assert_eq!(ended, (Disposition::Dropped(DropReason::NotForUs), vec![]));
    }
    for kind in [MessageType::None, MessageType::Join, MessageType::Discovery] {
        assert_eq!(setup.run(support::message(of_type(kind))).await.1.len(), 1);
    }
}

/// A deliverer that sends its own message is banned medium, in the legacy profile only: others may have written it.
#[tokio::test]
async fn deliverer_of_own_message_by_profile() {
    let own = encrypted(&identity(3), &public_key(DELIVERER), b"x", 1);
    let unread = (Disposition::Dropped(DropReason::NotForUs), vec![]);
    let strict = setup();
    assert_eq!(strict.run(support::message(own.clone())).await, unread);
    assert_eq!(strict.banned.take(), []);
    let legacy = setup_under(AttributionProfile::Legacy);
    assert_eq!(legacy.run(support::message(own)).await, unread);
    let banned = legacy.banned.take();
    assert_eq!(banned.len(), 1);
    assert_eq!(banned[0].node_id, peer(DELIVERER).node_id);
    assert_eq!(
        (banned[0].severity, banned[0].until.saturating_since(NOW)),
        (dht_core::Severity::Medium, 600)
    );
}

#[tokio::test]
async fn message_expired_here_is_not_sent() {
    let setup = setup();
    setup.clock.set(UnixSeconds(NOW.0 + 3_600));
    assert_eq!(setup.run(support::message(theirs())).await.1.len(), 1);
    setup.clock.set(UnixSeconds(NOW.0 + 3_601));
    let ended = setup.run(support::message(theirs())).await;
    assert_eq!(ended, (Disposition::Dropped(DropReason::NotForUs), vec![]));
}

#[tokio::test]
async fn full_outbox_sheds_and_closed_drops() {
    let setup = setup();
    *setup.out.refuse.lock() = Some(SendQueueError::Full);
    let ended = setup.run(support::message(theirs())).await;
    assert_eq!(ended, (Disposition::Dropped(DropReason::Overload), vec![]));

    *setup.out.refuse.lock() = Some(SendQueueError::Closed);
    let refused = setup.check.check(support::message(theirs()));
    assert_eq!(refused.unwrap_err(), DropReason::Internal, "not passed on");
}
