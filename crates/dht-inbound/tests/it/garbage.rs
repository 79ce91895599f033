//! Whatever a peer sends, the stack answers with something the specification allows, and forgets nothing it owes.

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DropReason, MessageType, Signing, decode_parts, encode_parts,
    test_util::NOW,
};
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::{
    dht::JoinMessage,
    envelope::{DhtEnvelope, DhtHeader, dht_header},
};
use proptest::{prelude::*, sample::Index};
use prost::Message as _;

use crate::stack::{DELIVERER, Draft, ME, Node, OTHER, PEER, identity, key};

/// Something to do to a frame.
#[derive(Clone, Debug)]
enum Damage {
    /// Header fields, encoded canonically again.
    Major(u32),
    MessageType(i32),
    Flags(u32),
    Tag(u64),
    Expires(u64),
    Unknown(bool),
    NoDestination,
    DestinationBytes(Vec<u8>),
    DestinationKey(u64),
    Ephemeral(Vec<u8>),
    EphemeralKey(u64),
    NoHeader,
    Signature(Vec<u8>),
    SignatureByte(Index, u8),
    SignatureLength(bool),
    Body(Vec<u8>),
    BodyByte(Index, u8),
    BodyLength(bool),
    NoBody,
    /// Encodings nobody honest writes.
    HeaderTwice,
    BodyTwice,
    UnknownField(u32),
    FieldsSwapped,
    LongVarint,
    /// Raw bytes.
    FlipByte(Index, u8),
    InsertByte(Index, u8),
    RemoveByte(Index),
    Truncate(Index),
    Replace(Vec<u8>),
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::*;
    // Lengths around 32 matter most for keys.
    let key_bytes =
        || proptest::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 30..35);
    prop_oneof![
        prop_oneof![
            any::<u32>().prop_map(Major),
            (0..4_u32).prop_map(Major),
            any::<i32>().prop_map(MessageType),
            (0..23).prop_map(MessageType),
            any::<u32>().prop_map(Flags),
            (0..4_u32).prop_map(Flags),
            any::<u64>().prop_map(Tag),
            any::<u64>().prop_map(Expires),
            any::<bool>().prop_map(Unknown),
        ],
        prop_oneof![
            Just(NoDestination),
            key_bytes().prop_map(DestinationBytes),
            (0..5_u64).prop_map(DestinationKey),
            key_bytes().prop_map(Ephemeral),
            (0..5_u64).prop_map(EphemeralKey),
            Just(Ephemeral(vec![])),
            Just(NoHeader),
        ],
        prop_oneof![
            bytes(120).prop_map(Signature),
            Just(Signature(vec![])),
            any::<(Index, u8)>().prop_map(|(at, byte)| SignatureByte(at, byte)),
            any::<bool>().prop_map(SignatureLength),
            bytes(64).prop_map(Body),
            any::<(Index, u8)>().prop_map(|(at, byte)| BodyByte(at, byte)),
            any::<bool>().prop_map(BodyLength),
            Just(NoBody),
        ],
        prop_oneof![
            Just(HeaderTwice),
            Just(BodyTwice),
            (1..40_u32).prop_map(UnknownField),
            Just(FieldsSwapped),
            Just(LongVarint),
        ],
        prop_oneof![
            any::<(Index, u8)>().prop_map(|(at, byte)| FlipByte(at, byte)),
            any::<(Index, u8)>().prop_map(|(at, byte)| InsertByte(at, byte)),
            any::<Index>().prop_map(RemoveByte),
            any::<Index>().prop_map(Truncate),
            bytes(300).prop_map(Replace),
        ],
    ]
}

