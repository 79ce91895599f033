use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Disposition, Header, RawEnvelope, SeededEntropy, Signing, encode_envelope,
    test_util::{clear, encrypted, identity, public_key},
};
use dht_stack::{Batch, ThenLayer};
use tokio_test::assert_ready_ok;
use tower::{Layer as _, Service};
use tower_test::mock;

use super::*;
use crate::{
    crypto::BatchVerifier,
    test_support::{self as support, DELIVERER, ME, NOW, bans, peer, run_filter},
};
use dht_peers::policy::AttributionProfile;

fn layer(bans: BanPolicy) -> ThenLayer<Batch<BatchVerifier, Sealed>, Verify> {
    let verifier = BatchVerifier::new(Arc::new(SeededEntropy::new(1))).for_worker();
    ThenLayer::new(verifier, Verify { bans })
}

/// A frame with its header changed after it was sealed.
fn tampered(frame: Bytes, change: impl FnOnce(&mut Header, &mut Bytes)) -> Bytes {
    let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
    let (mut header, mut body) = (sealed.header().clone(), sealed.body().clone());
    change(&mut header, &mut body);
    encode_envelope(&header, &body)
}

/// Clear, for us, for another.
fn frames() -> [Bytes; 3] {
    let from = identity(3);
    [
        clear(&from, Signing::Origin, b"x", 1),
        encrypted(&from, &public_key(ME), b"x", 1),
        encrypted(&from, &public_key(4), b"x", 1),
    ]
}

/// Disposition of the frame, and length of the ban of its deliverer.
async fn check(profile: AttributionProfile, frame: Bytes) -> (Disposition, Option<u64>) {
    let (bans, banned) = bans(profile);
    let layer = layer(bans);
    let disposition = run_filter(layer, support::sealed(frame)).await;
    let banned = banned.take();
    assert!(banned.len() <= 1);
    let seconds = banned.first().map(|ban| {
        assert_eq!(ban.node_id, peer(DELIVERER).node_id);
        ban.until.saturating_since(NOW)
    });
    (disposition, seconds)
}

/// Dropped for this reason; banned for two hours in the legacy profile only.
async fn assert_refused(frame: Bytes, reason: DropReason) {
    let dropped = Disposition::Dropped(reason);
    let legacy = check(AttributionProfile::Legacy, frame.clone()).await;
    assert_eq!(legacy, (dropped, Some(7_200)));
    assert_eq!(
        check(AttributionProfile::Strict, frame).await,
        (dropped, None)
    );
}

#[tokio::test]
async fn what_is_valid_passes() {
    let anonymous = clear(&identity(3), Signing::Anonymous, b"x", 1);
    for frame in frames().into_iter().chain([anonymous]) {
        let passed = (Disposition::Delivered, None);
        assert_eq!(check(AttributionProfile::Legacy, frame).await, passed);
    }
}

/// An encrypted message with an empty body is refused.
#[tokio::test]
async fn b064_b069_empty_encrypted_body_is_refused() {
    for frame in &frames()[1..] {
        let empty = tampered(frame.clone(), |_, body| *body = Bytes::new());
        assert_refused(empty, DropReason::BadSemantics).await;
    }
}

/// An encrypted message without signature, destination or key is refused.
#[tokio::test]
async fn b067_b069_incomplete_encrypted_header_is_refused() {
    for frame in &frames()[1..] {
        let frame = || frame.clone();
        let unsigned = tampered(frame(), |header, _| header.signature = Bytes::new());
        assert_refused(unsigned, DropReason::BadSemantics).await;
        let unaddressed = tampered(frame(), |header, _| {
            header.destination = dht_core::Destination::Unknown
        });
        assert_refused(unaddressed, DropReason::BadSemantics).await;
        let keyless = tampered(frame(), |header, _| header.ephemeral_key = None);
        assert_refused(keyless, DropReason::BadSemantics).await;
    }
}

#[tokio::test]
async fn b066_b069_inverted_last_signature_byte_is_refused() {
    for frame in frames() {
        let inverted = tampered(frame, |header, _| {
            let mut signature = header.signature.to_vec();
            *signature.last_mut().unwrap() ^= 0xff;
            header.signature = signature.into();
        });
        assert_refused(inverted, DropReason::BadSignature).await;
    }
}

