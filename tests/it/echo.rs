//! What a node sends comes back to it, and it knows its own.

use bytes::Bytes;
use dht_core::{
    Destination, Encryption, Entropy as _, MessageTag, MessageType, ProtocolVersion, SealRequest,
    SealSecrets, SeededEntropy, Signing, UnixSeconds, encode_parts, seal,
    test_util::{identity, public_key},
};
use dht_inbound::dedup_key_of;
use dht_outbound::{SendParams, echo_hash};
use proptest::prelude::*;

use crate::net::{connect, message, node, receive, until, within};

/// `payload` as the only part, followed by a field that no re-encoding keeps.
fn odd_body(payload: &[u8]) -> Bytes {
    let body = encode_parts(&[Bytes::copy_from_slice(payload)]);
    Bytes::from([&body[..], &[0x10, 0x01]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b055_the_echo_of_an_odd_body_is_not_delivered_in_any_encoding() {
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let (mut to_alice, mut to_bob) = (alice.subscribe(), bob.subscribe());
    let flood = || SendParams::builder().flood(vec![]).finish();
    let odd = odd_body(b"echo");
    let send = async |from: &dht_node::Node, body: Bytes| {
        let sent = within(from.requester().send_raw(flood(), body)).await;
        assert_eq!(sent.unwrap().resolve().await.unwrap().len(), 1);
    };
    send(&alice, odd.clone()).await;
    assert_eq!(receive(&mut to_bob).await.message.payload, "echo");

    // The same bytes again, and the same parts encoded as they should be.
    send(&bob, odd).await;
    until(|| alice.stats().duplicates_dropped == 1).await;
    send(&bob, encode_parts(&[Bytes::from_static(b"echo")])).await;
    until(|| alice.stats().duplicates_dropped == 2).await;

    within(bob.send(alice.public_key(), message("end")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_alice).await.message, message("end"));
}

proptest! {
    /// The sending side remembers a message under the key the receiving side counts it by.
    #[test]
    fn both_sides_agree_on_the_key_of_a_message(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..4),
        junk in proptest::collection::vec(any::<u8>(), 0..12),
        kind in 0..3_u8,
        seed: u64,
    ) {
        let parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
        let body = Bytes::from([&encode_parts(&parts)[..], &junk].concat());
        let to = public_key(2);
        let (destination, encryption, signing) = match kind {
            0 => (Destination::Unknown, Encryption::Clear, Signing::Anonymous),
            1 => (Destination::Unknown, Encryption::Clear, Signing::Origin),
            _ => (Destination::PublicKey(to), Encryption::EncryptFor(to), Signing::Anonymous),
        };
        let request = SealRequest {
            body,
            message_type: MessageType::None,
            destination,
            encryption,
            sender: identity(1).secret_key(),
            signing,
            expires: Some(UnixSeconds(1_700_000_000)),
            tag: MessageTag(1),
            version: ProtocolVersion::V2,
        };
        let sealed = seal(request, SealSecrets::random(&mut SeededEntropy::new(seed).rng())).unwrap();
        let received = dedup_key_of(&sealed.header.signature, &sealed.body).ok();
        prop_assert_eq!(echo_hash(&sealed.header, &sealed.body), received);
    }
}