impl Damage {
    fn apply(self, frame: &Bytes) -> Bytes {
        let Ok(DhtEnvelope {
            header: Some(header),
            body,
        }) = DhtEnvelope::decode(&frame[..])
        else {
            return self.apply_raw(frame.to_vec()).into();
        };
        let with = |change: &dyn Fn(&mut DhtHeader)| {
            let mut header = header.clone();
            change(&mut header);
            envelope(Some(header), body.clone())
        };
        let with_body = |body: Vec<u8>| envelope(Some(header.clone()), body.into());
        let set = |bytes: &[u8], at: &Index, byte: u8| {
            let mut bytes = bytes.to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            bytes
        };
        let off_by_one = |bytes: &[u8], longer: bool| match longer {
            true => [bytes, &[0]].concat(),
            false => bytes[..bytes.len().saturating_sub(1)].to_vec(),
        };
        use dht_header::Destination as To;
        let key_bytes = |seed: u64| Bytes::copy_from_slice(key(seed).as_bytes());
        match &self {
            Self::Major(n) => with(&|h| h.major = *n),
            Self::MessageType(n) => with(&|h| h.message_type = *n),
            Self::Flags(n) => with(&|h| h.flags = *n),
            Self::Tag(n) => with(&|h| h.message_tag = *n),
            Self::Expires(n) => with(&|h| h.expires = *n),
            Self::Unknown(b) => with(&|h| h.destination = Some(To::Unknown(*b))),
            Self::NoDestination => with(&|h| h.destination = None),
            Self::DestinationBytes(b) => {
                with(&|h| h.destination = Some(To::PublicKey(b.clone().into())))
            }
            Self::DestinationKey(n) => {
                with(&|h| h.destination = Some(To::PublicKey(key_bytes(*n))))
            }
            Self::Ephemeral(b) => with(&|h| h.ephemeral_public_key = b.clone().into()),
            Self::EphemeralKey(n) => with(&|h| h.ephemeral_public_key = key_bytes(*n)),
            Self::NoHeader => envelope(None, body.clone()),
            Self::Signature(b) => with(&|h| h.message_signature = b.clone().into()),
            Self::SignatureByte(at, byte) => {
                with(&|h| h.message_signature = set(&h.message_signature, at, *byte).into())
            }
            Self::SignatureLength(longer) => {
                with(&|h| h.message_signature = off_by_one(&h.message_signature, *longer).into())
            }
            Self::Body(b) => with_body(b.clone()),
            Self::BodyByte(at, byte) => with_body(set(&body, at, *byte)),
            Self::BodyLength(longer) => with_body(off_by_one(&body, *longer)),
            Self::NoBody => with_body(vec![]),
            Self::HeaderTwice => [&envelope(Some(header.clone()), Bytes::new())[..], frame]
                .concat()
                .into(),
            Self::BodyTwice => [&envelope(None, body.clone())[..], frame].concat().into(),
            Self::UnknownField(field) => {
                let mut longer = frame.to_vec();
                prost::encoding::uint32::encode(*field, &1, &mut longer);
                longer.into()
            }
            Self::FieldsSwapped => {
                let first = envelope(None, body.clone());
                [&first[..], &envelope(Some(header.clone()), Bytes::new())]
                    .concat()
                    .into()
            }
            Self::LongVarint => {
                // The header's length with a needless byte of zeros.
                let mut long = vec![frame[0], frame[1] | 0x80];
                if frame[1] & 0x80 == 0 {
                    long.push(0);
                    long.extend(&frame[2..]);
                } else {
                    long.extend([frame[2] | 0x80, 0]);
                    long.extend(&frame[3..]);
                }
                long.into()
            }
            _ => self.apply_raw(frame.to_vec()).into(),
        }
    }

    fn apply_raw(self, mut frame: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Replace(bytes) => return bytes,
            Self::InsertByte(at, byte) => frame.insert(at.index(frame.len() + 1), byte),
            _ if frame.is_empty() => {}
            Self::FlipByte(at, byte) => {
                let at = at.index(frame.len());
                frame[at] ^= byte;
            }
            Self::RemoveByte(at) => {
                frame.remove(at.index(frame.len()));
            }
            Self::Truncate(at) => frame.truncate(at.index(frame.len())),
            _ => {}
        }
        frame
    }
}

fn envelope(header: Option<DhtHeader>, body: Bytes) -> Bytes {
    DhtEnvelope { header, body }.encode_to_vec().into()
}

