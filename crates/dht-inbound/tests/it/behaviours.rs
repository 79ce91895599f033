//! Rows of `docs/protocol/behaviours.md` that concern the whole stack, by their number.

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, DomainHeader, DropReason, Features, MessageTag, MessageType,
    RawEnvelope, Signing, UnixSeconds, dedup_key_of, encode_parts,
    test_util::{NOW, identity_with, parts},
};
use dht_dedup::DedupMeta;
use dht_inbound::InboundConfig;
use dht_peers::policy::{
    AttributionProfile::{self, Legacy, Strict},
    Offence,
};
use dht_proto::dht::JoinMessage;
use prost::Message as _;

use crate::stack::{DELIVERER, Draft, ME, Node, OTHER, PEER, identity, key, tampered};

const fn dropped(reason: DropReason) -> Disposition {
    Disposition::Dropped(reason)
}

fn node() -> Node {
    Node::new(InboundConfig::default())
}

fn legacy() -> Node {
    Node::under(Legacy)
}

/// A join of [`PEER`], as honest ones are.
fn join() -> Draft {
    let claim = identity(PEER).claim();
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let message = JoinMessage {
        public_key: copy(key(PEER).as_bytes()),
        addresses: claim
            .addresses
            .iter()
            .map(|address| copy(address.as_bytes()))
            .collect(),
        peer_features: claim.features.bits(),
        nonce: 77,
        identity_signature: Some((&claim.signature).into()),
    };
    Draft {
        message_type: MessageType::Join,
        destination: Destination::PublicKey(key(PEER)),
        body: encode_parts(&[message.encode_to_vec().into()]),
        ..Draft::clear(Signing::Origin)
    }
}

#[tokio::test]
async fn b051_known_peers_clear_message_is_delivered() {
    let node = node();
    let frame = Draft::clear(Signing::Anonymous).frame();
    assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
    let delivered = node.delivered();
    assert_eq!(delivered.len(), 1);
    let message = &delivered[0];
    assert_eq!(message.parts, parts(b"hello"));
    assert_eq!(
        message.payload().map(|payload| &payload[..]),
        Some(&b"hello"[..])
    );
    assert_eq!(
        DomainHeader::decode(&message.parts[0]).map(|header| header.message_type),
        Ok(1)
    );
    assert_eq!(
        (message.origin, message.occurrences, message.is_saf),
        (None, 1, false)
    );
    assert_eq!(
        (message.source.public_key, message.tag()),
        (key(DELIVERER), MessageTag(7))
    );
    assert_eq!(message.frame, frame);
    assert!(node.held() > 0, "the permit goes with the message");
    drop(delivered);
    assert_eq!(node.held(), 0);
    assert_eq!(node.meter.count(&key(DELIVERER).node_id(), NOW), 1);
}

/// The destination of a clear message is advice to relays; it does not close an envelope everybody can read.
#[tokio::test]
async fn clear_message_for_another_stays_here() {
    let node = node();
    let frame = Draft {
        destination: Destination::PublicKey(key(PEER)),
        ..Draft::clear(Signing::Anonymous)
    };
    assert_eq!(node.receive(frame.frame()).await, Disposition::Delivered);
    assert_eq!(node.delivered().len(), 1);
    assert!(node.forwarded().is_empty());
}

#[tokio::test]
async fn b052_message_for_this_node_is_decrypted() {
    let node = node();
    let frame = Draft::encrypted(ME).frame();
    // Nobody else holds this buffer: it is decrypted in place.
    assert_eq!(node.receive(frame).await, Disposition::Delivered);
    let delivered = node.delivered();
    assert_eq!(delivered[0].parts, parts(b"hello"));
    assert_eq!(delivered[0].origin, Some(key(PEER)));
    assert!(node.forwarded().is_empty());
}

/// Message encrypted for another key is sent on as received.
#[tokio::test]
async fn b053_message_for_another_is_forwarded_unchanged() {
    for node in [node(), legacy()] {
        let frame = Draft::encrypted(OTHER).frame();
        assert_eq!(node.receive(frame.clone()).await, Disposition::Forwarded);
        let sent = node.forwarded();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].frame, frame);
        let signature = |frame: &Bytes| {
            RawEnvelope::parse(frame.clone())
                .unwrap()
                .header()
                .unwrap()
                .message_signature
                .clone()
        };
        assert_eq!(signature(&sent[0].frame), signature(&frame));
        assert!(node.delivered().is_empty() && node.bans().is_empty());
        assert_eq!(node.held(), 0);
    }
}

