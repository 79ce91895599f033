//! Answers to a question for peers that no honest node gives.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dht_core::{Claim, NodeIdentity, PublicKey};
use dht_peers::policy::Offence;
use dht_proto::{
    dht_rpc::{GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo},
    rpc::{RpcRequest, RpcResponse},
};
use prost::Message as _;

use super::{
    super::super::{
        control::{Command, Role, Setup},
        exchange::stranger,
        peer::{Peer, messages},
        tap::Tap,
        world::World,
    },
    check_ban,
};
use crate::frames;

/// The flag of the last response.
const FIN: u32 = 1;

/// Peers that connect to a stock node until one is asked for peers.
const STOCK_ATTEMPTS: usize = 5;

/// Status of a call that failed, by the fault of nobody.
const GENERAL: u32 = 6;

/// Parts of answers.
struct Question<'a> {
    request: &'a RpcRequest,
    /// Peers that are asked for.
    wanted: usize,
    /// A peer of whom it may tell.
    good: &'a NodeIdentity,
    /// A peer of whom it must not.
    forged: &'a NodeIdentity,
}

/// Description of an answer, the offence that a node of ours bans for, whether the node learns of the good peer, and its bytes.
type Answer = (
    &'static str,
    Option<Offence>,
    bool,
    fn(&Question<'_>) -> anyhow::Result<Vec<u8>>,
);

const ANSWERS: [Answer; 9] = [
    ("right", None, true, |asked| {
        Ok([asked.good(), asked.end()].concat())
    }),
    (
        "one peer twice",
        Some(Offence::SyncDuplicate),
        true,
        |asked| Ok([asked.good(), asked.good(), asked.end()].concat()),
    ),
    (
        "more than were asked for",
        Some(Offence::SyncTooManyPeers),
        true,
        |asked| {
            let mut all = asked.good();
            for _ in 0..asked.wanted {
                let peer = stranger();
                all.extend(asked.tell(peer.public_key(), &peer.claim()));
            }
            all.extend(asked.end());
            Ok(all)
        },
    ),
    (
        "the claim of another",
        Some(Offence::SyncForgedClaim),
        true,
        |asked| {
            let forged = asked.tell(asked.forged.public_key(), &stranger().claim());
            Ok([asked.good(), forged, asked.end()].concat())
        },
    ),
    (
        "no peer in a response",
        Some(Offence::SyncUnconvertible),
        true,
        |asked| {
            let empty = asked.respond(0, 0, GetPeersResponse { peer: None }.encode_to_vec());
            Ok([asked.good(), empty, asked.end()].concat())
        },
    ),
    (
        "a failure after one peer",
        Some(Offence::SyncStatus),
        true,
        |asked| Ok([asked.good(), asked.respond(GENERAL, FIN, b"busy".to_vec())].concat()),
    ),
    (
        "a failure at once",
        Some(Offence::SyncStatus),
        false,
        |asked| Ok(asked.respond(GENERAL, FIN, b"busy".to_vec())),
    ),
    (
        "cut between responses",
        None,
        true,
        |asked| Ok(asked.good()),
    ),
    ("cut in a response", None, true, |asked| {
        let mut cut = [asked.good(), asked.good()].concat();
        cut.truncate(cut.len() - 9);
        Ok(cut)
    }),
];

/// A response to a request, with its length before it.
fn respond(request: &RpcRequest, status: u32, flags: u32, payload: Vec<u8>) -> Vec<u8> {
    let response = RpcResponse {
        request_id: request.request_id,
        status,
        flags,
        payload: payload.into(),
    };
    let bytes = response.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), &*bytes].concat()
}

