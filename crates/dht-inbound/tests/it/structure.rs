//! Every header field changed, every length of every level off by one, every field in every other encoding: not some
//! of them by chance, as in `garbage`, but all of them.

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DropReason, MessageType, Signing, encode_parts, test_util::NOW,
};
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::{
    dht::JoinMessage,
    envelope::{DhtEnvelope, DhtHeader, dht_header::Destination as To},
};
use prost::Message as _;

use crate::stack::{DELIVERER, Draft, ME, Node, OTHER, PEER, identity, key};
use AttributionProfile::{Legacy, Strict};

const BAD_HEADER: Disposition = Disposition::Dropped(DropReason::BadHeader);
const BAD_SEMANTICS: Disposition = Disposition::Dropped(DropReason::BadSemantics);
const BAD_SIGNATURE: Disposition = Disposition::Dropped(DropReason::BadSignature);
const DUPLICATE: Disposition = Disposition::Dropped(DropReason::Duplicate);
const EXPIRED: Disposition = Disposition::Dropped(DropReason::Expired);
const NOT_CANONICAL: Disposition = Disposition::Dropped(DropReason::NotCanonical);
const UNDECODABLE: Disposition = Disposition::Dropped(DropReason::Undecodable);
const UNDECODABLE_BODY: Disposition = Disposition::Dropped(DropReason::UndecodableBody);

fn node(profile: AttributionProfile) -> Node {
    Node::under(profile)
}

/// The signed messages of an application, and what becomes of each.
fn signed() -> [(Draft, Disposition); 4] {
    let directed = Draft {
        destination: Destination::PublicKey(key(OTHER)),
        ..Draft::clear(Signing::Origin)
    };
    [
        (Draft::clear(Signing::Origin), Disposition::Delivered),
        (directed, Disposition::Delivered),
        (Draft::encrypted(ME), Disposition::Delivered),
        (Draft::encrypted(OTHER), Disposition::Forwarded),
    ]
}

/// Feeds in what must be refused: it has no effect, nobody is banned for it but the deliverer, and by the legacy
/// profile only, and the sound message after it takes effect as if nothing had been.
async fn refused(
    damaged: Bytes,
    sound: &Bytes,
    effect: Disposition,
    expected: &[Disposition],
    what: &str,
) {
    for profile in [Strict, Legacy] {
        let node = node(profile);
        let ended = node.receive(damaged.clone()).await;
        assert!(
            expected.contains(&ended),
            "{what}: {ended:?}, expected {expected:?}"
        );
        assert!(
            node.delivered().is_empty() && node.forwarded().is_empty(),
            "{what}"
        );
        assert_eq!((node.protocol_exits(), node.held()), (0, 0), "{what}");
        let bans: Vec<_> = node
            .bans()
            .iter()
            .map(|ban| (ban.node_id, ban.offence))
            .collect();
        let offence = match ended {
            BAD_SIGNATURE => Some(Offence::BadSignature),
            BAD_SEMANTICS => Some(Offence::BadSemantics),
            _ => None,
        };
        let source = key(DELIVERER).node_id();
        let blamed = offence
            .filter(|_| profile == Legacy)
            .map(|offence| (source, Some(offence)));
        assert_eq!(bans, blamed.as_slice(), "{what}");
        assert_eq!(node.receive(sound.clone()).await, effect, "{what}");
    }
}

// --- header fields ---

