//! Exchanges below the messages, byte by byte: negotiation of protocols, and calls of the peer-sync service.
//! docs/protocol/02-transport-and-connectivity.md sections 5 and 8.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, NodeIdentity, OsEntropy, SecretKey, SystemClock,
};
use dht_proto::{
    dht_rpc::{GetCloserPeersRequest, GetPeersRequest},
    rpc::{RpcRequest, RpcResponse},
};
use dht_transport::MESSAGING_PROTOCOL;
use serde::{Deserialize, Serialize};

use super::{
    control::{Command, Form, Send},
    peer::Peer,
    wire::Wire,
};

/// Bytes on a stream, and what a stock node answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Description, in words.
    pub what: String,
    /// Bytes written on a new stream, in hexadecimal digits.
    written: String,
    /// Bytes that are surely answered, before the stream is closed.
    least: usize,
    /// Bytes that the node writes until it closes the stream, in hexadecimal digits; texts for people are left out.
    pub answer: String,
}

/// A proposal of a node for a stream that it opens, and what follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Description, in words.
    pub what: String,
    /// Whether the other side has said that it speaks the protocol.
    pub is_known: bool,
    /// The proposal, in hexadecimal digits.
    pub proposal: String,
    /// Answer, in hexadecimal digits.
    answer: String,
    /// Whether the node then sends its message.
    pub sends: bool,
}

/// An answer that a test gives to a proposal.
#[derive(Debug)]
pub struct Answer {
    what: &'static str,
    is_known: bool,
    bytes: &'static [u8],
}

/// The answers that are given to a node which opens a messaging stream.
pub const ANSWERS: [Answer; 4] = [
    Answer {
        what: "messaging, to a peer that speaks it",
        is_known: true,
        bytes: b"",
    },
    Answer {
        what: "messaging, accepted",
        is_known: false,
        bytes: b"\x09\x00t/msg/0.1",
    },
    Answer {
        what: "messaging, not supported",
        is_known: false,
        bytes: b"\x00\x04",
    },
    Answer {
        what: "messaging, another protocol accepted",
        is_known: false,
        bytes: b"\x09\x00t/msg/0.2",
    },
];

/// Start of a stream with a session of the peer-sync service.
const SESSION: &[u8] = b"\x07\x03t/dht/1\x00\x00\x00\x03\x0a\x01\x00";

/// Its answer: the length of a frame, and the accepted version.
const ACCEPTED: &[u8] = b"\x00\x00\x00\x02\x08\x00";

/// Bytes of an answer with a response: more than the session.
const RESPONSE: usize = ACCEPTED.len() + 1;

/// Time in which a stock node closes a stream, if it does at all.
const PATIENCE: Duration = Duration::from_millis(300);

const GET_CLOSER_PEERS: u32 = 1;
const GET_PEERS: u32 = 10;

/// Seconds until a call is given up.
const DEADLINE: u64 = 60;

/// Behaviour of a node on streams, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Streams that the other side opens.
    pub exchanges: Vec<Exchange>,
    /// Streams that the node opens.
    pub openings: Vec<Opening>,
}

impl Streams {
    /// Plays all exchanges and openings with a node.
    ///
    /// # Errors
    /// That the node does not answer, or hangs up.
    pub(super) fn of(node: &Peer, is_v1: bool) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut streams = Self {
            exchanges: Vec::new(),
            openings: Vec::new(),
        };
        let connect = |protocols: &[Bytes]| {
            let identity = stranger();
            let address = node.address()?;
            let wire = Wire::connect(&address, &identity, protocols);
            let wire = runtime.block_on(wire)?;
            let id = identity.node_id().to_string();
            node.wait_connected_to(&id)?;
            anyhow::Ok((wire, identity.public_key().to_string()))
        };
        let (mut wire, _key) = connect(&[])?;
        for exchange in exchanges(is_v1) {
            let played = runtime.block_on(exchange.play(&mut wire, PATIENCE))?;
            streams.exchanges.push(played);
        }
        for answer in &ANSWERS {
            let (mut wire, key) = connect(&answer.protocols())?;
            let id = node.tell(Command::Send(Send {
                form: Form::Clear,
                to: Some(key),
                label: answer.what.to_owned(),
                bytes: 100,
                count: 1,
                discover: false,
            }))?;
            let opening = runtime.block_on(answer.give(&mut wire));
            streams.openings.push(opening.context(answer.what)?);
            drop(wire);
            // It was not sent if the proposal was refused.
            let _sent = node.answer(id);
        }
        Ok(streams)
    }
}

