//! Accepting answers: rows SF-24 to SF-36.

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DropReason, Encryption, Severity, Signing, UnixSeconds, test_util,
};
use dht_peers::policy::AttributionProfile::{self, Legacy, Strict};
use dht_proto::store_forward::StoredMessage;
use dht_saf::{Config, SafEvent};

use crate::world::{ME, NODE, NOW, OTHER, SENDER, World, clear, for_me, stored};

const UNREQUESTED: Disposition = Disposition::Dropped(DropReason::Unrequested);
const BAD: Disposition = Disposition::Dropped(DropReason::BadProtocolMessage);

fn world(profile: AttributionProfile) -> World {
    World::blaming(profile)
}

fn ago(seconds: u64) -> u64 {
    NOW.0 - seconds
}

/// A frame for the node under test with anything about it changed.
fn for_me_with(change: impl FnOnce(&mut StoredMessage)) -> StoredMessage {
    let mut message = for_me(99, ago(5));
    change(&mut message);
    message
}

#[tokio::test]
async fn sf24_b121_unrequested_response_is_dropped() {
    let world = world(Strict);
    let outcome = world.answer(NODE, 5, vec![for_me(1, ago(5))]).await;
    assert_eq!(outcome, UNREQUESTED);
    assert_eq!(world.watermark(NODE), None);
    assert!(world.passed().is_empty() && world.bans().is_empty());
    // The very same, asked for, is taken.
    assert_eq!(
        world.exchange(vec![for_me(1, ago(5))]).await,
        Disposition::Answered
    );
    assert_eq!(world.passed().len(), 1);
}

#[tokio::test]
async fn sf25_yesterdays_message_is_delivered() {
    let world = world(Strict);
    let yesterday = ago(24 * 60 * 60);
    assert_eq!(
        world.exchange(vec![for_me(1, yesterday)]).await,
        Disposition::Answered
    );
    let passed = world.passed();
    assert_eq!(passed.len(), 1);
    assert!(passed[0].is_saf && passed[0].occurrences == 0);
    assert_eq!(passed[0].source.public_key, test_util::public_key(NODE));
    let sender = test_util::public_key(SENDER);
    assert_eq!(passed[0].opened.origin(), Some(&sender));
}

#[tokio::test]
async fn sf26_third_response_to_two_drops() {
    for profile in [Strict, Legacy] {
        let world = world(profile);
        // The second is sent once the first is answered.
        world.request(NODE);
        world.request(NODE);
        let mut outcomes = Vec::new();
        for n in 1..=3 {
            let id = world.last_request().unwrap().request_id;
            outcomes.push(world.answer(NODE, id, vec![for_me(n, ago(5))]).await);
        }
        assert_eq!(world.node.sent.lock().len(), 2);
        let taken = Disposition::Answered;
        assert_eq!(outcomes, [taken, taken, UNREQUESTED], "{profile:?}");
        assert_eq!(world.passed().len(), 2);
        assert!(world.bans().is_empty());
    }
}

#[tokio::test]
async fn sf27_b119_valid_messages_are_delivered() {
    for profile in [Strict, Legacy] {
        let mut world = world(profile);
        world.saf.online(1);
        let messages = vec![for_me(1, ago(60)), for_me(2, ago(7)), clear(3, ago(30))];
        assert_eq!(world.exchange(messages).await, Disposition::Answered);
        let passed = world.passed();
        assert_eq!(passed.len(), 3);
        assert_eq!(world.watermark(NODE), Some(UnixSeconds(ago(7))));
        let received = |event: &SafEvent| *event == SafEvent::Received;
        assert_eq!(world.events().into_iter().filter(received).count(), 1);
    }
}