/// Each field with values of every kind, and what a message signed before the change ends as.
fn header_changes(header: &DhtHeader) -> Vec<(DhtHeader, Disposition)> {
    let mut changes = Vec::new();
    let mut change = |ends: Disposition, change: &dyn Fn(&mut DhtHeader)| {
        let mut changed = header.clone();
        change(&mut changed);
        if changed != *header {
            changes.push((changed, ends));
        }
    };
    let encrypted = header.flags == 1;
    let bytes = |length: usize, byte: u8| Bytes::from(vec![byte; length]);
    let key_of = |seed: u64| Bytes::copy_from_slice(key(seed).as_bytes());

    for major in [0, 3, 255, 256, u32::MAX] {
        change(BAD_HEADER, &|header| header.major = major);
    }
    change(BAD_SIGNATURE, &|header| header.major = 1);

    change(BAD_HEADER, &|header| header.destination = None);
    for key in [
        bytes(0, 0),
        bytes(31, 0),
        bytes(33, 0),
        bytes(32, 0xff),
        bytes(32, 1),
    ] {
        change(BAD_HEADER, &|header| {
            header.destination = Some(To::PublicKey(key.clone()))
        });
        if !key.is_empty() {
            change(BAD_HEADER, &|header| {
                header.ephemeral_public_key = key.clone()
            });
        }
    }
    let identity = bytes(32, 0);
    for key in [identity.clone(), key_of(PEER), key_of(DELIVERER)] {
        change(BAD_SIGNATURE, &|header| {
            header.destination = Some(To::PublicKey(key.clone()))
        });
        // To the hash that is signed, no key is the same as the identity.
        if encrypted || key != identity {
            change(BAD_SIGNATURE, &|header| {
                header.ephemeral_public_key = key.clone()
            });
        }
    }
    let to_nobody = if encrypted {
        BAD_SEMANTICS
    } else {
        BAD_SIGNATURE
    };
    if header.destination != Some(To::Unknown(true)) {
        for value in [true, false] {
            change(to_nobody, &|header| {
                header.destination = Some(To::Unknown(value))
            });
        }
    }
    change(to_nobody, &|header| {
        header.ephemeral_public_key = Bytes::new()
    });

    let signature = &header.message_signature;
    for damaged in [
        signature.slice(..101),
        signature.slice(1..),
        [signature, &[0][..]].concat().into(),
        bytes(32, 1),
        bytes(102, 0),
        bytes(1, 0x0a),
    ] {
        change(BAD_SIGNATURE, &|header| {
            header.message_signature = damaged.clone()
        });
    }
    if encrypted {
        change(BAD_SEMANTICS, &|header| {
            header.message_signature = Bytes::new()
        });
    }

    for kind in [-1, 4, 19, 22, 256, i32::MIN, i32::MAX] {
        change(BAD_HEADER, &|header| header.message_type = kind);
    }
    for kind in [0, 1, 2, 3, 20, 21] {
        change(BAD_SIGNATURE, &|header| header.message_type = kind);
    }

    for flags in [2, 3, 4, 1 << 31, u32::MAX] {
        change(BAD_HEADER, &|header| header.flags = flags);
    }
    let toggled = if encrypted {
        BAD_SIGNATURE
    } else {
        BAD_SEMANTICS
    };
    change(toggled, &|header| header.flags ^= 1);

    for expires in [1, NOW.0 - 1] {
        change(EXPIRED, &|header| header.expires = expires);
    }
    for expires in [0, NOW.0, NOW.0 + 3_601, u64::MAX] {
        change(BAD_SIGNATURE, &|header| header.expires = expires);
    }
    changes
}

#[tokio::test]
async fn no_signed_header_field_can_change() {
    for (draft, effect) in signed() {
        let sound = draft.frame();
        let DhtEnvelope { header, body } = DhtEnvelope::decode(&sound[..]).unwrap();
        let header = header.unwrap();
        let changes = header_changes(&header);
        assert!(changes.len() > 45, "only {}", changes.len());
        for (changed, expected) in changes {
            let what = format!("{changed:?}");
            let damaged = dht_proto::encode(&DhtEnvelope {
                header: Some(changed),
                body: body.clone(),
            });
            refused(damaged, &sound, effect, &[expected], &what).await;
        }
        // What no signature covers makes no other message of it.
        let with_tag = |tag| {
            let mut changed = header.clone();
            changed.message_tag = tag;
            changed
        };
        let mut same = [0, 1, u64::MAX].map(with_tag).to_vec();
        if header.flags == 0 {
            let mut changed = header.clone();
            changed.ephemeral_public_key = Bytes::from_static(&[0; 32]);
            same.push(changed);
        }
        for changed in same {
            let damaged = dht_proto::encode(&DhtEnvelope {
                header: Some(changed),
                body: body.clone(),
            });
            let node = node(Strict);
            assert_eq!(node.receive(damaged).await, effect);
            assert_eq!(node.receive(sound.clone()).await, DUPLICATE);
        }
    }
}

// --- structure ---

/// A protobuf message, taken apart as far as it is known what is in it.
#[derive(Clone, Debug)]
struct Parsed(Vec<Field>);

#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    OpenedMessage(Parsed),
}

