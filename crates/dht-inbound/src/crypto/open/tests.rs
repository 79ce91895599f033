use bytes::Bytes;
use dht_core::{
    Content, Destination, Disposition, Encryption, MessageType, Signing, encode_parts,
    test_util::{clear, encrypted, identity, parts, public_key},
};
use dht_stack::{Batch, ThenLayer};
use tower_test::mock;

use super::*;
use crate::{
    crypto::BatchOpener,
    test_support::{self as support, ME, run_filter},
};

fn layer() -> ThenLayer<Batch<BatchOpener, Verified>, Open> {
    let identity = Arc::new(identity(ME));
    let opener = BatchOpener::new(Arc::clone(&identity)).for_worker();
    ThenLayer::new(opener, Open { identity })
}

/// Message that the next layer gets.
async fn opened(frame: Bytes) -> OpenedMessage {
    let (mut service, mut inner) = mock::spawn_layer::<OpenedMessage, Disposition, _>(layer());
    inner.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    // Spawned: the batch lets others go first, so that one poll does not get to the next layer.
    let _response = tokio::spawn(service.call(support::counted(frame)));
    inner.next_request().await.unwrap().0
}

fn to(key: u64, body: Bytes) -> Bytes {
    let key = public_key(key);
    let (destination, encryption) = (Destination::PublicKey(key), Encryption::EncryptFor(key));
    let kind = MessageType::None;
    support::frame(
        &identity(3),
        kind,
        destination,
        encryption,
        Signing::Anonymous,
        body,
    )
}

#[tokio::test]
async fn b062_message_for_us_names_its_sender() {
    let message = opened(encrypted(&identity(3), &public_key(ME), b"x", 1)).await;
    let origin = Some(public_key(3));
    assert_eq!(
        message.opened.content,
        Content::Readable {
            parts: parts(b"x"),
            origin
        }
    );
}

#[tokio::test]
async fn b063_mail_for_others_passes_untouched() {
    let frame = encrypted(&identity(3), &public_key(4), b"x", 1);
    let body = support::sealed(frame.clone()).envelope.body().clone();
    let message = opened(frame.clone()).await;
    assert_eq!(message.opened.content, Content::Unreadable);
    assert_eq!((message.opened.body, message.opened.frame), (body, frame));
}

#[tokio::test]
async fn clear_messages_are_read_by_everybody() {
    let from = identity(3);
    for (signing, origin) in [
        (Signing::Origin, Some(public_key(3))),
        (Signing::Anonymous, None),
    ] {
        let message = opened(clear(&from, signing, b"x", 1)).await;
        assert_eq!(
            message.opened.content,
            Content::Readable {
                parts: parts(b"x"),
                origin
            }
        );
    }
    // Also those for somebody else, and those without any part.
    let (kind, clear) = (MessageType::None, Encryption::Clear);
    let theirs = Destination::PublicKey(public_key(4));
    let frame = support::frame(&from, kind, theirs, clear, Signing::Origin, Bytes::new());
    assert_eq!(opened(frame).await.opened.parts(), Some(&[][..]));
}

#[tokio::test]
async fn b065_nonsense_for_us_is_dropped() {
    // Encrypted for another, addressed to us, and signed accordingly.
    let (us, other) = (public_key(ME), public_key(4));
    let sealed = support::sealed(encrypted(&identity(3), &other, b"x", 1)).envelope;
    let mut header = sealed.header().clone();
    header.destination = Destination::PublicKey(us);
    let hash = dht_core::binding_hash(&header, sealed.body());
    let (key, nonce) = (identity(5), identity(6));
    header.signature =
        dht_core::MessageSignature::sign_with_nonce(key.secret_key(), &hash, nonce.secret_key())
            .encode();
    let frame = dht_core::encode_envelope(&header, sealed.body());
    let ended = run_filter(layer(), support::counted(frame)).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Undecryptable));
}

#[tokio::test]
async fn b071_decrypted_undecodable_body_is_dropped() {
    let many = Bytes::from([0x0a, 0x00].repeat(1_025));
    let no_part = Bytes::new();
    for body in [Bytes::from_static(b"\xff"), many, no_part] {
        let ended = run_filter(layer(), support::counted(to(ME, body.clone()))).await;
        assert_eq!(ended, Disposition::Dropped(DropReason::Undecryptable));
        // For others it is none of our business.
        assert!(!opened(to(4, body)).await.is_readable());
    }
    let too_many_parts = encode_parts(&vec![Bytes::from_static(b"x"); 17]);
    let ended = run_filter(layer(), support::counted(to(ME, too_many_parts))).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::Undecryptable));
}

#[tokio::test]
async fn undecodable_clear_body_is_dropped() {
    let (kind, to, clear) = (MessageType::None, Destination::Unknown, Encryption::Clear);
    let body = Bytes::from_static(b"\xff");
    let frame = support::frame(&identity(3), kind, to, clear, Signing::Origin, body);
    let ended = run_filter(layer(), support::counted(frame)).await;
    assert_eq!(ended, Disposition::Dropped(DropReason::UndecodableBody));
}

#[test]
fn readiness_is_that_of_inner_service() {
    support::assert_readiness_is_inner::<InboundEnvelope<Deduped>, OpenedMessage, _>(layer());
}