#[tokio::test]
async fn sf28_empty_body_bans_responder() {
    for (profile, outcome, delivered) in [(Legacy, BAD, 0), (Strict, Disposition::Answered, 1)] {
        let world = world(profile);
        let empty = for_me_with(|message| message.body = Bytes::new());
        let answer = vec![for_me(1, ago(9)), empty];
        assert_eq!(world.exchange(answer).await, outcome);
        assert_eq!(world.bans(), [Severity::Medium]);
        assert_eq!(world.passed().len(), delivered, "{profile:?}");
    }
}

#[tokio::test]
async fn sf29_b120_encrypted_without_a_destination() {
    for (profile, outcome, bans, delivered) in [
        (Legacy, BAD, vec![Severity::High], 0),
        (Strict, Disposition::Answered, vec![], 1),
    ] {
        let world = world(profile);
        let undirected = for_me_with(|message| {
            let header = message.dht_header.as_mut().unwrap();
            header.destination = Some(dht_proto::envelope::dht_header::Destination::Unknown(true));
        });
        let answer = vec![for_me(1, ago(9)), undirected];
        assert_eq!(world.exchange(answer).await, outcome);
        assert_eq!(world.bans(), bans);
        assert_eq!(world.passed().len(), delivered, "{profile:?}");
        if profile == Legacy {
            assert_eq!(world.watermark(NODE), None);
            // The good message is not lost: it had not been recorded (D6).
            world.exchange(vec![for_me(1, ago(9))]).await;
            assert_eq!(world.passed().len(), 1);
        }
    }
}

#[tokio::test]
async fn sf30_clear_text_is_no_envelope() {
    for (profile, outcome, bans, delivered) in [
        (Legacy, BAD, vec![Severity::Medium], 0),
        (Strict, Disposition::Answered, vec![], 1),
    ] {
        let world = world(profile);
        let mut junk = clear(1, ago(5));
        junk.body = Bytes::from_static(b"\xff\xff\xff");
        let answer = vec![for_me(1, ago(9)), junk];
        assert_eq!(world.exchange(answer).await, outcome);
        assert_eq!(world.bans(), bans);
        assert_eq!(world.passed().len(), delivered, "{profile:?}");
    }
}

#[tokio::test]
async fn sf31_one_message_too_many_bans() {
    for profile in [Strict, Legacy] {
        let world = world(profile);
        let messages: Vec<_> = (0..51).map(|n| for_me(n, ago(5))).collect();
        assert_eq!(world.exchange(messages).await, BAD);
        assert_eq!(world.bans(), [Severity::High]);
        assert!(world.passed().is_empty());
        assert_eq!(world.watermark(NODE), None);
    }
}

#[tokio::test]
async fn sf32_message_for_another_key_bans() {
    for (profile, outcome, delivered) in [(Legacy, BAD, 0), (Strict, Disposition::Answered, 1)] {
        let mut world = world(profile);
        world.saf.online(1);
        let from = test_util::identity(SENDER);
        let other = test_util::public_key(OTHER);
        let theirs = stored(test_util::encrypted(&from, &other, b"x", 7), ago(5));
        let answer = vec![for_me(1, ago(9)), theirs];
        assert_eq!(world.exchange(answer).await, outcome);
        assert_eq!(world.bans(), [Severity::High]);
        assert_eq!(world.passed().len(), delivered, "{profile:?}");
        let signalled = world.events().contains(&SafEvent::Received);
        assert_eq!(signalled, profile == Strict);
    }
}

#[tokio::test]
async fn sf33_undecryptable_message_is_skipped() {
    for profile in [Strict, Legacy] {
        let world = world(profile);
        // Encrypted for another key, addressed and signed for this node.
        let from = test_util::identity(SENDER);
        let undecryptable = stored(undecryptable(&from), ago(5));
        let answer = vec![undecryptable, for_me(1, ago(9))];
        assert_eq!(world.exchange(answer).await, Disposition::Answered);
        assert!(world.bans().is_empty(), "{profile:?}");
        assert_eq!(world.passed().len(), 1);
        assert_eq!(world.watermark(NODE), Some(UnixSeconds(ago(9))));
    }
}