/// Which fields of a message are messages.
struct Schema(&'static [(u64, Self)]);

const LEAF: Schema = Schema(&[]);
/// Envelope: header with its signature, and a clear body.
const CLEAR: Schema = Schema(&[(1, Schema(&[(6, LEAF)])), (2, LEAF)]);
/// The body of an encrypted message is none.
const SEALED: Schema = Schema(&[(1, Schema(&[(6, LEAF)]))]);
const JOIN: Schema = Schema(&[(5, LEAF)]);

/// One thing to do to the field at a path.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edit {
    /// The length says one more or less than there is.
    Length(bool),
    /// One byte more or less, and a length that says so.
    Content(bool),
    /// Varints with a needless byte: of the key, of the length or of the number.
    LongKey,
    LongValue,
    /// Number and wire type of the key.
    OtherNumber,
    OtherType,
    Twice,
    Swapped,
    /// In front of the field: one nobody knows, or one that says the default.
    Unknown,
    Default(u64),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    prost::encoding::decode_varint(bytes).unwrap()
}

fn put(value: u64, long: bool, out: &mut Vec<u8>) {
    prost::encoding::encode_varint(value, out);
    if long {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
}

impl Parsed {
    fn parse(mut bytes: &[u8], schema: &Schema) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let number = tag >> 3;
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut bytes)),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    match schema.0.iter().find(|(of, _)| *of == number) {
                        Some((_, schema)) => Value::OpenedMessage(Self::parse(content, schema)),
                        None => Value::Bytes(content.to_vec()),
                    }
                }
                other => unreachable!("wire type {other} is not used"),
            };
            fields.push(Field { number, value });
        }
        Self(fields)
    }

    /// The paths of all fields.
    fn paths(&self) -> Vec<Vec<usize>> {
        let mut paths = Vec::new();
        for (at, field) in self.0.iter().enumerate() {
            paths.push(vec![at]);
            if let Value::OpenedMessage(inner) = &field.value {
                paths.extend(
                    inner
                        .paths()
                        .into_iter()
                        .map(|path| [&[at], &path[..]].concat()),
                );
            }
        }
        paths
    }

    /// Encodes again, with one edit; `None` if it does not apply or changes nothing.
    fn edited(&self, path: &[usize], edit: Edit) -> Option<Bytes> {
        let sound = self.encode(None).unwrap();
        let edited = self.encode(Some((path, edit)))?;
        (edited != sound).then(|| edited.into())
    }

    fn encode(&self, edit: Option<(&[usize], Edit)>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        if let Some((&[at], Edit::Swapped)) = edit {
            if at + 1 == order.len() {
                return None;
            }
            order.swap(at, at + 1);
        }
        for at in order {
            let field = &self.0[at];
            match edit {
                Some((&[here], edit)) if here == at => field.encode_edited(edit, &mut out)?,
                Some((&[here, ref rest @ ..], edit)) if here == at && !rest.is_empty() => {
                    field.encode(Some((rest, edit)), &mut out)?;
                }
                _ => field.encode(None, &mut out)?,
            }
        }
        Some(out)
    }
}

impl Field {
    fn wire_type(&self) -> u64 {
        match self.value {
            Value::Number(_) => 0,
            _ => 2,
        }
    }

    fn content(&self, edit: Option<(&[usize], Edit)>) -> Option<Vec<u8>> {
        match &self.value {
            Value::Number(_) => None,
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::OpenedMessage(inner) => inner.encode(edit),
        }
    }

    fn encode(&self, edit: Option<(&[usize], Edit)>, out: &mut Vec<u8>) -> Option<()> {
        put(self.number << 3 | self.wire_type(), false, out);
        match &self.value {
            Value::Number(number) => put(*number, false, out),
            _ => {
                let content = self.content(edit)?;
                put(content.len() as u64, false, out);
                out.extend(content);
            }
        }
        Some(())
    }

