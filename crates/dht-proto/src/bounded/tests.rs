use proptest::prelude::*;

use super::*;
use crate::common;

/// A frame of many empty parts costs no allocation: the count is refused before decoding.
#[test]
fn empty_parts_are_refused_before_decoding() {
    let bomb = Bytes::from([0x0a, 0x00].repeat(1 << 20));
    let limit = limits::MAX_ENVELOPE_PARTS;
    assert_eq!(
        decode::<comms::EnvelopeBody>(bomb),
        Err(DecodeError::TooManyItems { limit })
    );
}

#[test]
fn nested_items_count() {
    let header = [0x08, 0x02].repeat(2_000);
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(header.len() as u64, &mut bytes);
    bytes.extend(header);
    let result = decode::<envelope::DhtEnvelope>(bytes.into());
    assert!(matches!(result, Err(DecodeError::TooManyItems { .. })));
}

/// Fields of later versions are not items, but they have a bound in bytes.
#[test]
fn unknown_fields_count_in_bytes() {
    let unknown = [0x78, 0x01]; // field 15
    let limit = limits::MAX_UNKNOWN_BYTES;
    let most = Bytes::from(unknown.repeat(limit / 2));
    decode::<dht::JoinMessage>(most.clone()).unwrap();
    let result = decode::<dht::JoinMessage>([&most[..], &unknown].concat().into());
    assert_eq!(result, Err(DecodeError::TooMuchUnknown { limit }));
    // One of megabytes, and in a message within.
    let mut long = vec![0x7a];
    prost::encoding::encode_varint(4 << 20, &mut long);
    long.resize(long.len() + (4 << 20), 0);
    for tag in [None, Some(0x0a)] {
        let mut bytes = long.clone();
        if let Some(tag) = tag {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.append(&mut bytes);
            bytes = outer;
        }
        let result = decode::<store_forward::StoredMessagesResponse>(bytes.into());
        assert_eq!(result, Err(DecodeError::TooMuchUnknown { limit }));
    }
}

/// The layouts name every field that the generated decoder knows: none of a full message counts as unknown.
#[test]
fn full_messages_hold_nothing_unknown() {
    fn unknown_in<M: Bounded>(message: &M) -> usize {
        let mut room = Room {
            items: usize::MAX,
            unknown: usize::MAX,
        };
        assert!(room.take(&encode(message), &M::LAYOUT).is_ok());
        usize::MAX - room.unknown
    }
    let bytes = || Bytes::from_static(b"x");
    let header = |destination| envelope::DhtHeader {
        major: 1,
        message_signature: bytes(),
        ephemeral_public_key: bytes(),
        message_type: 1,
        flags: 1,
        message_tag: 1,
        expires: 1,
        destination: Some(destination),
    };
    let (known, unknown) = (
        header(envelope::dht_header::Destination::PublicKey(bytes())),
        header(envelope::dht_header::Destination::Unknown(true)),
    );
    for header in [known, unknown] {
        let envelope = envelope::DhtEnvelope {
            header: Some(header.clone()),
            body: bytes(),
        };
        assert_eq!(unknown_in(&envelope), 0);
        let stored = store_forward::StoredMessage {
            stored_at: 1,
            version: 1,
            dht_header: Some(header),
            body: bytes(),
        };
        let response = store_forward::StoredMessagesResponse {
            messages: vec![stored],
            request_id: 1,
            response_type: 1,
        };
        assert_eq!(unknown_in(&response), 0);
    }
    let signature = common::IdentitySignature {
        version: 1,
        signature: bytes(),
        public_nonce: bytes(),
        updated_at: 1,
    };
    let join = dht::JoinMessage {
        public_key: bytes(),
        addresses: vec![bytes()],
        peer_features: 1,
        nonce: 1,
        identity_signature: Some(signature.clone()),
    };
    assert_eq!(unknown_in(&join), 0);
    let claim = dht_rpc::PeerIdentityClaim {
        addresses: vec![bytes()],
        peer_features: 1,
        identity_signature: Some(signature),
    };
    let peers = dht_rpc::GetPeersResponse {
        peer: Some(dht_rpc::PeerInfo {
            public_key: bytes(),
            claims: vec![claim],
        }),
    };
    assert_eq!(unknown_in(&peers), 0);
}

#[test]
fn length_is_bounded() {
    let long = Bytes::from(vec![0; limits::MAX_IDENTITY_BYTES + 1]);
    assert!(matches!(
        decode::<identity::PeerIdentityMsg>(long),
        Err(DecodeError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let bytes = Bytes::from(bytes);
        let _ = decode::<envelope::DhtEnvelope>(bytes.clone());
        let _ = decode::<comms::EnvelopeBody>(bytes.clone());
        let _ = decode::<dht::JoinMessage>(bytes.clone());
        let _ = decode::<store_forward::StoredMessagesResponse>(bytes.clone());
        let _ = decode::<identity::PeerIdentityMsg>(bytes.clone());
        let _ = decode::<rpc::RpcSession>(bytes.clone());
        let _ = decode::<dht_rpc::GetPeersResponse>(bytes);
    }

    /// Within its limits, the bounded decoder takes what the plain decoder takes.
    #[test]
    fn agrees_with_prost_within_limits(parts in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..64), 0..=16))
    {
        let body = comms::EnvelopeBody { parts: parts.into_iter().map(Bytes::from).collect() };
        prop_assert_eq!(decode::<comms::EnvelopeBody>(encode(&body)), Ok(body));
    }
}