/// A frame for the node under test whose body does not decrypt, with a signature that holds.
fn undecryptable(from: &dht_core::NodeIdentity) -> Bytes {
    use dht_core::{
        Entropy as _, MessageSignature, RawEnvelope, SecretKey, SeededEntropy, binding_hash,
        encode_envelope,
    };
    let frame = test_util::encrypted(from, &test_util::public_key(ME), b"x", 5);
    let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
    let mut body = sealed.body().to_vec();
    body[0] ^= 1;
    let mut header = sealed.header().clone();
    let mut rng = SeededEntropy::new(9).rng();
    let signer = SecretKey::random(&mut rng);
    let hash = binding_hash(&header, &body);
    header.signature = MessageSignature::sign(&signer, &hash, &mut rng).encode();
    encode_envelope(&header, &body)
}

#[tokio::test]
async fn sf34_known_message_is_not_redelivered() {
    for profile in [Strict, Legacy] {
        let mut world = world(profile);
        world.saf.online(2);
        world.exchange(vec![for_me(2, ago(3))]).await;
        world.passed();
        let id = world.request(OTHER).request_id;
        let messages = vec![for_me(1, ago(60)), for_me(2, ago(3))];
        assert_eq!(
            world.answer(OTHER, id, messages).await,
            Disposition::Answered
        );
        assert_eq!(world.passed().len(), 1);
        assert!(world.events().contains(&SafEvent::Received));
    }
}

#[tokio::test]
async fn sf35_response_without_news_still_counts() {
    for messages in [vec![], vec![for_me(1, ago(5)), for_me(2, ago(4))]] {
        let mut world = world(Strict);
        if !messages.is_empty() {
            world.exchange(messages.clone()).await;
        }
        world.passed();
        world.saf.online(1 + usize::from(!messages.is_empty()));
        assert!(!world.events().contains(&SafEvent::Received));
        assert_eq!(world.exchange(messages).await, Disposition::Answered);
        assert!(world.events().contains(&SafEvent::Received));
        assert!(world.passed().is_empty());
    }
}

#[tokio::test]
async fn sf36_expired_message_is_delivered() {
    let world = world(Strict);
    // The messages of this test expire after an hour.
    world.clock.advance(2 * 60 * 60);
    world.exchange(vec![for_me(1, ago(5))]).await;
    let passed = world.passed();
    assert_eq!(passed.len(), 1);
    assert!(passed[0].opened.header.is_expired(world.now()));
}

#[tokio::test]
async fn remaining_faults_follow_the_table() {
    let dht_type =
        |kind: i32| for_me_with(|message| message.dht_header.as_mut().unwrap().message_type = kind);
    let unsigned = for_me_with(|it| it.dht_header.as_mut().unwrap().message_signature.clear());
    let forged = for_me_with(|it| it.dht_header.as_mut().unwrap().message_tag = 1);
    let forged = StoredMessage {
        body: [&forged.body[..], b"x"].concat().into(),
        ..forged
    };
    let undecodable = for_me_with(|it| {
        it.dht_header.as_mut().unwrap().message_signature = Bytes::from_static(b"\xff");
    });
    let version = for_me_with(|it| it.dht_header.as_mut().unwrap().major = 9);
    let cases: Vec<(&str, StoredMessage, Option<Severity>, Option<Severity>)> = {
        use Severity::{High, Medium};
        vec![
            (
                "no header",
                for_me_with(|it| it.dht_header = None),
                Some(Medium),
                Some(Medium),
            ),
            (
                "future",
                for_me_with(|it| it.stored_at = NOW.0 + 301),
                None,
                Some(High),
            ),
            ("join", dht_type(1), Some(High), Some(High)),
            ("saf request", dht_type(20), Some(High), Some(High)),
            ("version", version, None, Some(Medium)),
            ("unsigned", unsigned, None, Some(High)),
            ("forged", forged, None, Some(High)),
            ("undecodable", undecodable, None, Some(Medium)),
            ("ancient", for_me(98, ago(5 * 24 * 60 * 60)), None, None),
        ]
    };
    for (name, message, strict, legacy) in cases {
        for (profile, ban) in [(Strict, strict), (Legacy, legacy)] {
            let world = world(profile);
            let answer = vec![message.clone(), for_me(1, ago(9))];
            world.exchange(answer).await;
            assert_eq!(world.bans(), Vec::from_iter(ban), "{name} {profile:?}");
            let aborted = profile == Legacy && ban.is_some();
            assert_eq!(
                world.passed().len(),
                usize::from(!aborted),
                "{name} {profile:?}"
            );
        }
    }
}

