//! Every header field changed, every length of every level off by one, every field in every other encoding: not some
//! of them by chance, as in `garbage`, but all of them.

mod encodings;

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
        // Fields that no signature covers make no other message of it.
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
