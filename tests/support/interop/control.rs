//! Lines on the standard input and output of a node.

use std::collections::BTreeMap;

use dht_core::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which implementation a node is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The reference.
    Stock,
    /// This project.
    Ours,
}

/// How a node is started: the first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Secret key, in hexadecimal digits.
    pub key: String,
    /// Folder of its files.
    pub home: String,
    /// Address to listen on.
    pub listen: Option<String>,
    /// Addresses that it claims; `None` for the one it listens on.
    pub claims: Option<Vec<String>>,
    /// Wire byte of its network.
    pub network: u8,
    /// Whether it is a client, which forwards and stores nothing.
    pub client: bool,
    /// Whether its application passes on gossip.
    pub relay: bool,
    /// Whether a stock node asks peers for peers.
    pub discovery: bool,
    /// Whether one of our nodes looks for peers by itself, as nodes do by default.
    pub overlay: bool,
    /// User agent of a stock node; `None` for one that no node takes for a version.
    pub user_agent: Option<String>,
    /// Liveness sessions that one of our nodes has at once; a stock node has one.
    pub liveness_sessions: usize,
    /// Peers that it knows.
    pub seeds: Vec<Known>,
}

/// A peer that a node is told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Public key, in hexadecimal digits.
    pub key: String,
    /// Addresses, at least one.
    pub addresses: Vec<String>,
}

/// A command with the number that its [`Reply`] bears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Numbered {
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) command: Command,
}

/// Command for a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Know a peer.
    Add(Known),
    /// Connect to a known peer.
    Dial {
        /// Public key of the peer.
        key: String,
    },
    /// Close the connection to a peer.
    Disconnect {
        /// Public key of the peer.
        key: String,
    },
    /// Announce itself.
    Join,
    /// Search for a node.
    Discover {
        /// Public key of the node.
        key: String,
    },
    /// Ask peers for stored messages.
    Fetch,
    /// Send messages.
    Send(Send),
    /// List the keys of all known peers.
    Peers,
    /// List the node ids of all connected peers.
    Connections,
    /// List the banned peers, with the reasons.
    Bans,
    /// Stop in order.
    Stop,
}

/// Messages to send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Send {
    /// Form and way of each.
    pub form: Form,
    /// Public key of the recipient, if the form has one.
    pub to: Option<String>,
    /// Start of the label of the [`payload`]; the number of the message follows, from 0.
    pub label: String,
    /// Length of each payload.
    pub bytes: usize,
    /// Number of messages.
    pub count: u64,
    /// Whether an unknown recipient is searched for.
    pub discover: bool,
}

/// The answer to [`Command::Send`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Copies that were written to a peer.
    pub(super) sent: u64,
    /// Messages without a recipient, and copies that were not written.
    pub(super) failed: u64,
    /// Why one of our nodes did not write copies, and how many.
    #[serde(default)]
    pub(super) errors: BTreeMap<String, u64>,
}

/// In which form, and to whom, a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Clear and unsigned, to the recipient.
    Clear,
    /// Clear and signed, to the recipient.
    Signed,
    /// Encrypted, to the recipient.
    Encrypted,
    /// Clear and unsigned, to a few connected nodes.
    Broadcast,
    /// Clear and unsigned, towards a recipient or outwards.
    Propagate,
    /// Encrypted, to a few connected nodes, which carry it to the recipient.
    Carried,
    /// Encrypted, to the nodes closest to the recipient, which store it.
    Closest,
    /// Through the outbox of one of our nodes; a stock node knows no such form.
    Outbox,
}

/// The answer to a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub(super) id: u64,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) ok: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) err: Option<String>,
}

/// A line of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// It runs.
    Ready { ready: Ready },
    /// Something happened.
    Event(Event),
    /// A command is done.
    Reply(Reply),
}

/// The first line of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Its public key.
    pub(super) key: String,
}

/// Something happened at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It received a message.
    Message(Message),
    /// The application got a message that it cannot read.
    Unreadable {
        /// Public key of the connected peer.
        via: String,
    },
    /// A peer is connected.
    Connected {
        /// Node id of the peer.
        peer: String,
    },
    /// A peer is no longer connected.
    Disconnected {
        /// Node id of the peer.
        peer: String,
    },
    /// A peer could not be dialled.
    DialFailed {
        /// Node id of the peer.
        peer: String,
    },
    /// It banned a peer.
    Banned {
        /// Node id of the peer.
        peer: String,
    },
    /// How well it is connected, in its own words.
    Connectivity {
        /// The words.
        state: String,
    },
    /// Any other event, in its own words.
    Dht {
        /// The words.
        what: String,
    },
    /// It has stopped.
    Stopped,
}

impl Event {
    /// Whether this node is banned.
    pub(super) fn is_ban_of(&self, node: &NodeId) -> bool {
        matches!(self, Self::Banned { peer } if *peer == node.to_string())
    }
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Public key of the authenticated sender.
    pub from: Option<String>,
    /// Connected peer that delivered it: a public key, or its node id.
    pub via: String,
    /// Type of the message.
    #[serde(rename = "type")]
    pub message_type: i32,
    /// Length of the payload.
    pub bytes: usize,
    /// [`fingerprint`] of the payload.
    pub hash: String,
}

/// The content of a message: the label again and again, its bytes shifted by the round.
#[must_use]
pub fn payload(label: &str, bytes: usize) -> Vec<u8> {
    let label = label.as_bytes();
    let rounds = (0..=u8::MAX).cycle();
    let shifted = rounds.flat_map(|round| label.iter().map(move |byte| byte.wrapping_add(round)));
    shifted.take(bytes).collect()
}

/// FNV-1a of a payload, in hexadecimal digits.
#[must_use]
pub fn fingerprint(payload: &[u8]) -> String {
    let hash = payload
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}