/// The identity of a peer that nobody knows.
#[must_use]
pub fn stranger() -> NodeIdentity {
    let rng = &mut OsEntropy.rng();
    let claimed = vec![Address::tcp(Ipv4Addr::LOCALHOST.into(), 18_189)];
    let (secret, now) = (SecretKey::random(rng), SystemClock.now());
    NodeIdentity::new(secret, Features::NODE, claimed, now, rng)
}

impl Answer {
    /// Protocols that the other side says it speaks.
    #[must_use]
    pub fn protocols(&self) -> Vec<Bytes> {
        let known = self.is_known.then_some(MESSAGING_PROTOCOL);
        known.into_iter().collect()
    }

    /// Answers the proposal of a node that is sending a message to `wire`.
    ///
    /// # Errors
    /// That it proposes nothing.
    pub async fn give(&self, wire: &mut Wire) -> anyhow::Result<Opening> {
        let length = 2 + MESSAGING_PROTOCOL.len();
        let (stream, written) = wire.opened(length).await?;
        let proposal = written.get(..length).context("a shorter proposal")?;
        // The frame of a message has a length before it.
        let sends = written.len() > length || {
            let then = wire.answer(stream, self.bytes, 1).await?;
            then.len() > 4
        };
        Ok(Opening {
            what: self.what.to_owned(),
            is_known: self.is_known,
            proposal: HEXLOWER.encode(proposal),
            answer: HEXLOWER.encode(self.bytes),
            sends,
        })
    }
}

impl Exchange {
    /// Plays it with a node that closes the stream within this time if it does at all, and returns what that answers.
    ///
    /// # Errors
    /// That the node does not answer, or hangs up.
    pub async fn play(&self, wire: &mut Wire, patience: Duration) -> anyhow::Result<Self> {
        let written = HEXLOWER.decode(self.written.as_bytes())?;
        let answer = wire.exchange(&written, self.least, patience).await;
        let answer = answer.with_context(|| self.what.clone())?;
        Ok(Self {
            answer: HEXLOWER.encode(&without_texts(answer)?),
            ..self.clone()
        })
    }
}