/// A holder whose clock is ahead is read to the end, within the tolerance; what it stores once its clock is right is read, too.
#[tokio::test]
async fn holder_ahead_is_read() {
    let world = world(Strict);
    let ahead = for_me_with(|it| it.stored_at = NOW.0 + 300);
    world.exchange(vec![for_me(1, ago(9)), ahead]).await;
    assert_eq!((world.passed().len(), world.bans()), (2, vec![]));
    assert!(world.request(NODE).since <= NOW.0);
}

#[tokio::test]
async fn unknown_id_uses_up_no_request() {
    let world = world(Strict);
    let id = world.request(NODE).request_id;
    let other = id.wrapping_add(1).max(1);
    assert_eq!(
        world.answer(NODE, other, vec![for_me(1, ago(5))]).await,
        UNREQUESTED
    );
    assert_eq!(
        world.answer(NODE, id, vec![for_me(1, ago(5))]).await,
        Disposition::Answered
    );
    // One that carries none is matched by its sender alone.
    world.request(NODE);
    assert_eq!(
        world.answer(NODE, 0, vec![for_me(2, ago(5))]).await,
        Disposition::Answered
    );
    assert_eq!(world.passed().len(), 2);
}

#[tokio::test]
async fn response_is_late_after_its_limit() {
    for (seconds, outcome) in [(120, Disposition::Answered), (121, UNREQUESTED)] {
        let world = world(Strict);
        let id = world.request(NODE).request_id;
        world.clock.advance(seconds);
        assert_eq!(
            world.answer(NODE, id, vec![for_me(1, ago(5))]).await,
            outcome
        );
        // The slot is used up either way.
        assert_eq!(world.answer(NODE, id, vec![]).await, UNREQUESTED);
        assert!(world.bans().is_empty());
    }
}

#[tokio::test]
async fn received_messages_are_known_after_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.redb");
    let start = || {
        let store = dht_mailbox::Store::open_on(dht_mailbox::MemoryDisk::new(), Default::default());
        let ledger = dht_saf::Ledger::open(&path).unwrap();
        let features = dht_core::Features::NODE;
        World::of(
            ME,
            features,
            &Config::default(),
            store.unwrap(),
            ledger,
            Strict,
        )
    };
    {
        let world = start();
        world.exchange(vec![for_me(1, ago(5))]).await;
        // Message 2 comes on the usual way, through the handler layer, to the application.
        let live = test_util::frame(
            &test_util::identity(SENDER),
            Destination::PublicKey(test_util::public_key(ME)),
            Encryption::EncryptFor(test_util::public_key(ME)),
            Signing::Anonymous,
            b"for me",
            2,
        );
        world.handle(world.open(live)).await;
        assert_eq!(world.passed().len(), 2);
        world.saf.tick().await;
    }
    let world = start();
    assert_eq!(world.watermark(NODE), Some(UnixSeconds(ago(5))));
    let request = world.request(NODE);
    assert_eq!(request.since, ago(5) - 30, "a margin before what was read");
    let messages = vec![for_me(1, ago(5)), for_me(2, ago(4)), for_me(3, ago(3))];
    world.answer(NODE, request.request_id, messages).await;
    assert_eq!(world.passed().len(), 1, "only the third is new");
}
