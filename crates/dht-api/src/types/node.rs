//! The node itself.

use std::collections::BTreeMap;

use dht_core::{NodeId, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Version, text};

/// Identity, addresses and totals of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the API.
    pub version: Version,
    /// Release of the program.
    pub release: String,
    /// Process id of the node.
    pub pid: u32,
    /// Time by this node's clock.
    pub now_at: u64,
    /// Time at which the API began to serve.
    pub started_at: u64,
    /// Public key of the node.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub public_key: PublicKey,
    /// Node id of the key.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Key and addresses in one string, to give to others.
    pub peer_address: String,
    /// Name of the network.
    pub network: String,
    /// Addresses that the node listens on.
    pub listen: Vec<String>,
    /// Whether the node can do its work; see `problems`.
    pub ready: bool,
    /// Problems of the node, also those with which it can do its work.
    pub problems: Vec<Problem>,
    /// Number of peers connected now.
    pub connections: u64,
    /// Peers in the directory.
    pub known_peers: u64,
    /// Totals since the start.
    pub totals: Totals,
    /// Messages received and not acked by every consumer; absent without a home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<InboxUsage>,
    /// Messages to be sent; absent without a home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox: Option<OutboxUsage>,
    /// Messages stored for other nodes; absent if the node stores none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreUsage>,
    /// Damaged files of the home that no other field counts.
    #[serde(default)]
    pub damaged_files: DamagedFiles,
}

/// Damaged files beside those in use. What they held is learned anew, or lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DamagedFiles {
    /// Files of known peers.
    pub peers: u64,
    /// Files of messages seen.
    pub seen: u64,
    /// Ledgers of messages received.
    pub ledgers: u64,
}

/// Totals since the start of the node, and bytes in use now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Number of completed handshakes.
    pub handshakes: u64,
    /// Bytes read from sockets.
    pub bytes_received: u64,
    /// Bytes written to sockets.
    pub bytes_sent: u64,
    /// Messages received, whatever became of them.
    pub messages_received: u64,
    /// Messages delivered to the inbox or a subscriber.
    pub delivered: u64,
    /// Messages forwarded for other nodes.
    pub forwarded: u64,
    /// Messages stored for offline peers.
    pub stored: u64,
    /// Messages dropped as duplicates.
    pub duplicates_dropped: u64,
    /// Messages dropped for any other reason.
    pub dropped: u64,
    /// Inbound messages dropped, duplicates included, by name of the reason.
    pub drops: BTreeMap<String, u64>,
    /// Outbound messages dropped because the queue of a peer was full or they were too old.
    pub unsent: u64,
    /// Bytes of received messages in memory now.
    pub memory_used_bytes: u64,
    /// Most bytes of received messages in memory.
    pub memory_limit_bytes: u64,
    /// Bytes queued for sending now.
    pub queued_bytes: u64,
}

/// Messages that the node stores now: `GET /v1/store`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoreReport {
    /// Version of the API.
    pub version: Version,
    /// Messages stored for other nodes; absent if the node stores none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreUsage>,
    /// Received messages; absent without a home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<InboxUsage>,
    /// Messages to be sent; absent without a home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox: Option<OutboxUsage>,
    /// Messages of others' stores that are remembered as received; absent if store-and-forward is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<u64>,
}

/// Messages stored for other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StoreUsage {
    /// Number of messages stored.
    pub messages: u64,
    /// Bytes that these messages take.
    pub bytes: u64,
    /// Of the messages, those that are evicted first.
    pub low_priority: u64,
    /// Number of mailboxes that hold a message.
    pub mailboxes: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Records found damaged since the start; they are not served.
    pub damaged: u64,
}

/// Received messages not acked by every consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct InboxUsage {
    /// Number of messages stored.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Whether there is no room, whoever brings a message: senders and holders keep what is for this node.
    pub full: bool,
    /// Messages refused since the start for lack of room; senders and holders keep them.
    pub refused: u64,
    /// Of these, messages for which only the share of their deliverer or origin had no room.
    #[serde(default)]
    pub over_share: u64,
    /// Messages that left unread by retention since the start.
    pub expired: u64,
    /// Messages found damaged since the start.
    pub damaged: u64,
    /// Damaged files beside the one in use, set aside with what could not be read of them.
    #[serde(default)]
    pub damaged_files: u64,
    /// Id of the newest message; 0 if there was none.
    pub newest: u64,
}

/// Messages to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OutboxUsage {
    /// Messages that have not ended.
    pub messages: u64,
    /// Bytes of their payloads and sealed frames.
    pub bytes: u64,
    /// Of the messages, those that wait for an attempt.
    pub waiting: u64,
    /// Messages that have ended and can be asked for.
    pub ended: u64,
    /// Whether there is no room.
    pub full: bool,
    /// Messages refused as full since the start.
    pub refused: u64,
    /// Damaged files beside the one in use, set aside with what could not be read of them.
    #[serde(default)]
    pub damaged_files: u64,
}

/// Counts of fetching messages that other nodes store for this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FetchReport {
    /// Version of the API.
    pub version: Version,
    /// Peers that were asked.
    pub asked: u64,
    /// Peers that sent everything they store for this node.
    pub answered: u64,
    /// Peers that did not.
    pub silent: u64,
    /// Messages that were new to this node.
    pub new: u64,
    /// Messages that this node had received before.
    pub known: u64,
    /// Messages that failed a check.
    pub refused: u64,
}

/// Settings the node runs with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeConfig {
    /// Version of the API.
    pub version: Version,
    /// The settings, as in `config.toml`.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
}

/// Something happened at the node, an event of `GET /v1/events`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeEvent {
    /// Version of the API.
    pub version: Version,
    /// Time at which the API passed the event on.
    pub at: u64,
    /// Kind of the event.
    #[serde(flatten)]
    pub kind: NodeEventKind,
}

/// Kind of an event of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeEventKind {
    /// A received message was dropped.
    Dropped {
        /// Node id of the connected peer that delivered it.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        from: NodeId,
        /// Name of the reason.
        reason: String,
    },
    /// A message for a peer was dropped before it was written to the peer's socket.
    Unsent {
        /// Node id of the peer.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        to: NodeId,
        /// Reason of the failure.
        reason: String,
    },
    /// A message for this node was refused, because the inbox did not take it: its sender or holder keeps it.
    InboxRefused {
        /// Reason of the refusal.
        reason: String,
    },
    /// A peer was banned.
    Banned {
        /// Ban that was entered.
        ban: Box<super::BanEntry>,
    },
    /// A fetch of stored messages ended.
    Fetched {
        /// Counts of the fetch.
        summary: FetchReport,
    },
    /// This client was too slow, and events were lost.
    Missed {
        /// Number of events lost.
        events: u64,
    },
    /// Anything else; later releases name more.
    #[serde(other)]
    Other,
}

/// Answer of `/healthy` and `/ready`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of the API.
    pub version: Version,
    /// Whether all is well.
    pub ok: bool,
    /// Problem that was found.
    pub problems: Vec<Problem>,
}

/// Something that is not well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Name of the problem, for programs.
    pub code: String,
    /// The problem, for people.
    pub message: String,
}

/// Answer of a route that has nothing else to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Version of the API.
    pub version: Version,
    /// False if there was nothing to do, such as a ban that is not in force.
    pub changed: bool,
}