    fn encode_edited(&self, edit: Edit, out: &mut Vec<u8>) -> Option<()> {
        let (mut number, mut wire_type) = (self.number, self.wire_type());
        match edit {
            Edit::Unknown => {
                put(15 << 3, false, out);
                put(1, false, out);
                return self.encode(None, out);
            }
            Edit::Default(field) => {
                put(field << 3, false, out);
                put(0, false, out);
                return self.encode(None, out);
            }
            Edit::Twice => {
                self.encode(None, out)?;
                return self.encode(None, out);
            }
            Edit::Swapped => return self.encode(None, out),
            Edit::OtherNumber => number = 14,
            // Five bytes of a fixed number, wherever they come from.
            Edit::OtherType => wire_type = 5,
            _ => {}
        }
        put(number << 3 | wire_type, edit == Edit::LongKey, out);
        let long = edit == Edit::LongValue;
        match (&self.value, edit) {
            (Value::Number(_), Edit::Length(_) | Edit::Content(_)) => return None,
            (Value::Number(number), _) => put(*number, long, out),
            (_, edit) => {
                let mut content = self.content(None)?;
                let mut length = content.len() as u64;
                match edit {
                    Edit::Length(true) => length += 1,
                    Edit::Length(false) => length = length.checked_sub(1)?,
                    Edit::Content(true) => {
                        content.push(0);
                        length += 1;
                    }
                    Edit::Content(false) => {
                        content.pop()?;
                        length -= 1;
                    }
                    _ => {}
                }
                put(length, long, out);
                out.extend(content);
            }
        }
        Some(())
    }
}

/// Every edit that leaves the meaning what it was.
const ENCODINGS: [Edit; 5] = [
    Edit::LongKey,
    Edit::LongValue,
    Edit::Twice,
    Edit::Swapped,
    Edit::Unknown,
];

/// Every edit that does not.
const DAMAGES: [Edit; 6] = [
    Edit::Length(true),
    Edit::Length(false),
    Edit::Content(true),
    Edit::Content(false),
    Edit::OtherNumber,
    Edit::OtherType,
];

fn schema(draft: &Draft) -> &'static Schema {
    match draft.encryption {
        dht_core::Encryption::Clear => &CLEAR,
        dht_core::Encryption::EncryptFor(_) => &SEALED,
    }
}

/// Envelope and header in another encoding are dropped, the signature too, the signed body is not what was signed; and
/// nobody is banned for an encoding (03 F-1, 03 F-5).
#[tokio::test]
async fn signed_message_has_one_accepted_encoding() {
    for (draft, effect) in signed() {
        let sound = draft.frame();
        let parsed = Parsed::parse(&sound, schema(&draft));
        let mut tried = 0;
        for path in parsed.paths() {
            let defaults = [1, 3, 8, 10, 11, 12].map(Edit::Default);
            for edit in ENCODINGS.into_iter().chain(defaults) {
                let Some(damaged) = parsed.edited(&path, edit) else {
                    continue;
                };
                tried += 1;
                let what = format!("{edit:?} at {path:?} of {draft:?}");
                let expected: &[_] = match (&path[..], edit) {
                    // Of the header, fields 1, 3 and 8 to 12 may be defaults; elsewhere they are of the wrong type or
                    // nobody knows them.
                    ([_] | [0, _], _) => &[NOT_CANONICAL, UNDECODABLE],
                    ([0, _, _], Edit::Default(_)) => &[NOT_CANONICAL, BAD_SIGNATURE],
                    ([0, _, _], _) => &[NOT_CANONICAL],
                    _ => &[BAD_SIGNATURE],
                };
                refused(damaged, &sound, effect, expected, &what).await;
            }
        }
        assert!(tried > 80, "only {tried}");
    }
}

/// No length of a signed message can be off by one.
#[tokio::test]
async fn signed_lengths_are_exact() {
    for (draft, effect) in signed() {
        let sound = draft.frame();
        let parsed = Parsed::parse(&sound, schema(&draft));
        let mut tried = 0;
        for path in parsed.paths() {
            for edit in DAMAGES {
                let Some(damaged) = parsed.edited(&path, edit) else {
                    continue;
                };
                tried += 1;
                let what = format!("{edit:?} at {path:?} of {draft:?}");
                let expected: &[_] = match &path[..] {
                    // A tag of another number is a field nobody knows; a body of another length is not what was signed.
                    [_] | [0, _] => &[
                        UNDECODABLE,
                        NOT_CANONICAL,
                        BAD_HEADER,
                        BAD_SIGNATURE,
                        BAD_SEMANTICS,
                    ],
                    _ => &[BAD_SIGNATURE],
                };
                refused(damaged, &sound, effect, expected, &what).await;
            }
        }
        assert!(tried > 50, "only {tried}");
    }
}