/// Reencoded signature is no new message but a stripped one is.
#[tokio::test]
async fn b054_reencoded_signature_is_no_new_message() {
    for node in [node(), legacy()] {
        let frame = Draft::clear(Signing::Origin).frame();
        assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
        assert_eq!(node.delivered()[0].origin, Some(key(PEER)));

        let reencoded = tampered(frame.clone(), |header, _| {
            header.signature = [&header.signature[..], &[0x20, 0x01]].concat().into();
        });
        assert_eq!(
            node.receive(reencoded).await,
            dropped(DropReason::NotCanonical)
        );

        let stripped = tampered(frame, |header, _| header.signature = Bytes::new());
        assert_eq!(node.receive(stripped).await, Disposition::Delivered);
        let delivered = node.delivered();
        assert_eq!(delivered.len(), 1);
        assert_eq!(delivered[0].origin, None);
        assert!(node.bans().is_empty());
    }
}

/// Echo of an own unsigned noncanonical body is a repeat.
#[tokio::test]
async fn b055_own_noncanonical_echo_is_a_repeat() {
    let node = node();
    let body = encode_parts(&parts(b"hello"));
    let odd = Bytes::from([&body[..], &[0x10, 0x01]].concat());
    // Behaviour of the outbound side when it floods.
    let meta = DedupMeta {
        signed: false,
        expires: None,
    };
    let echo = Draft {
        body: odd,
        ..Draft::clear(Signing::Anonymous)
    };
    let sent = RawEnvelope::parse(echo.frame())
        .unwrap()
        .into_sealed()
        .unwrap();
    let key = dedup_key_of(sent.header(), sent.body()).unwrap();
    assert_eq!(node.dedup.seed(&key, meta, NOW), 1);
    assert_eq!(
        node.receive(echo.frame()).await,
        dropped(DropReason::Duplicate)
    );
    assert!(node.delivered().is_empty());
}

/// a copy of an unsigned message under another type does not take its place.
#[tokio::test]
async fn retyped_copy_does_not_censor() {
    for message_type in [MessageType::Join, MessageType::SafStoredMessages] {
        let node = node();
        let frame = Draft::clear(Signing::Anonymous).frame();
        let retyped = tampered(frame.clone(), |header, _| {
            header.message_type = message_type
        });
        let ended = node.receive(retyped).await;
        assert!(matches!(ended, Disposition::Dropped(_)), "{ended:?}");
        assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
        assert_eq!(node.receive(frame).await, dropped(DropReason::Duplicate));
        assert_eq!(node.delivered().len(), 1);
    }
}

/// Expired message is dropped and one without expiry passes.
#[tokio::test]
async fn b056_only_expired_message_is_dropped() {
    for node in [node(), legacy()] {
        let frame = Draft::clear(Signing::Anonymous).frame();
        let late = tampered(frame.clone(), |header, _| {
            header.expires = Some(UnixSeconds(NOW.0 - 1));
        });
        assert_eq!(node.receive(late).await, dropped(DropReason::Expired));
        let endless = tampered(frame, |header, _| header.expires = None);
        assert_eq!(node.receive(endless).await, Disposition::Delivered);
        assert!(node.bans().is_empty());
    }
}

#[tokio::test]
async fn b057_undirected_message_is_delivered_as_allowed() {
    let node = Node::new(InboundConfig {
        allowed_occurrences: 3,
        ..InboundConfig::default()
    });
    let frame = Draft::clear(Signing::Origin).frame();
    for occurrences in 1..=3 {
        assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
        assert_eq!(node.delivered()[0].occurrences, occurrences);
    }
    for _ in 0..2 {
        assert_eq!(
            node.receive(frame.clone()).await,
            dropped(DropReason::Duplicate)
        );
    }
    // Directed messages reach the application once all the same.
    let directed = Draft::encrypted(ME).frame();
    assert_eq!(node.receive(directed.clone()).await, Disposition::Delivered);
    assert_eq!(
        node.receive(directed).await,
        dropped(DropReason::Rebroadcast)
    );
}