/// A signature that does not decode is refused.
#[tokio::test]
async fn b068_b069_undecodable_signature_is_refused() {
    for frame in frames() {
        for signature in [vec![1; 32], vec![0x0a, 0x1f], {
            // A signer key of 31 bytes.
            let mut short = vec![0x0a, 31];
            short.extend([2; 31]);
            short
        }] {
            let junk = tampered(frame.clone(), |header, _| {
                header.signature = signature.into()
            });
            assert_refused(junk, DropReason::BadSignature).await;
        }
    }
}

#[tokio::test]
async fn header_and_body_are_covered() {
    for frame in frames() {
        let changes: [fn(&mut Header, &mut Bytes); 4] = [
            |header, _| header.message_type = dht_core::MessageType::SafStoredMessages,
            |header, _| header.expires = None,
            |header, _| header.version = dht_core::ProtocolVersion::V1,
            |_, body| *body = [&body[..], &[0]].concat().into(),
        ];
        for change in changes {
            assert_refused(tampered(frame.clone(), change), DropReason::BadSignature).await;
        }
        // The tag is not, and nothing depends on it.
        let tagged = tampered(frame, |header, _| header.tag = dht_core::MessageTag(99));
        assert_eq!(
            check(AttributionProfile::Legacy, tagged).await.0,
            Disposition::Delivered
        );
    }
}

/// A valid signature in another encoding is dropped and nobody banned.
#[tokio::test]
async fn b070_reencoded_signature_is_dropped_without_ban() {
    type Suffix = fn(&[u8]) -> Vec<u8>;
    let suffixes: [Suffix; 2] = [
        |_| vec![0x20, 0x01],
        |signature| signature[68..].to_vec(), // the scalar once more
    ];
    for frame in frames() {
        for suffix in suffixes {
            let longer = tampered(frame.clone(), |header, _| {
                let signature = [&header.signature[..], &suffix(&header.signature)].concat();
                header.signature = signature.into();
            });
            let expected = (Disposition::Dropped(DropReason::NotCanonical), None);
            for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
                assert_eq!(check(profile, longer.clone()).await, expected);
            }
        }
    }
}

#[tokio::test]
async fn b061_ready_at_once_without_registering_wake() {
    let (bans, _) = bans(AttributionProfile::Strict);
    let layer = layer(bans);
    let mut service = mock::Spawn::new(layer.layer(support::Accept));
    assert_ready_ok!(service.poll_ready());
    assert!(!service.is_woken());
    assert_eq!(service.waker_ref_count(), 1);
}

#[test]
fn readiness_is_that_of_inner_service() {
    let (bans, _) = bans(AttributionProfile::Strict);
    let layer = layer(bans);
    support::assert_readiness_is_inner::<InboundEnvelope<Sealed>, InboundEnvelope<Verified>, _>(
        layer,
    );
}

#[tokio::test]
async fn call_takes_readied_service_along() {
    let (bans, _) = bans(AttributionProfile::Strict);
    let layer = layer(bans);
    let (mut service, mut inner) =
        mock::spawn_layer::<InboundEnvelope<Verified>, Disposition, _>(layer);
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let [frame, ..] = frames();
    let response = service.call(support::sealed(frame));
    let mut response = tokio_test::task::spawn(response);
    // Would panic if it called a clone that nobody has made ready.
    assert!(response.poll().is_pending());
    // The service that stays behind must be made ready again.
    assert!(matches!(service.poll_ready(), Poll::Pending));
    let (_, reply) = inner.next_request().await.unwrap();
    reply.send_response(Disposition::Delivered);
    assert_eq!(response.await.unwrap(), Disposition::Delivered);
}

/// A verifier that has gone away.
#[derive(Clone, Debug)]
struct Gone;

impl Service<Sealed> for Gone {
    type Response = Result<Verified, VerifyError>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Sealed) -> Self::Future {
        std::future::ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }
}

/// A verifier that fails is an error and nobody is blamed.
#[tokio::test]
async fn failing_verifier_is_error_without_blame() {
    let (bans, banned) = bans(AttributionProfile::Legacy);
    let service = ThenLayer::new(Gone, Verify { bans }).layer(support::Accept);
    let [frame, ..] = frames();
    let outcome = tower::ServiceExt::oneshot(service, support::sealed(frame)).await;
    assert!(outcome.unwrap_err().is::<std::io::Error>());
    assert_eq!(banned.take(), []);
}