impl Question<'_> {
    fn respond(&self, status: u32, flags: u32, payload: Vec<u8>) -> Vec<u8> {
        respond(self.request, status, flags, payload)
    }

    fn tell(&self, key: &PublicKey, claim: &Claim) -> Vec<u8> {
        let addresses = claim.addresses.iter();
        let claim = PeerIdentityClaim {
            addresses: addresses
                .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                .collect(),
            peer_features: claim.features.bits(),
            identity_signature: Some((&claim.signature).into()),
        };
        let peer = PeerInfo {
            public_key: Bytes::copy_from_slice(key.as_bytes()),
            claims: vec![claim],
        };
        self.respond(0, 0, GetPeersResponse { peer: Some(peer) }.encode_to_vec())
    }

    fn good(&self) -> Vec<u8> {
        self.tell(self.good.public_key(), &self.good.claim())
    }

    fn end(&self) -> Vec<u8> {
        self.respond(0, FIN, Vec::new())
    }
}

/// Plays them, each with a node of its own: nodes ask strangers more and more seldom.
pub(super) fn play(world: &World) -> anyhow::Result<()> {
    for role in [Role::Stock, Role::Ours] {
        for answer in &ANSWERS {
            let mut setup = world.setup();
            setup.discovery = true;
            let node = world.start(role, setup)?;
            let given = give(world, &node, role, answer);
            given.with_context(|| format!("{role:?}: {}", answer.0))?;
        }
    }
    Ok(())
}

/// Gives a node that asks for peers the answer, and checks what it has learnt, and that it goes on.
fn give(
    world: &World,
    node: &Peer,
    role: Role,
    (_, offence, learns, make): &Answer,
) -> anyhow::Result<()> {
    let (good, forged) = (stranger(), stranger());
    let mut tap = asked(world, node, role)?;
    tap.tell(|request| {
        let wanted = GetPeersRequest::decode(request.payload.clone())?.n;
        make(&Question {
            request,
            wanted: usize::try_from(wanted)?,
            good: &good,
            forged: &forged,
        })
    })?;
    if *learns {
        node.wait_answer(Command::Peers, |known| knows(known, &good))?;
    }
    if role == Role::Ours {
        let key = tap.identity().public_key().to_string();
        if offence.is_some_and(|offence| offence.rule().strict.is_some()) {
            node.wait("to ban the peer", |events| {
                events.iter().any(|event| event.is_ban_of(&tap.id()))
            })?;
        }
        check_ban(node, &key, *offence)?;
    }
    goes_on(node)?;
    let known = node.ask(Command::Peers)?;
    ensure!(!knows(&known, &forged), "it knows a peer by a forged claim");
    Ok(())
}

/// A peer that has connected to a node, and that it asks for peers. A stock node asks those who connect while it does nothing else: if
/// it does not ask one, another connects, and it is noted.
fn asked(world: &World, node: &Peer, role: Role) -> anyhow::Result<Tap> {
    let mut attempts = match role {
        Role::Stock => STOCK_ATTEMPTS,
        Role::Ours => 1,
    };
    loop {
        let mut tap = Tap::start_telling(stranger().secret_key().clone())?;
        tap.dial(node)?;
        attempts -= 1;
        if tap.is_asked() {
            return Ok(tap);
        }
        ensure!(attempts > 0, "it does not ask for peers");
        world.note("a stock node did not ask one peer for peers");
    }
}

fn knows(known: &serde_json::Value, peer: &NodeIdentity) -> bool {
    let key = peer.public_key().to_string();
    known
        .as_array()
        .is_some_and(|known| known.contains(&key.as_str().into()))
}

/// Checks that a node takes a message of an honest peer.
fn goes_on(node: &Peer) -> anyhow::Result<()> {
    let honest = Tap::start(stranger().secret_key().clone())?;
    honest.dial(node)?;
    let secret = honest.identity().secret_key();
    honest.send(node, frames::post(secret, node.key(), "after")?)?;
    let key = honest.identity().public_key().to_string();
    node.wait("to take a message of another", |events| {
        messages(events).any(|message| message.from.as_ref() == Some(&key))
    })
}

