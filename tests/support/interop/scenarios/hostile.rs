//! Input that no honest node sends, at a stock node and at ours: both refuse it, and ours bans exactly where its policy says.

mod answers;
mod pages;
mod peers;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use dht_core::{Claim, MessageType, NodeIdentity, PublicKey};
use dht_peers::policy::Offence;
use dht_proto::dht::DiscoveryMessage;
use dht_transport::encode_identity;
use prost::Message as _;
use serde::Deserialize;

use super::{
    super::{
        control::{Command, Message, Role, Setup, fingerprint},
        exchange::stranger,
        peer::{Peer, messages},
        tap::Tap,
        wire::Wire,
        world::{Scenario, World},
    },
    messages::greet,
};
use crate::frames;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile-envelopes",
        about: "envelopes that are invalid in each way, to their recipients: none is taken, but for one by version 1, and ours bans nobody",
        only_v1: false,
        quick: true,
        play: envelopes,
    },
    Scenario {
        name: "hostile-messages",
        about: "joins, discoveries and responses that are forged, unsigned or cut: neither takes one, and ours bans as its policy says",
        only_v1: false,
        quick: true,
        play: protocol_messages,
    },
    Scenario {
        name: "hostile-pages",
        about: "stored messages that are wrong in each way, as answers: neither takes one, and ours bans as its policy says",
        only_v1: false,
        quick: true,
        play: pages::play,
    },
    Scenario {
        name: "hostile-answers",
        about: "answers to discoveries with another nonce, key or claim, or delivered by another: neither takes one, and ours bans as its policy says",
        only_v1: false,
        quick: false,
        play: answers::play,
    },
    Scenario {
        name: "hostile-peers",
        about: "peer-sync answers that are wrong, that fail and that are cut: neither learns of a forged peer, and ours bans as its policy says",
        only_v1: false,
        quick: false,
        play: peers::play,
    },
    Scenario {
        name: "peer-sync-refused",
        about: "a node that asks for peers gets no session, for each reason, or each status: it goes on; version 1 bans for a status, nobody else bans",
        only_v1: false,
        quick: false,
        play: peers::refuse,
    },
    Scenario {
        name: "peer-sync-stalled",
        about: "a node that asks for peers is told of one, and then of nothing: it gives up, keeps what it was told, and goes on; version 1 bans",
        only_v1: false,
        quick: false,
        play: peers::stall,
    },
    Scenario {
        name: "hostile-streams",
        about: "forged identities, unknown flags and frames that are too long: both hang up, and ours bans as its policy says",
        only_v1: false,
        quick: true,
        play: connections,
    },
];

/// Envelopes that must not be delivered, each with the key of its recipient.
const INVALID: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/dht-core/tests/vectors/envelopes_invalid.json"
));

/// Of so many invalid envelopes a short run sends one.
const ONE_OF: usize = 8;

/// Those that stock nodes of version 1 take all the same.
const TAKEN_BY_V1: [&str; 1] = ["cleartext: signer is the identity point and the equation holds"];

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    recipient_secret: String,
    envelope: String,
}

fn envelopes(world: &World) -> anyhow::Result<()> {
    let vectors: Vectors = serde_json::from_str(INVALID)?;
    let one_of = if world.quick { ONE_OF } else { 1 };
    for case in vectors.cases.iter().step_by(one_of) {
        let envelope: Bytes = HEXLOWER.decode(case.envelope.as_bytes())?.into();
        for role in [Role::Stock, Role::Ours] {
            let setup = Setup {
                key: case.recipient_secret.clone(),
                ..world.passive_setup()
            };
            let node = world.start(role, setup)?;
            let refused = refuses(&node, role, |_| Ok(envelope.clone()), None);
            if role == Role::Stock && world.is_v1() && TAKEN_BY_V1.contains(&case.name.as_str()) {
                ensure!(refused.is_err(), "version 1 refuses {}", case.name);
                continue;
            }
            refused.with_context(|| format!("{role:?}: {}", case.name))?;
        }
    }
    Ok(())
}

/// A hostile peer, and what it needs to know of its victim.
struct Attempt<'a> {
    hostile: &'a NodeIdentity,
    victim: &'a PublicKey,
}

/// Content of the message that shows that a node is done with the frame before it.
const GOOD: &str = "good";

