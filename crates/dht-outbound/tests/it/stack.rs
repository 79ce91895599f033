//! The whole pipeline over real parts: specification 04, sections 5 to 7 and 11.2.

use bytes::Bytes;
use dht_core::{
    DedupHash, Deliverer, DeliveryError, Destination, DomainHeader, Encryption, Flags, Header,
    MessageTag, MessageType, NodeId, OpenError, Payload, Priority, ProtocolVersion, RawEnvelope,
    SealError, SendParams, SendRequest, Signing, Strategy, UnixSeconds, dedup_hash, dedup_key_of,
    test_util::{NOW, encrypted, frame, identity, public_key},
};
use dht_dedup::DedupMeta;
use dht_outbound::{Deliveries, MESSAGE_VALIDITY_SECONDS, SendError};
use proptest::{prelude::*, strategy::Strategy as _};

use crate::support::{Node, message};

fn id(seed: u64) -> NodeId {
    *identity(seed).node_id()
}

fn states(sent: Result<Deliveries, SendError>) -> Deliveries {
    sent.expect("sent")
}

fn refusal(sent: Result<Deliveries, SendError>) -> SendError {
    sent.expect_err("refused")
}

#[tokio::test]
async fn b086_a_flood_reaches_both_selected_peers() {
    let node = Node::new().connected([1, 2]);
    let response = node
        .send(message(SendParams::builder().flood(vec![]).finish()))
        .await;
    let states = states(response);
    let to: Vec<_> = states.iter().map(|state| state.recipient()).collect();
    let mut expected = vec![id(1), id(2)];
    expected.sort_unstable();
    assert_eq!(to, expected);

    let mut sent = std::mem::take(&mut *node.sent.lock());
    assert_eq!(
        sent.iter().map(|message| message.to).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(
        sent[0].frame.as_ptr(),
        sent[1].frame.as_ptr(),
        "one buffer for all"
    );
    assert_eq!(sent[0].tag, sent[1].tag);
    sent.remove(0).reply.send(Ok(()));
    drop(sent);
    let mut results = Vec::new();
    for state in states {
        results.push((state.recipient(), state.wait_for_result().await));
    }
    // The copies share a tag; the recipient tells them apart (04 F-7).
    assert_eq!(
        results,
        [
            (expected[0], Ok(())),
            (expected[1], Err(DeliveryError::Dropped))
        ]
    );
}

/// A direct message to nobody is queued for nobody.
#[tokio::test]
async fn b087_message_to_nobody_is_not_queued() {
    let node = Node::new().connected([1]);
    let params = SendParams::builder()
        .direct_public_key(public_key(9))
        .finish();
    let response = node.send(message(params)).await;
    assert_eq!(refusal(response), SendError::NobodySelected);
    assert!(node.frames().is_empty());
    assert!(node.dedup.is_empty());
}

#[tokio::test]
async fn b088_direct_message_to_ourselves_is_refused() {
    let node = Node::new().connected([1]);
    for params in [
        SendParams::builder().direct_public_key(*node.me.public_key()),
        SendParams::builder().direct_node_id(*node.me.node_id()),
        SendParams::builder().selected_peers(vec![*node.me.node_id()]),
    ] {
        let response = node
            .send(message(params.with_discovery(true).finish()))
            .await;
        assert_eq!(refusal(response), SendError::ToOurselves);
    }
    assert!(node.frames().is_empty());
}

#[tokio::test]
async fn b089_forced_origin_signs_with_node_key() {
    let node = Node::new().connected([1]);
    let _ = node
        .send(message(SendParams::builder().force_origin().finish()))
        .await;
    let received = node.received();
    assert_eq!(received.header().ephemeral_key, None);
    assert_eq!(received.header().flags, Flags::NONE);
    assert_eq!(received.header().version, ProtocolVersion::V2);
    assert_eq!(
        received.header().expires,
        Some(NOW.saturating_add(MESSAGE_VALIDITY_SECONDS))
    );
    let verified = received.verify().unwrap();
    assert!(verified.signature_is_canonical());
    assert_eq!(verified.signer(), Some(node.me.public_key()));
    let opened = verified.open(&identity(1)).unwrap();
    assert_eq!(opened.parts().unwrap()[1], &b"hello"[..]);
}

/// A given header is sent unchanged and not remembered.
#[tokio::test]
async fn b090_given_header_is_unchanged_and_unremembered() {
    let node = Node::new().connected([1, 2]);
    let original = encrypted(&identity(3), &public_key(4), b"for four", 11);
    let received = RawEnvelope::parse(original.clone()).unwrap();
    let header = received.clone().into_sealed().unwrap().header().clone();
    let params = SendParams::builder()
        .propagate(Destination::PublicKey(public_key(4)), vec![])
        .with_dht_header(header)
        .with_tag(MessageTag(5))
        .finish();
    let response = node
        .send(SendRequest::new(
            params,
            Payload::Body(received.body().clone()),
        ))
        .await;
    // The wire keeps the header's tag, the states have the request's.
    assert_eq!(states(response).to_tags(), [MessageTag(5); 2]);
    assert_eq!(node.frames(), [original.clone(), original]);
    assert!(node.dedup.is_empty(), "04 F-5");
}

/// A given header excludes everything that would change the body.
#[tokio::test]
async fn given_header_excludes_sealing_parameters() {
    let node = Node::new().connected([1]);
    let sealed = RawEnvelope::parse(encrypted(&identity(3), &public_key(4), b"x", 11)).unwrap();
    let header = sealed.into_sealed().unwrap().header().clone();
    let with = || SendParams::builder().with_dht_header(Header::clone(&header));
    for params in [
        with().force_origin(),
        with().add_message_flag(Flags::ENCRYPTED),
        with().with_encryption(Encryption::EncryptFor(public_key(4))),
    ] {
        let error = refusal(node.send(message(params.finish())).await);
        assert_eq!(error, SendError::HeaderConflict);
    }
    assert!(node.frames().is_empty());
}

#[tokio::test]
async fn only_the_recipient_opens_a_message() {
    let node = Node::new().connected([1, 2]);
    let to = public_key(5);
    let params = SendParams::builder()
        .propagate(Destination::PublicKey(to), vec![])
        .with_destination(Destination::PublicKey(to))
        .with_encryption(Encryption::EncryptFor(to))
        .finish();
    assert_eq!(states(node.send(message(params)).await).len(), 2);
    let received = node.received();
    assert_eq!(received.header().flags, Flags::ENCRYPTED);
    assert_eq!((received.body().len() - 16) % 6_000, 0);
    let opened = received
        .clone()
        .verify()
        .unwrap()
        .open(&identity(5))
        .unwrap();
    assert_eq!(opened.origin(), Some(node.me.public_key()));
    assert_eq!(opened.parts().unwrap()[1], &b"hello"[..]);
    let relayed = received.verify().unwrap().open(&identity(1)).unwrap();
    assert_eq!(relayed.parts(), None);
}

#[tokio::test]
async fn f4_encrypting_without_naming_recipient_is_refused() {
    let node = Node::new().connected([1]);
    let encrypted = SendParams::builder().with_encryption(Encryption::EncryptFor(public_key(5)));
    let elsewhere = encrypted
        .clone()
        .with_destination(Destination::PublicKey(public_key(6)));
    for params in [encrypted, elsewhere] {
        let error = refusal(node.send(message(params.finish())).await);
        assert_eq!(error, SendError::Seal(SealError::DestinationMismatch));
    }
    assert!(node.frames().is_empty() && node.dedup.is_empty());
}

#[tokio::test]
async fn clear_message_cannot_claim_encryption() {
    let node = Node::new().connected([1]);
    let params = SendParams::builder()
        .add_message_flag(Flags::ENCRYPTED)
        .finish();
    assert_eq!(
        refusal(node.send(message(params)).await),
        SendError::FlagConflict
    );
}

/// Messages to many are remembered under the key of their echo.
#[tokio::test]
async fn f9_broadcast_is_remembered_as_its_echo() {
    let to = public_key(5);
    let kinds = [
        SendParams::builder(),
        SendParams::builder().force_origin(),
        SendParams::builder()
            .with_destination(Destination::PublicKey(to))
            .with_encryption(Encryption::EncryptFor(to)),
    ];
    for (kind, signed) in kinds.into_iter().zip([false, true, true]) {
        let node = Node::new().connected([1, 2]);
        let sent = states(node.send(message(kind.broadcast(vec![]).finish())).await);
        let expires = Some(NOW.saturating_add(MESSAGE_VALIDITY_SECONDS));
        let received = node.received();
        let hash = dedup_key_of(received.header(), received.body()).unwrap();
        assert_eq!(sent.hash(), Some(hash));
        let remembered = node.dedup.snapshot();
        assert_eq!(remembered.len(), 1);
        let meta = DedupMeta { signed, expires };
        assert_eq!(
            (
                remembered[0].key,
                remembered[0].occurrences,
                remembered[0].until,
                remembered[0].signed
            ),
            (hash, 1, meta.retain_until(NOW), signed)
        );
    }
}

#[tokio::test]
async fn f9_unsigned_body_is_remembered_canonically() {
    // Part 0 = "hi", followed by an unknown field 3, which a relay could leave out.
    let odd = Bytes::from_static(b"\x0a\x02hi\x18\x01");
    let canonical = b"\x0a\x02hi";
    let node = Node::new().connected([1, 2]);
    let send = async |body: Bytes, params: SendParams| {
        let before: Vec<_> = node
            .dedup
            .snapshot()
            .iter()
            .map(|entry| entry.key)
            .collect();
        states(
            node.send(SendRequest::new(params, Payload::Body(body)))
                .await,
        );
        let now = node.dedup.snapshot();
        let new = now.iter().map(|entry| entry.key);
        new.filter(|key| !before.contains(key))
            .collect::<Vec<DedupHash>>()
    };
    let clear = || SendParams::builder().finish();
    // The type stands in the place of the signature.
    let message_type = MessageType::None.to_wire().to_le_bytes();
    assert_eq!(
        send(odd.clone(), clear()).await,
        [dedup_hash(&message_type, canonical)]
    );
    assert_eq!(node.frames().pop(), node.frames().pop());
    assert!(
        send(Bytes::from_static(b"\xff\xff"), clear())
            .await
            .is_empty()
    );
    let signed = SendParams::builder().force_origin().finish();
    let received = {
        let seeds = send(odd.clone(), signed).await;
        let last = node.frames().pop().unwrap();
        let last = RawEnvelope::parse(last).unwrap().into_sealed().unwrap();
        assert_eq!(*last.body(), odd, "the body itself is never changed");
        assert_eq!(seeds, [dedup_key_of(last.header(), last.body()).unwrap()]);
        last
    };
    assert!(
        received
            .verify()
            .unwrap()
            .open(&identity(1))
            .is_ok_and(|opened| opened.parts().is_some())
    );
}

#[tokio::test]
async fn messages_to_one_are_not_remembered() {
    let node = Node::new().connected([1]);
    for params in [
        SendParams::builder().direct_node_id(id(1)),
        SendParams::builder().direct_public_key(public_key(1)),
        SendParams::builder().selected_peers(vec![id(1)]),
        SendParams::builder().strategy(Strategy::DirectOrClosestNodes {
            target: id(1),
            exclude: vec![],
            connected_only: true,
        }),
    ] {
        assert_eq!(states(node.send(message(params.finish())).await).len(), 1);
    }
    assert!(node.dedup.is_empty());
}

#[tokio::test]
async fn f12_expiry_saturates() {
    let mut node = Node::new().connected([1]);
    node.config.validity_seconds = u64::MAX;
    let _ = node.send(message(SendParams::builder().finish())).await;
    assert_eq!(
        node.received().header().expires,
        Some(UnixSeconds(u64::MAX))
    );
}

#[tokio::test]
async fn forwarded_frame_is_received_buffer() {
    let node = Node::new().connected([1, 2, 3]);
    let to = public_key(5);
    let original = encrypted(&identity(4), &to, b"for five", 11);
    let strategy = Strategy::Propagate {
        destination: Destination::PublicKey(to),
        exclude: vec![id(1)],
    };
    let deliverer = Deliverer::from_bytes([7; 32]);
    let request = SendRequest::forward(original.clone(), strategy, MessageTag(9), deliverer);
    assert_eq!(
        states(node.send(request).await).to_tags(),
        [MessageTag(9); 2]
    );
    for message in &*node.sent.lock() {
        assert_eq!(message.frame.as_ptr(), original.as_ptr());
        assert_ne!(message.to, id(1));
        assert_eq!(message.priority, Priority::Gossip);
        assert_eq!(message.deliverer, Some(deliverer));
    }
    assert!(node.dedup.is_empty());
}

#[tokio::test]
async fn priorities_reach_the_sink() {
    let node = Node::new().connected([1]);
    for params in [
        SendParams::builder(),
        SendParams::builder().with_dht_message_type(MessageType::SafStoredMessages),
        SendParams::builder().with_priority(Priority::Stored),
    ] {
        let _ = node.send(message(params.finish())).await;
    }
    let sent: Vec<_> = node
        .sent
        .lock()
        .iter()
        .map(|message| message.priority)
        .collect();
    assert_eq!(
        sent,
        [Priority::Direct, Priority::Control, Priority::Stored]
    );
}

#[tokio::test]
async fn oversized_message_is_refused_at_once() {
    let node = Node::new().connected([1]);
    let body = Bytes::from(vec![0; 8 * 1024 * 1024 + 1]);
    let request = SendRequest::new(SendParams::builder().finish(), Payload::Body(body));
    assert!(matches!(
        refusal(node.send(request).await),
        SendError::TooLarge { .. }
    ));
}

/// Tags are random unless given and header fields are as asked.
#[tokio::test]
async fn tag_and_header_follow_the_request() {
    let node = Node::new().connected([1]);
    let (outbound, _worker) = node.outbound();
    let mut tags = Vec::new();
    for _ in 0..2 {
        let request = message(SendParams::builder().finish());
        let response = tower::ServiceExt::oneshot(outbound.clone(), request).await;
        tags.extend(states(response).to_tags());
    }
    assert_ne!(tags[0], tags[1]);
    node.sent.lock().clear();
    let params = SendParams::builder()
        .with_tag(MessageTag(77))
        .with_dht_message_type(MessageType::Join)
        .with_destination(Destination::PublicKey(public_key(5)))
        .finish();
    let _ = node
        .send(SendRequest::new(params, Payload::Part("join".into())))
        .await;
    let received = node.received();
    assert_eq!(received.header().tag, MessageTag(77));
    assert_eq!(received.header().message_type, MessageType::Join);
    assert_eq!(
        received.header().destination,
        Destination::PublicKey(public_key(5))
    );
    assert!(received.header().signature.is_empty());
    let opened = received.verify().unwrap().open(&identity(5)).unwrap();
    assert_eq!(opened.parts(), Some(&[Bytes::from_static(b"join")][..]));
}

#[tokio::test]
async fn one_seed_gives_one_run() {
    let run = async || {
        let node = Node::new().connected(1..=12);
        let to = public_key(5);
        let params = SendParams::builder()
            .broadcast(vec![])
            .with_destination(Destination::PublicKey(to))
            .with_encryption(Encryption::EncryptFor(to));
        let _ = node.send(message(params.finish())).await;
        let sent = node.sent.lock();
        sent.iter()
            .map(|message| (message.to, message.frame.clone()))
            .collect::<Vec<_>>()
    };
    let first = run().await;
    assert_eq!(first.len(), 8);
    assert_eq!(first, run().await);
}

fn destinations() -> impl proptest::strategy::Strategy<Value = (Destination, Encryption)> {
    (0_u64..3, any::<bool>()).prop_map(|(seed, encrypt)| match seed {
        0 => (Destination::Unknown, Encryption::Clear),
        seed => {
            let key = public_key(seed + 10);
            let encryption = if encrypt {
                Encryption::EncryptFor(key)
            } else {
                Encryption::Clear
            };
            (Destination::PublicKey(key), encryption)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sent_messages_are_canonical_and_open(
        (destination, encryption) in destinations(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        message_type: i32, force: bool, direct: bool,
    ) {
        let node = Node::new().connected([1, 2]);
        let mut params = SendParams::builder().with_destination(destination).with_encryption(encryption);
        if force {
            params = params.force_origin();
        }
        if direct {
            params = params.direct_node_id(id(1));
        }
        let domain = dht_core::Message::new(message_type, payload.clone());
        let request = SendRequest::new(params.finish(), Payload::Domain(domain));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let queued = states(runtime.block_on(node.send(request))).len();
        prop_assert_eq!(queued, if direct { 1 } else { 2 });

        let received = node.received();
        prop_assert_eq!(node.dedup.len(), usize::from(!direct));
        let reader = destination.public_key().and_then(|key| (11..=13).find(|seed| public_key(*seed) == *key));
        let opened: Result<_, OpenError> = received.verify().unwrap().open(&identity(reader.unwrap_or(1)));
        let opened = opened.unwrap();
        let parts = opened.parts().unwrap();
        let header = DomainHeader::decode(&parts[0]).unwrap();
        prop_assert_eq!(header.message_type, message_type);
        prop_assert_eq!(header.nonce != 0, direct);
        prop_assert_eq!(&parts[1][..], &payload[..]);
        let named = force || encryption != Encryption::Clear;
        prop_assert_eq!(opened.origin(), named.then(|| node.me.public_key()));
    }
}

#[tokio::test]
async fn frames_of_all_kinds_survive_forwarding() {
    let node = Node::new().connected([1]);
    let signed = frame(
        &identity(3),
        Destination::Unknown,
        Encryption::Clear,
        Signing::Origin,
        b"signed",
        4,
    );
    let _ = node
        .send(SendRequest::forward(
            signed.clone(),
            Strategy::default(),
            MessageTag(1),
            Deliverer::from_bytes([7; 32]),
        ))
        .await;
    assert_eq!(node.frames(), [signed]);
}
