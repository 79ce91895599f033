//! Responses with stored messages that no honest node sends.

use anyhow::Context as _;
use bytes::Bytes;
use dht_core::{Clock as _, MessageType, RawEnvelope, SystemClock};
use dht_peers::policy::Offence;
use dht_proto::store_forward::{StoredMessage, StoredMessagesRequest, StoredMessagesResponse};
use prost::Message as _;

use super::{
    super::super::{
        control::{Role, fingerprint},
        exchange::stranger,
        peer::{Peer, messages},
        tap::Tap,
        world::World,
    },
    Attempt, check_bans, refuses_of,
};
use crate::frames;

type Make = fn(&Attempt<'_>) -> anyhow::Result<StoredMessage>;

/// Messages of which a response has one, and what a node of ours may ban the sender of the response for.
const ROWS: [(&str, Option<Offence>, Make); 7] = [
    ("no header", Some(Offence::SafNoHeader), |attempt| {
        Ok(StoredMessage {
            dht_header: None,
            ..good(attempt)?
        })
    }),
    ("no body", Some(Offence::SafEmptyBody), |attempt| {
        Ok(StoredMessage {
            body: Bytes::new(),
            ..good(attempt)?
        })
    }),
    ("stored tomorrow", None, |attempt| {
        Ok(StoredMessage {
            stored_at: SystemClock.now().0 + 86_400,
            ..good(attempt)?
        })
    }),
    ("a signature that does not hold", None, |attempt| {
        let mut row = good(attempt)?;
        let header = row.dht_header.as_mut().context("no header")?;
        let mut signature = header.message_signature.to_vec();
        *signature.last_mut().context("no signature")? ^= 1;
        header.message_signature = signature.into();
        Ok(row)
    }),
    (
        "a message for another",
        Some(Offence::SafWrongDestination),
        |_| {
            let (from, to) = (stranger(), stranger());
            row(frames::post(from.secret_key(), to.public_key(), "x")?)
        },
    ),
    ("a discovery", Some(Offence::SafDhtMessage), |attempt| {
        row(attempt.protocol(MessageType::Discovery, Bytes::from_static(b"x"))?)
    }),
    (
        "a request for stored messages",
        Some(Offence::SafSafMessage),
        |attempt| row(attempt.protocol(MessageType::SafRequestMessages, Bytes::from_static(b"x"))?),
    ),
];

/// Payload of a good message.
const STORED: &[u8] = b"stored";

/// Plays them.
pub(super) fn play(world: &World) -> anyhow::Result<()> {
    // Version 6 asks nobody for stored messages.
    let roles: &[Role] = match world.is_v1() {
        true => &[Role::Stock, Role::Ours],
        false => &[Role::Ours],
    };
    for role in roles {
        let node = world.node(*role)?;
        takes_good(&node).with_context(|| format!("{role:?}: a good response"))?;
        for (what, offence, make) in ROWS {
            answer(&node, *role, offence, |attempt, _| Ok(vec![make(attempt)?]))
                .with_context(|| format!("{role:?}: {what}"))?;
        }
        let too_many = Some(Offence::SafTooManyMessages);
        answer(&node, *role, too_many, |attempt, limit| {
            Ok(vec![good(attempt)?; limit + 1])
        })
        .with_context(|| format!("{role:?}: more than were asked for"))?;
        if *role == Role::Ours {
            let offences = ROWS.iter().map(|(_, offence, _)| *offence);
            check_bans(&node, offences.chain([too_many]))?;
        }
    }
    Ok(())
}

/// A good response is taken.
fn takes_good(node: &Peer) -> anyhow::Result<()> {
    let mut tap = Tap::start(stranger().secret_key().clone())?;
    tap.dial(node)?;
    let response = respond(&mut tap, node, |attempt, _| Ok(vec![good(attempt)?]))?;
    tap.send(node, response)?;
    node.wait("to take a stored message", |events| {
        messages(events).any(|message| message.hash == fingerprint(STORED))
    })
}

/// Connects to a node, waits until it asks for stored messages, and answers with these, which it must refuse.
fn answer(
    node: &Peer,
    role: Role,
    offence: Option<Offence>,
    rows: impl FnOnce(&Attempt<'_>, usize) -> anyhow::Result<Vec<StoredMessage>>,
) -> anyhow::Result<()> {
    let mut tap = Tap::start(stranger().secret_key().clone())?;
    tap.dial(node)?;
    let response = respond(&mut tap, node, rows)?;
    refuses_of(&tap, node, role, response, offence)
}

/// The response to the request for stored messages that the node sends to whoever connects.
fn respond(
    tap: &mut Tap,
    node: &Peer,
    rows: impl FnOnce(&Attempt<'_>, usize) -> anyhow::Result<Vec<StoredMessage>>,
) -> anyhow::Result<Bytes> {
    let request = loop {
        let sealed = RawEnvelope::parse(tap.frame()?)?.into_sealed()?;
        if sealed.header().message_type == MessageType::SafRequestMessages {
            let opened = sealed.verify()?.open(tap.identity())?;
            let part = opened.parts().and_then(|parts| parts.first());
            let part = part.context("a request without content")?;
            break StoredMessagesRequest::decode(part.clone())?;
        }
    };
    let attempt = Attempt {
        hostile: tap.identity(),
        victim: node.key(),
    };
    let response = StoredMessagesResponse {
        messages: rows(&attempt, usize::try_from(request.limit)?)?,
        request_id: request.request_id,
        response_type: 0,
    };
    let (secret, part) = (attempt.hostile.secret_key(), response.encode_to_vec());
    let part = part.into();
    let frame = frames::clear_protocol(secret, MessageType::SafStoredMessages, part)?;
    Ok(frame)
}

/// A message of somebody else for the victim, as it is stored.
fn good(attempt: &Attempt<'_>) -> anyhow::Result<StoredMessage> {
    let sender = stranger();
    row(frames::post(sender.secret_key(), attempt.victim, STORED)?)
}

/// The envelope as it is stored.
fn row(envelope: Bytes) -> anyhow::Result<StoredMessage> {
    let sealed = RawEnvelope::parse(envelope)?.into_sealed()?;
    let header = sealed.header().to_proto();
    Ok(StoredMessage {
        stored_at: SystemClock.now().0,
        version: header.major,
        dht_header: Some(header),
        body: sealed.body().clone(),
    })
}