/// Connects to a node and sends it a frame, of which it must take no message.
fn refuses(
    node: &Peer,
    role: Role,
    make: impl FnOnce(&Attempt<'_>) -> anyhow::Result<Bytes>,
    offence: Option<Offence>,
) -> anyhow::Result<()> {
    let tap = Tap::start(stranger().secret_key().clone())?;
    tap.dial(node)?;
    let frame = make(&Attempt {
        hostile: tap.identity(),
        victim: node.key(),
    })?;
    refuses_of(&tap, node, role, frame, offence)
}

/// Sends a frame to a node, which must take no message of it. What follows shows that the node is done with it: a good message is
/// taken, or the peer is banned.
fn refuses_of(
    tap: &Tap,
    node: &Peer,
    role: Role,
    frame: Bytes,
    offence: Option<Offence>,
) -> anyhow::Result<()> {
    let key = tap.identity().public_key().to_string();
    let good = fingerprint(GOOD.as_bytes());
    // Good messages are not counted: that of a banned peer may come later. Version 6 gives its application a response that nobody
    // asked for, as a message of the peer.
    let is_other = |message: &&Message| {
        let is_own = role == Role::Stock && message.from.as_ref() == Some(&key);
        message.hash != good && !is_own
    };
    let taken = || node.events(|events| messages(events).filter(is_other).count());
    let before = taken();
    tap.send(node, frame)?;
    let post = frames::post(tap.identity().secret_key(), node.key(), GOOD)?;
    // Not if it has hung up.
    let _sent = tap.send(node, post);
    let is_good = |message: &Message| message.from.as_ref() == Some(&key) && message.hash == good;
    // Of a stock node it is not known when it bans.
    let must_ban =
        role == Role::Ours && offence.is_some_and(|offence| offence.rule().strict.is_some());
    node.wait("to take a good message, or ban the peer", |events| {
        (!must_ban && messages(events).any(&is_good))
            || events.iter().any(|event| event.is_ban_of(&tap.id()))
    })?;
    let taken = taken() - before;
    ensure!(taken == 0, "{taken} messages were taken");
    if role == Role::Ours {
        check_ban(node, &key, offence)?;
    }
    Ok(())
}

/// Checks that a node of ours has banned a peer for an offence if the policy says so, and otherwise for nothing.
fn check_ban(node: &Peer, key: &str, offence: Option<Offence>) -> anyhow::Result<()> {
    let bans = node.bans()?;
    let reason = bans.iter().find(|ban| ban["key"] == key);
    let reason = reason.map(|ban| ban["reason"].as_str().unwrap_or_default());
    let rule = offence.map(Offence::rule);
    let expected = rule.and_then(|rule| rule.strict.map(|_| rule.text));
    ensure!(
        reason == expected,
        "banned for {reason:?} instead of {expected:?}"
    );
    Ok(())
}

/// Time in which a node closes a stream or hangs up.
const PATIENCE: Duration = Duration::from_secs(2);

type Make = fn(&Attempt<'_>) -> anyhow::Result<Bytes>;

/// Messages, and what a node of ours may ban their sender for.
const MESSAGES: [(&str, Option<Offence>, Make); 9] = [
    ("nothing", None, |_| Ok(Bytes::new())),
    ("no envelope", None, |_| Ok(Bytes::from_static(&[0xff; 50]))),
    (
        "a join that nobody signed",
        Some(Offence::AnonymousProtocolMessage),
        |attempt| {
            let (secret, part) = (attempt.hostile.secret_key(), Bytes::new());
            Ok(frames::clear_protocol(secret, MessageType::Join, part)?)
        },
    ),
    (
        "a join that does not decode",
        Some(Offence::UndecodableProtocolMessage),
        |attempt| Ok(frames::join(attempt.hostile, 1, &[0xff; 9])?),
    ),
    (
        "a join for another",
        Some(Offence::JoinForOther),
        |attempt| {
            let other = stranger();
            attempt.join(other.public_key(), &other.claim())
        },
    ),
    (
        "a join with the claim of another",
        Some(Offence::JoinForgedClaim),
        |attempt| attempt.join(attempt.hostile.public_key(), &stranger().claim()),
    ),
    (
        "a discovery that does not decode",
        Some(Offence::UndecodableProtocolMessage),
        |attempt| attempt.protocol(MessageType::Discovery, Bytes::from_static(&[0xff; 9])),
    ),
    (
        "a discovery with the claim of another",
        Some(Offence::DiscoveryForgedClaim),
        |attempt| {
            let discovery = discovery(attempt.hostile, &stranger());
            attempt.protocol(MessageType::Discovery, discovery)
        },
    ),
    ("a response that nobody asked for", None, |attempt| {
        attempt.protocol(MessageType::SafStoredMessages, Bytes::new())
    }),
];

impl Attempt<'_> {
    /// A join of this key and claim, signed by the hostile peer.
    fn join(&self, key: &PublicKey, claim: &Claim) -> anyhow::Result<Bytes> {
        let secret = self.hostile.secret_key();
        Ok(frames::join_of(secret, (key, claim), 1, &[])?)
    }

    /// A message of a protocol, signed, and encrypted for the victim.
    fn protocol(&self, message_type: MessageType, part: Bytes) -> anyhow::Result<Bytes> {
        let secret = self.hostile.secret_key();
        Ok(frames::protocol(secret, self.victim, message_type, part)?)
    }
}

fn discovery(peer: &NodeIdentity, claimant: &NodeIdentity) -> Bytes {
    let claim = claimant.claim();
    let addresses = claim.addresses.iter();
    let message = DiscoveryMessage {
        public_key: Bytes::copy_from_slice(peer.public_key().as_bytes()),
        addresses: addresses
            .map(|address| Bytes::copy_from_slice(address.as_bytes()))
            .collect(),
        peer_features: claim.features.bits(),
        nonce: 1,
        identity_signature: Some((&claim.signature).into()),
    };
    message.encode_to_vec().into()
}

fn protocol_messages(world: &World) -> anyhow::Result<()> {
    let (stock, ours) = world.pair(Role::Stock)?;
    for (what, offence, make) in MESSAGES {
        for (node, role) in [(&stock, Role::Stock), (&ours, Role::Ours)] {
            let refused = refuses(node, role, make, offence);
            refused.with_context(|| format!("{role:?}: {what}"))?;
        }
    }
    check_bans(&ours, MESSAGES.iter().map(|(_, offence, _)| *offence))?;
    serve_each_other(&stock, &ours)
}

/// Checks that a node of ours has banned for these offences as often as its policy says, and for nothing else.
fn check_bans(ours: &Peer, offences: impl Iterator<Item = Option<Offence>>) -> anyhow::Result<()> {
    let expected = offences.filter_map(|offence| offence?.rule().strict);
    let (bans, expected) = (ours.bans()?, expected.count());
    ensure!(
        bans.len() == expected,
        "{expected} bans instead of {bans:?}"
    );
    Ok(())
}

/// Bytes that a peer writes in the place of its identity, or on a stream after it.
enum Written {
    Identity(fn(&NodeIdentity) -> anyhow::Result<Vec<u8>>),
    Stream(&'static [u8]),
}

const CONNECTIONS: [(&str, Offence, Written); 5] = [
    (
        "an identity that does not decode",
        Offence::MalformedIdentity,
        Written::Identity(|_| Ok(b"\x00\x05\x00\xff\xff\xff\xff\xff".to_vec())),
    ),
    (
        "the identity of another",
        Offence::ForgedIdentity,
        Written::Identity(|_| Ok(encode_identity(0, &stranger().claim(), "wire/1", &[])?)),
    ),
    (
        "an identity of version 9",
        Offence::IdentityVersion,
        Written::Identity(|own| Ok(encode_identity(9, &own.claim(), "wire/1", &[])?)),
    ),
    (
        "a proposal with an unknown flag",
        Offence::Negotiation,
        Written::Stream(b"\x09\x10t/msg/0.1"),
    ),
    (
        "the length of a frame of 9 MiB",
        Offence::FrameTooLong,
        Written::Stream(b"\x09\x03t/msg/0.1\x00\x90\x00\x00"),
    ),
];

fn connections(world: &World) -> anyhow::Result<()> {
    let (stock, ours) = world.pair(Role::Stock)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    for (what, offence, written) in CONNECTIONS {
        for (node, role) in [(&stock, Role::Stock), (&ours, Role::Ours)] {
            let own = stranger();
            let (address, key) = (node.address()?, own.public_key().to_string());
            let refused = runtime.block_on(async {
                match &written {
                    Written::Identity(make) => {
                        let wire = Wire::introduce(&address, &own, &make(&own)?).await;
                        match wire {
                            Ok(mut wire) => wire.hung_up().await,
                            Err(_) => Ok(()),
                        }
                    }
                    Written::Stream(bytes) => {
                        let mut wire = Wire::connect(&address, &own, &[]).await?;
                        // The stream is closed, or the connection.
                        match wire.exchange(bytes, 0, PATIENCE).await {
                            Ok(answer) if !answer.is_empty() => bail!("it answers {answer:?}"),
                            _ => Ok(()),
                        }
                    }
                }
            });
            refused.with_context(|| format!("{role:?}: {what}"))?;
            if role == Role::Ours {
                node.wait_answer(Command::Bans, |bans| {
                    bans.as_array()
                        .is_some_and(|bans| bans.iter().any(|ban| ban["key"] == key.as_str()))
                })
                .with_context(|| what)?;
                check_ban(node, &key, Some(offence)).with_context(|| what)?;
            }
        }
    }
    serve_each_other(&stock, &ours)
}

/// Neither is worse for it, and neither bans the other.
fn serve_each_other(stock: &Peer, ours: &Peer) -> anyhow::Result<()> {
    greet(stock, ours, "after")?;
    for (node, other) in [(stock, ours), (ours, stock)] {
        let bans = node.bans()?;
        let key = other.key().to_string();
        ensure!(
            bans.iter().all(|ban| ban["key"] != key.as_str()),
            "{} has banned {key}: {bans:?}",
            node.key().short()
        );
    }
    Ok(())
}