/// Tells nodes that ask of one peer, and leaves the stream open. Version 1 bans for it.
pub(super) fn stall(world: &World) -> anyhow::Result<()> {
    for role in [Role::Stock, Role::Ours] {
        let setup = Setup {
            discovery: true,
            ..world.setup()
        };
        let node = world.start(role, setup)?;
        let good = stranger();
        let mut tap = asked(world, &node, role)?;
        let stalled = tap.stall(|request| {
            let asked = Question {
                request,
                wanted: 0,
                good: &good,
                forged: &good,
            };
            Ok(asked.good())
        });
        stalled.with_context(|| format!("{role:?}"))?;
        node.wait_answer(Command::Peers, |known| knows(known, &good))?;
        let bans = role == Role::Stock && world.is_v1();
        if bans {
            node.wait("to ban the peer", |events| {
                events.iter().any(|event| event.is_ban_of(&tap.id()))
            })?;
        }
        goes_on(&node)?;
        let all = node.bans()?;
        ensure!(all.len() == usize::from(bans), "{role:?}: {all:?}");
    }
    Ok(())
}

/// Responses of a server that does not tell of peers.
enum Refusal {
    /// This answer to the start of a session.
    Session(&'static [u8]),
    /// This status of the call.
    Status(u32),
}

const REFUSALS: [(&str, Refusal); 16] = [
    (
        "no session for an unknown reason",
        Refusal::Session(b"\0\0\0\x02\x10\x01"),
    ),
    (
        "no session of this version",
        Refusal::Session(b"\0\0\0\x04\x10\x01\x18\x01"),
    ),
    (
        "no session of the server left",
        Refusal::Session(b"\0\0\0\x04\x10\x01\x18\x02"),
    ),
    (
        "no session of the client left",
        Refusal::Session(b"\0\0\0\x04\x10\x01\x18\x03"),
    ),
    (
        "no such protocol",
        Refusal::Session(b"\0\0\0\x04\x10\x01\x18\x04"),
    ),
    ("the end of the stream", Refusal::Session(b"")),
    ("a bad request", Refusal::Status(1)),
    ("an unsupported method", Refusal::Status(2)),
    ("a method that is not implemented", Refusal::Status(3)),
    ("a deadline that has passed", Refusal::Status(4)),
    ("a malformed response", Refusal::Status(5)),
    ("a failure", Refusal::Status(GENERAL)),
    ("nothing found", Refusal::Status(7)),
    ("a protocol error", Refusal::Status(8)),
    ("a forbidden call", Refusal::Status(9)),
    ("a conflict", Refusal::Status(10)),
];

/// Refuses nodes that ask for peers, each a node of its own. Of all of them version 1 bans, for a status.
pub(super) fn refuse(world: &World) -> anyhow::Result<()> {
    for role in [Role::Stock, Role::Ours] {
        for (what, refusal) in &REFUSALS {
            let setup = Setup {
                discovery: true,
                ..world.setup()
            };
            let node = world.start(role, setup)?;
            let context = || format!("{role:?}: {what}");
            let mut tap = asked(world, &node, role).with_context(context)?;
            let refused = match refusal {
                Refusal::Session(answer) => tap.answer_session(answer),
                Refusal::Status(status) => {
                    tap.tell(|request| Ok(respond(request, *status, FIN, b"why".to_vec())))
                }
            };
            let bans =
                role == Role::Stock && world.is_v1() && matches!(refusal, Refusal::Status(_));
            refused
                .and_then(|()| match bans {
                    true => node.wait("to ban the peer", |events| {
                        events.iter().any(|event| event.is_ban_of(&tap.id()))
                    }),
                    false => Ok(()),
                })
                .and_then(|()| goes_on(&node))
                .with_context(context)?;
            let all = node.bans()?;
            ensure!(all.len() == usize::from(bans), "{role:?}: {what}: {all:?}");
        }
    }
    Ok(())
}
