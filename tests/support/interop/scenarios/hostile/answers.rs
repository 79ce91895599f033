//! Answers to a discovery that no honest node gives.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dht_core::{Claim, MessageType, NodeIdentity, PublicKey, RawEnvelope};
use dht_peers::policy::Offence;
use dht_proto::dht::{DiscoveryMessage, DiscoveryResponseMessage};
use prost::Message as _;

use super::{
    super::super::{
        control::{Command, Role},
        exchange::stranger,
        peer::Peer,
        tap::Tap,
        world::World,
    },
    check_bans, refuses_of,
};
use crate::frames;

/// A discovery by the victim that waits for its answer.
struct Asked<'a> {
    victim: &'a PublicKey,
    /// The node that is sought.
    sought: &'a NodeIdentity,
    /// A node that is not sought.
    other: &'a NodeIdentity,
    nonce: u64,
}

/// An answer.
struct Answer {
    what: &'static str,
    /// Offence that a node of ours bans its deliverer for.
    offence: Option<Offence>,
    /// Whether the node that is sought delivers it.
    by_sought: bool,
    /// Whether a node of ours goes on to wait.
    waits: bool,
    make: fn(&Asked<'_>) -> anyhow::Result<Bytes>,
}

const ANSWERS: [Answer; 5] = [
    Answer {
        what: "with another nonce",
        offence: None,
        by_sought: true,
        waits: true,
        make: |asked| {
            let nonce = asked.nonce.wrapping_add(1);
            asked.answer(
                asked.sought,
                asked.sought.public_key(),
                &asked.sought.claim(),
                nonce,
            )
        },
    },
    Answer {
        what: "with the key of its signer, who is not sought",
        offence: Some(Offence::ResponseWrongKey),
        by_sought: false,
        waits: false,
        make: |asked| {
            asked.answer(
                asked.other,
                asked.other.public_key(),
                &asked.other.claim(),
                asked.nonce,
            )
        },
    },
    Answer {
        what: "of the sought node, delivered by another",
        offence: Some(Offence::ResponseOfOther),
        by_sought: false,
        waits: true,
        make: |asked| asked.good(),
    },
    Answer {
        what: "with the key of the sought node, signed by another",
        offence: Some(Offence::ResponseForOther),
        by_sought: false,
        waits: true,
        make: |asked| {
            asked.answer(
                asked.other,
                asked.sought.public_key(),
                &asked.sought.claim(),
                asked.nonce,
            )
        },
    },
    Answer {
        what: "with the claim of another",
        offence: Some(Offence::ResponseForgedClaim),
        by_sought: true,
        waits: false,
        make: |asked| {
            let claim = stranger().claim();
            asked.answer(asked.sought, asked.sought.public_key(), &claim, asked.nonce)
        },
    },
];

impl Asked<'_> {
    /// An answer with this key, claim and nonce.
    fn answer(
        &self,
        signer: &NodeIdentity,
        key: &PublicKey,
        claim: &Claim,
        nonce: u64,
    ) -> anyhow::Result<Bytes> {
        let addresses = claim.addresses.iter();
        let message = DiscoveryResponseMessage {
            public_key: Bytes::copy_from_slice(key.as_bytes()),
            addresses: addresses
                .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                .collect(),
            peer_features: claim.features.bits(),
            nonce,
            identity_signature: Some((&claim.signature).into()),
        };
        let (secret, part) = (signer.secret_key(), message.encode_to_vec().into());
        let response = MessageType::DiscoveryResponse;
        Ok(frames::protocol(secret, self.victim, response, part)?)
    }

    /// The answer of an honest node.
    fn good(&self) -> anyhow::Result<Bytes> {
        let sought = self.sought;
        self.answer(sought, sought.public_key(), &sought.claim(), self.nonce)
    }
}

/// Plays them.
pub(super) fn play(world: &World) -> anyhow::Result<()> {
    for role in [Role::Stock, Role::Ours] {
        let node = world.passive_node(role)?;
        for answer in &ANSWERS {
            give(world, &node, role, answer)
                .with_context(|| format!("{role:?}: {}", answer.what))?;
        }
        if role == Role::Ours {
            check_bans(&node, ANSWERS.iter().map(|answer| answer.offence))?;
        }
    }
    Ok(())
}

/// Has the node search for somebody, and gives it the answer. One that waits after it takes the good one.
fn give(world: &World, node: &Peer, role: Role, answer: &Answer) -> anyhow::Result<()> {
    let mut between = Tap::start(stranger().secret_key().clone())?;
    between.dial(node)?;
    let sought = stranger();
    let (id, nonce) = discovery(world, node, &mut between, &sought)?;
    let own = Tap::start(sought.secret_key().clone())?;
    own.dial(node)?;
    let asked = Asked {
        victim: node.key(),
        sought: own.identity(),
        other: between.identity(),
        nonce,
    };
    let deliverer = if answer.by_sought { &own } else { &between };
    refuses_of(
        deliverer,
        node,
        role,
        (answer.make)(&asked)?,
        answer.offence,
    )?;
    // A stock node bans the signer of an answer that another delivers.
    if answer.waits && (role == Role::Ours || answer.by_sought) {
        ensure!(!node.has_answered(id), "it has found somebody");
        own.send(node, asked.good()?)?;
        node.answer(id)?;
    } else {
        ensure!(node.answer(id).is_err(), "it has found somebody");
    }
    Ok(())
}

/// Discoveries that a stock node is told to send until one comes.
const STOCK_ATTEMPTS: usize = 5;

/// Has a node search for somebody: the number of the command, and the nonce of the discovery that it sends. A stock node loses some:
/// then it searches again, and it is noted.
fn discovery(
    world: &World,
    node: &Peer,
    tap: &mut Tap,
    sought: &NodeIdentity,
) -> anyhow::Result<(u64, u64)> {
    let mut attempts = match node.role() {
        Role::Stock => STOCK_ATTEMPTS,
        Role::Ours => 1,
    };
    loop {
        let id = node.tell(Command::Discover {
            key: sought.public_key().to_string(),
        })?;
        attempts -= 1;
        match nonce(tap, sought) {
            Ok(nonce) => return Ok((id, nonce)),
            Err(error) if attempts == 0 => return Err(error.context("no discovery comes")),
            Err(_lost) => world.note("a stock node lost a discovery"),
        }
    }
}

/// The nonce of the discovery that comes.
fn nonce(tap: &mut Tap, sought: &NodeIdentity) -> anyhow::Result<u64> {
    loop {
        let sealed = RawEnvelope::parse(tap.frame()?)?.into_sealed()?;
        let header = sealed.header();
        let is_for_sought = header.destination.public_key() == Some(sought.public_key());
        if header.message_type == MessageType::Discovery && is_for_sought {
            let opened = sealed.verify()?.open(sought)?;
            let part = opened.parts().and_then(|parts| parts.first());
            let part = part.context("a discovery without content")?;
            return Ok(DiscoveryMessage::decode(part.clone())?.nonce);
        }
    }
}