/// Anybody can encode an unsigned body otherwise: it is the same message all the same (03 F-14).
#[tokio::test]
async fn reencoded_unsigned_body_is_one_message() {
    let sound = Draft::clear(Signing::Anonymous).frame();
    let parsed = Parsed::parse(&sound, &CLEAR);
    for path in parsed.paths() {
        let in_body = path.len() == 2 && path[0] == 1;
        for edit in ENCODINGS {
            let Some(other) = parsed.edited(&path, edit) else {
                continue;
            };
            let what = format!("{edit:?} at {path:?}");
            let node = node(Strict);
            let first = node.receive(other).await;
            let second = node.receive(sound.clone()).await;
            assert!(node.bans().is_empty(), "{what}");
            match edit {
                _ if !in_body => {
                    assert!(
                        [NOT_CANONICAL, UNDECODABLE].contains(&first),
                        "{what}: {first:?}"
                    );
                    assert_eq!(second, Disposition::Delivered, "{what}");
                }
                // Another part, or another order of them, is another message.
                Edit::Twice | Edit::Swapped => {
                    assert_eq!(
                        (first, second),
                        (Disposition::Delivered, Disposition::Delivered),
                        "{what}"
                    );
                }
                _ => assert_eq!(
                    (first, second),
                    (Disposition::Delivered, DUPLICATE),
                    "{what}"
                ),
            }
        }
        for edit in DAMAGES {
            let Some(damaged) = parsed.edited(&path, edit).filter(|_| in_body) else {
                continue;
            };
            let node = node(Strict);
            let ended = node.receive(damaged).await;
            let allowed = [Disposition::Delivered, UNDECODABLE_BODY];
            assert!(allowed.contains(&ended), "{edit:?} at {path:?}: {ended:?}");
            // Whatever it says now, it is nothing anybody signed.
            assert!(
                node.delivered()
                    .iter()
                    .all(|message| message.origin.is_none())
            );
            assert_eq!(node.receive(sound.clone()).await, Disposition::Delivered);
        }
    }
}

/// A join that holds, of the peer that signs it.
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

/// Inside a signed protocol message its signer answers for every byte: it is taken or not, it is passed on as received
/// or not at all, and only its signer can be banned for it.
#[tokio::test]
async fn protocol_message_is_taken_or_blamed() {
    let encoded = join().encode_to_vec();
    let parsed = Parsed::parse(&encoded, &JOIN);
    let mut tried = 0;
    for path in parsed.paths() {
        for edit in ENCODINGS.into_iter().chain(DAMAGES) {
            let Some(body) = parsed.edited(&path, edit) else {
                continue;
            };
            for (kind, encryption, destination) in [
                (MessageType::Join, dht_core::Encryption::Clear, PEER),
                (
                    MessageType::Discovery,
                    dht_core::Encryption::EncryptFor(key(ME)),
                    ME,
                ),
            ] {
                tried += 1;
                let what = format!("{edit:?} at {path:?} of a {}", kind.name());
                let draft = Draft {
                    message_type: kind,
                    encryption,
                    destination: Destination::PublicKey(key(destination)),
                    body: encode_parts(std::slice::from_ref(&body)),
                    ..Draft::clear(Signing::Origin)
                };
                let node = node(Strict);
                let ended = node.receive(draft.frame()).await;
                let taken = ended == Disposition::Answered;
                let bad = Disposition::Dropped(DropReason::BadProtocolMessage);
                assert!(taken || ended == bad, "{what}: {ended:?}");
                let forwarded = node.forwarded();
                assert_eq!(
                    forwarded.len(),
                    usize::from(taken && kind == MessageType::Join),
                    "{what}"
                );
                assert!(
                    forwarded
                        .iter()
                        .all(|request| request.frame == draft.frame()),
                    "{what}"
                );
                assert_eq!(
                    node.protocol_exits(),
                    usize::from(taken && kind == MessageType::Discovery)
                );
                assert_eq!(
                    node.directory.find_by_key(&key(PEER)).is_some(),
                    taken,
                    "{what}"
                );
                let bans = node.bans();
                assert!(
                    bans.iter()
                        .all(|ban| !taken && ban.node_id == key(PEER).node_id()),
                    "{what}: {bans:?}"
                );
                // Another encoding of the same says the same.
                let same = matches!(
                    edit,
                    Edit::LongKey | Edit::LongValue | Edit::Swapped | Edit::Unknown
                );
                assert!(taken || !same, "{what}: {ended:?}");
            }
        }
    }
    assert!(tried > 100, "only {tried}");
}