/// Bodies of joins and discoveries, good and bad: the three messages share one layout.
fn protocol_bodies() -> impl Strategy<Value = Bytes> {
    let change = prop_oneof![
        Just(JoinDamage::None),
        (0..5_u64).prop_map(JoinDamage::Key),
        bytes(40).prop_map(JoinDamage::KeyBytes),
        any::<u32>().prop_map(JoinDamage::Features),
        proptest::collection::vec(bytes(20), 0..8).prop_map(JoinDamage::Addresses),
        Just(JoinDamage::NoSignature),
        bytes(40).prop_map(JoinDamage::Scalar),
        bytes(40).prop_map(JoinDamage::Nonce),
        any::<i64>().prop_map(JoinDamage::UpdatedAt),
        any::<u32>().prop_map(JoinDamage::Version),
    ];
    (change, any::<bool>()).prop_map(|(change, with_tail)| {
        let mut join = join();
        change.apply(&mut join);
        let mut parts = vec![Bytes::from(join.encode_to_vec())];
        if with_tail {
            parts.push(Bytes::from_static(b"and more"));
        }
        encode_parts(&parts)
    })
}

#[derive(Clone, Debug)]
enum JoinDamage {
    None,
    Key(u64),
    KeyBytes(Vec<u8>),
    Features(u32),
    Addresses(Vec<Vec<u8>>),
    NoSignature,
    Scalar(Vec<u8>),
    Nonce(Vec<u8>),
    UpdatedAt(i64),
    Version(u32),
}

impl JoinDamage {
    fn apply(self, join: &mut JoinMessage) {
        let signature = join.identity_signature.get_or_insert_default();
        match self {
            Self::None => {}
            Self::Key(seed) => join.public_key = Bytes::copy_from_slice(key(seed).as_bytes()),
            Self::KeyBytes(bytes) => join.public_key = bytes.into(),
            Self::Features(bits) => join.peer_features = bits,
            Self::Addresses(list) => join.addresses = list.into_iter().map(Bytes::from).collect(),
            Self::NoSignature => join.identity_signature = None,
            Self::Scalar(bytes) => signature.signature = bytes.into(),
            Self::Nonce(bytes) => signature.public_nonce = bytes.into(),
            Self::UpdatedAt(at) => signature.updated_at = at,
            Self::Version(version) => signature.version = version,
        }
    }
}

/// A join of [`PEER`] that holds.
fn join() -> JoinMessage {
    let claim = identity(PEER).claim();
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    JoinMessage {
        public_key: copy(key(PEER).as_bytes()),
        addresses: claim
            .addresses
            .iter()
            .map(|address| copy(address.as_bytes()))
            .collect(),
        peer_features: claim.features.bits(),
        nonce: 77,
        identity_signature: Some((&claim.signature).into()),
    }
}

fn drafts() -> impl Strategy<Value = Draft> {
    let kinds = prop_oneof![
        Just(MessageType::None),
        Just(MessageType::Join),
        Just(MessageType::Discovery),
        Just(MessageType::DiscoveryResponse),
        Just(MessageType::SafRequestMessages),
        Just(MessageType::SafStoredMessages),
    ];
    let shapes = prop_oneof![
        Just(Draft::clear(Signing::Origin)),
        Just(Draft::clear(Signing::Anonymous)),
        Just(Draft {
            destination: Destination::PublicKey(key(PEER)),
            ..Draft::clear(Signing::Origin)
        }),
        Just(Draft::encrypted(ME)),
        Just(Draft::encrypted(OTHER)),
        Just(Draft::encrypted(DELIVERER)),
    ];
    let bodies = prop_oneof![
        Just(encode_parts(&dht_core::test_util::parts(b"hello"))),
        Just(encode_parts(&[])),
        bytes(80).prop_map(|part| encode_parts(&[part.into()])),
        bytes(80).prop_map(Bytes::from),
        Just(Bytes::from([0x0a, 0x00].repeat(1_100))),
        protocol_bodies(),
        protocol_bodies(),
    ];
    let any_draft = (shapes, kinds, bodies).prop_map(|(draft, message_type, body)| Draft {
        message_type,
        body,
        ..draft
    });
    // Half of what is sent would have been fine.
    let join = Draft {
        message_type: MessageType::Join,
        destination: Destination::PublicKey(key(PEER)),
        body: encode_parts(&[join().encode_to_vec().into()]),
        ..Draft::clear(Signing::Origin)
    };
    let us = key(ME);
    let discovery = Draft {
        message_type: MessageType::Discovery,
        destination: Destination::PublicKey(us),
        encryption: dht_core::Encryption::EncryptFor(us),
        ..join.clone()
    };
    prop_oneof![
        3 => any_draft,
        1 => Just(join),
        1 => Just(discovery),
        1 => Just(Draft::encrypted(ME)),
    ]
}