#[tokio::test]
async fn duplicate_costs_neither_permit_nor_bandwidth() {
    let node = node();
    for (draft, first) in [
        (Draft::clear(Signing::Origin), Disposition::Delivered),
        (Draft::encrypted(ME), Disposition::Delivered),
        (Draft::encrypted(OTHER), Disposition::Forwarded),
        (join(), Disposition::Answered),
    ] {
        assert_eq!(node.receive(draft.frame()).await, first);
        node.delivered();
        for source in [DELIVERER, PEER] {
            let repeat = node.receive_from(source, draft.frame()).await;
            assert_eq!(repeat, dropped(DropReason::Duplicate));
        }
    }
    assert_eq!(node.forwarded().len(), 2, "each once");
    assert_eq!(node.held(), 0);
}

#[tokio::test]
async fn same_message_under_another_tag_repeats() {
    let node = node();
    let frame = Draft::clear(Signing::Origin).frame();
    assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
    let tagged = tampered(frame, |header, _| header.tag = MessageTag(8));
    assert_eq!(node.receive(tagged).await, dropped(DropReason::Duplicate));
}

#[tokio::test]
async fn b126_honest_copy_passes_after_tampered_one() {
    for (node, banned) in [(legacy(), 1), (node(), 0)] {
        let honest = Draft::clear(Signing::Origin).frame();
        let altered = tampered(honest.clone(), |header, _| {
            header.message_type = MessageType::SafStoredMessages;
        });
        assert_eq!(
            node.receive(altered).await,
            dropped(DropReason::BadSignature)
        );
        let bans = node.bans();
        assert_eq!(bans.len(), banned);
        assert!(
            bans.iter()
                .all(|ban| ban.node_id == key(DELIVERER).node_id())
        );
        assert_eq!(
            node.receive_from(PEER, honest).await,
            Disposition::Delivered
        );
    }
}

#[tokio::test]
async fn b128_b129_neither_body_nor_header_is_malleable() {
    for (node, banned) in [(legacy(), 2), (node(), 0)] {
        let honest = Draft::clear(Signing::Origin).frame();
        let added = tampered(honest.clone(), |_, body| {
            *body = [&body[..], &[0x0a, 0x01, 0x78]].concat().into();
        });
        let retyped = tampered(honest, |header, _| {
            header.message_type = MessageType::SafStoredMessages;
        });
        for frame in [added, retyped] {
            assert_eq!(node.receive(frame).await, dropped(DropReason::BadSignature));
        }
        assert!(node.delivered().is_empty());
        assert_eq!(node.bans().len(), banned);
    }
}

#[tokio::test]
async fn b130_join_with_unknown_field_is_dropped() {
    for node in [node(), legacy()] {
        let frame = Bytes::from([&join().frame()[..], &[0x78, 0x01]].concat());
        assert_eq!(node.receive(frame).await, dropped(DropReason::NotCanonical));
        assert!(node.directory.is_empty() && node.forwarded().is_empty());
        assert!(node.bans().is_empty());
    }
}

/// Oversized join addressed to another is an offence in legacy.
#[tokio::test]
async fn b131_legacy_blames_oversized_join_for_another() {
    let mut message = JoinMessage::decode(
        &RawEnvelope::parse(join().frame())
            .unwrap()
            .into_sealed()
            .unwrap()
            .verify()
            .unwrap()
            .open(&identity(ME))
            .unwrap()
            .parts()
            .unwrap()[0][..],
    )
    .unwrap();
    message.addresses = vec![message.addresses[0].clone(); 6];
    let draft = Draft {
        destination: Destination::PublicKey(key(OTHER)),
        body: encode_parts(&[message.encode_to_vec().into()]),
        ..join()
    };
    let node = legacy();
    let ended = node.receive_from(PEER, draft.frame()).await;
    assert_eq!(ended, dropped(DropReason::BadProtocolMessage));
    assert_eq!(node.bans()[0].node_id, key(PEER).node_id());
    assert!(node.forwarded().is_empty());
}

#[tokio::test]
async fn clear_message_for_another_is_delivered() {
    let node = node();
    let destination = Destination::PublicKey(key(OTHER));
    let draft = Draft {
        destination,
        ..Draft::clear(Signing::Origin)
    };
    assert_eq!(node.receive(draft.frame()).await, Disposition::Delivered);
    assert!(node.forwarded().is_empty());
}

