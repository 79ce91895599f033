//! Every length off by one, and every field in every other encoding.

use super::*;

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