/// Nothing else may come of a message on a node without store-and-forward whose every exit takes what it gets.
fn allowed(disposition: Disposition) -> bool {
    use DropReason::*;
    match disposition {
        Disposition::Delivered | Disposition::Forwarded | Disposition::Answered => true,
        Disposition::Dropped(reason) => matches!(
            reason,
            Empty
                | Undecodable
                | NotCanonical
                | BadHeader
                | RoleFilter
                | Expired
                | BadSemantics
                | BadSignature
                | Undecryptable
                | UndecodableBody
                | Duplicate
                | NotForUs
                | BadProtocolMessage
                | Unauthenticated
        ),
        _ => false,
    }
}

fn effective(disposition: Disposition) -> bool {
    !matches!(disposition, Disposition::Dropped(_))
}

/// Conditions for the damaged frame, and for the sound one after it.
async fn check(
    profile: AttributionProfile,
    draft: Draft,
    damages: Vec<Damage>,
) -> Result<(), TestCaseError> {
    let node = Node::under(profile);
    let sound = draft.frame();
    let damaged = damages
        .into_iter()
        .fold(sound.clone(), |frame, damage| damage.apply(&frame));

    let first = node.receive(damaged.clone()).await;
    prop_assert!(allowed(first), "{first:?}");
    let delivered = node.delivered();
    prop_assert_eq!(
        delivered.len(),
        usize::from(first == Disposition::Delivered)
    );
    for message in &delivered {
        // Nobody else's words are put into a signer's mouth.
        if message.origin.is_some() {
            prop_assert_eq!(message.origin, Some(key(PEER)));
            prop_assert_eq!(Ok(message.parts.clone()), decode_parts(draft.body.clone()));
        }
    }
    drop(delivered);
    for request in node.forwarded() {
        prop_assert_eq!(&request.frame, &damaged, "only as received");
    }
    for ban in node.bans() {
        let source = ban.node_id == key(DELIVERER).node_id();
        let signer = ban.node_id == key(PEER).node_id();
        prop_assert!(source || signer, "somebody uninvolved is banned: {ban:?}");
        if profile == AttributionProfile::Strict {
            let unproven = [Offence::BadSemantics, Offence::BadSignature];
            prop_assert!(
                ban.offence
                    .is_some_and(|offence| !unproven.contains(&offence))
            );
        }
    }
    // Only a peer's own signed word gets it into the directory.
    let strangers = (0..10).filter(|seed| *seed != PEER && *seed != ME);
    for seed in strangers {
        prop_assert!(node.directory.find_by_key(&key(seed)).is_none());
    }
    if let Some(known) = node.directory.find_by_key(&key(PEER)) {
        prop_assert!(
            known
                .claim()
                .is_some_and(|claim| claim.verify(&key(PEER), NOW).is_ok())
        );
    }
    node.protocol_exits();
    prop_assert_eq!(node.held(), 0, "a permit leaked");

    // Nothing takes effect twice.
    let second = node.receive(damaged.clone()).await;
    prop_assert!(
        allowed(second) && !effective(second),
        "{first:?}, then {second:?}"
    );

    // A sound signed message does not suffer from its damaged copies.
    if draft.signing == Signing::Origin || draft.encryption != dht_core::Encryption::Clear {
        let untouched = Node::under(profile);
        let expected = untouched.receive(sound.clone()).await;
        let actual = node.receive(sound).await;
        let same_message =
            actual == Disposition::Dropped(DropReason::Duplicate) && first == expected;
        prop_assert!(
            actual == expected || same_message,
            "{expected:?} became {actual:?} after {first:?}"
        );
    }
    Ok(())
}

fn run(future: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn damaged_messages_end_as_specification_allows(
        legacy: bool,
        draft in drafts(),
        damages in proptest::collection::vec(damage(), 0..3),
    ) {
        let profile = if legacy { AttributionProfile::Legacy } else { AttributionProfile::Strict };
        run(check(profile, draft, damages))?;
    }

    #[test]
    fn random_bytes_end_as_specification_allows(frame in bytes(400)) {
        run(async {
            let node = Node::under(AttributionProfile::Strict);
            let ended = node.receive(frame.into()).await;
            prop_assert!(allowed(ended) && !effective(ended), "{ended:?}");
            prop_assert!(node.bans().is_empty());
            Ok(())
        })?;
    }
}