/// A client neither forwards nor serves but takes what is its own.
#[tokio::test]
async fn client_takes_only_its_own_messages() {
    let client = std::sync::Arc::new(identity_with(ME, Features::CLIENT));
    let node = Node::with_identity(InboundConfig::default(), client);
    assert_eq!(
        node.receive(Draft::encrypted(OTHER).frame()).await,
        dropped(DropReason::NotForUs)
    );
    assert!(node.forwarded().is_empty());
    assert_eq!(
        node.receive(Draft::encrypted(ME).frame()).await,
        Disposition::Delivered
    );
    for kind in [
        MessageType::SafRequestMessages,
        MessageType::SafStoredMessages,
    ] {
        let draft = Draft {
            message_type: kind,
            ..Draft::clear(Signing::Anonymous)
        };
        assert_eq!(
            node.receive(draft.frame()).await,
            dropped(DropReason::RoleFilter)
        );
    }
    assert_eq!(node.delivered().len(), 1);
}

#[tokio::test]
async fn forwarding_can_be_turned_off() {
    let node = Node::new(InboundConfig {
        forward: false,
        ..InboundConfig::default()
    });
    assert_eq!(
        node.receive(Draft::encrypted(OTHER).frame()).await,
        dropped(DropReason::NotForUs)
    );
    assert!(node.forwarded().is_empty());
}

/// Gossip is passed on only if the setting says so.
#[tokio::test]
async fn gossip_is_relayed_only_if_configured() {
    let frame = Draft::clear(Signing::Origin).frame();
    for (relay_gossip, sent) in [(false, 0), (true, 1)] {
        let node = Node::new(InboundConfig {
            relay_gossip,
            ..InboundConfig::default()
        });
        assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
        assert_eq!(node.forwarded().len(), sent);
    }
}

/// Its own message gets a deliverer banned in the legacy profile: others may have written what it cannot read.
#[tokio::test]
async fn own_message_bans_deliverer_by_profile() {
    for (node, expected) in [(node(), 0), (legacy(), 1)] {
        let own = Draft::encrypted(DELIVERER).frame();
        assert_eq!(node.receive(own).await, dropped(DropReason::NotForUs));
        let bans = node.bans();
        assert_eq!(bans.len(), expected);
        for ban in bans {
            assert_eq!(
                (ban.offence, ban.until),
                (Some(Offence::OwnMessage), NOW.saturating_add(600))
            );
        }
        assert!(node.forwarded().is_empty());
    }
}

#[tokio::test]
async fn message_expires_before_table_forgets_it() {
    // A message that is still alive is still a duplicate, whatever else arrives in the meantime.
    let node = node();
    let frame = Draft::clear(Signing::Origin).frame();
    assert_eq!(node.receive(frame.clone()).await, Disposition::Delivered);
    for n in 0..5_000_u32 {
        let mut filler = [0; 32];
        filler[..4].copy_from_slice(&n.to_le_bytes());
        let meta = DedupMeta {
            signed: true,
            expires: None,
        };
        node.dedup.record(&dht_core::DedupHash(filler), meta, NOW);
    }
    node.clock.advance(3_600);
    assert_eq!(
        node.receive(frame.clone()).await,
        dropped(DropReason::Duplicate)
    );
    node.clock.advance(1);
    assert_eq!(node.receive(frame).await, dropped(DropReason::Expired));
}

#[tokio::test]
async fn strict_is_the_default() {
    assert_eq!(AttributionProfile::default(), Strict);
    let node = node();
    let inverted = tampered(Draft::encrypted(OTHER).frame(), |header, _| {
        let mut signature = header.signature.to_vec();
        *signature.last_mut().unwrap() ^= 0xff;
        header.signature = signature.into();
    });
    assert_eq!(
        node.receive(inverted).await,
        dropped(DropReason::BadSignature)
    );
    assert!(node.bans().is_empty());
}

#[tokio::test]
async fn encrypted_message_must_name_its_recipient() {
    let node = legacy();
    let unaddressed = tampered(Draft::encrypted(ME).frame(), |header, _| {
        header.destination = Destination::Unknown;
    });
    assert_eq!(
        node.receive(unaddressed).await,
        dropped(DropReason::BadSemantics)
    );
    assert_eq!(node.bans()[0].offence, Some(Offence::BadSemantics));
}