/// All exchanges, without the answers. Stock nodes of version 6 have no `get_closer_peers`, whose errors would be others.
fn exchanges(is_v1: bool) -> Vec<Exchange> {
    let mut all = Vec::new();
    let mut add = |what: &str, written: &[u8], least: usize| {
        all.push(Exchange {
            what: what.to_owned(),
            written: HEXLOWER.encode(written),
            least,
            answer: String::new(),
        });
    };
    add("messaging is proposed", b"\x09\x00t/msg/0.1", 11);
    add("messaging is begun at once", b"\x09\x03t/msg/0.1", 0);
    add("peer sync is proposed", b"\x07\x00t/dht/1", 9);
    add("an unknown protocol is proposed", b"\x06\x00x/none", 2);
    add("an unknown protocol is begun at once", b"\x06\x03x/none", 0);
    add(
        "an unknown protocol is proposed, then messaging",
        b"\x06\x00x/none\x09\x00t/msg/0.1",
        13,
    );
    add(
        "two unknown protocols are proposed",
        &b"\x06\x00x/none".repeat(2),
        4,
    );
    add("nothing is proposed", b"\x00\x02", 0);
    add("a session of version 0", SESSION, 6);
    add(
        "a session of version 9",
        b"\x07\x03t/dht/1\x00\x00\x00\x03\x0a\x01\x09",
        8,
    );
    let request = |request: RpcRequest| {
        let bytes = dht_proto::encode(&request);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        [SESSION, &length, &bytes].concat()
    };
    let call = |method, payload: Bytes| {
        request(RpcRequest {
            request_id: 1,
            method,
            flags: 0,
            deadline: DEADLINE,
            payload,
        })
    };
    let peers = GetPeersRequest {
        n: 5,
        include_clients: false,
        max_claims: 5,
        max_addresses_per_claim: 5,
    };
    let closer = GetCloserPeersRequest {
        n: 5,
        excluded: Vec::new(),
        closer_to: Bytes::new(),
        include_clients: false,
        max_claims: 5,
        max_addresses_per_claim: 5,
    };
    add(
        "a ping",
        &request(RpcRequest {
            flags: 2,
            deadline: DEADLINE,
            ..RpcRequest::default()
        }),
        RESPONSE,
    );
    add(
        "a method that there is not",
        &call(99, Bytes::new()),
        RESPONSE,
    );
    add(
        "a call without a deadline",
        &request(RpcRequest {
            request_id: 1,
            method: GET_PEERS,
            payload: dht_proto::encode(&peers),
            ..RpcRequest::default()
        }),
        RESPONSE,
    );
    add(
        "a call that does not decode",
        &call(GET_PEERS, Bytes::from_static(b"\xff\xff\xff")),
        RESPONSE,
    );
    add(
        "peers, of whom there are none",
        &call(GET_PEERS, dht_proto::encode(&peers)),
        RESPONSE,
    );
    let no_claims = GetPeersRequest {
        max_claims: 0,
        ..peers
    };
    add(
        "peers without claims",
        &call(GET_PEERS, dht_proto::encode(&no_claims)),
        RESPONSE,
    );
    let no_addresses = GetPeersRequest {
        max_addresses_per_claim: 0,
        ..peers
    };
    add(
        "peers without addresses",
        &call(GET_PEERS, dht_proto::encode(&no_addresses)),
        RESPONSE,
    );
    if is_v1 {
        let refused = [
            (
                "no closer peers",
                GetCloserPeersRequest {
                    n: 0,
                    ..closer.clone()
                },
            ),
            (
                "101 closer peers",
                GetCloserPeersRequest {
                    n: 101,
                    ..closer.clone()
                },
            ),
            (
                "peers close to what is no node id",
                GetCloserPeersRequest {
                    closer_to: Bytes::from_static(&[1; 12]),
                    ..closer.clone()
                },
            ),
            (
                "closer peers but for what is no node id",
                GetCloserPeersRequest {
                    excluded: vec![Bytes::from_static(&[1; 12])],
                    ..closer.clone()
                },
            ),
            ("closer peers, of whom there are none", closer),
        ];
        for (what, refused) in refused {
            add(
                what,
                &call(GET_CLOSER_PEERS, dht_proto::encode(&refused)),
                RESPONSE,
            );
        }
    }
    all
}

/// The answer without the texts in the responses of a session.
fn without_texts(answer: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let Some(mut rest) = answer.strip_prefix(ACCEPTED) else {
        return Ok(answer);
    };
    let mut kept = ACCEPTED.to_vec();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (frame, after) = after.split_at_checked(length).context("a cut response")?;
        let mut response: RpcResponse = prost::Message::decode(frame)?;
        if response.status != 0 {
            response.payload = Bytes::new();
        }
        let bytes = dht_proto::encode(&response);
        kept.extend(u32::try_from(bytes.len())?.to_be_bytes());
        kept.extend_from_slice(&bytes);
        rest = after;
    }
    kept.extend_from_slice(rest);
    Ok(kept)
}
