//! Peers and bans.

use dht_core::{CompressedKey, NodeId, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Version, text};

/// A peer that this node knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerEntry {
    /// Node id of the peer.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Public key of the peer.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub public_key: CompressedKey,
    /// Whether the peer is connected now.
    pub is_connected: bool,
    /// Names of what the peer offers.
    pub features: Vec<String>,
    /// Addresses to dial, best first.
    pub addresses: Vec<String>,
    /// Program that the peer says it runs. The peer chose the text.
    pub user_agent: String,
    /// Time of the last authenticated connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<u64>,
    /// Error of the last dial that failed, if an address has failed since it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Whether the operator named this peer.
    pub is_seed: bool,
    /// Whether this node authenticated the peer itself, or the operator named it. What is known of others is hearsay.
    pub is_proven: bool,
    /// Whether the peer is one of those that this node tries first after a restart.
    pub is_anchor: bool,
    /// Whether a ban is in force.
    pub is_banned: bool,
    /// Whether the peer is on the allow list.
    #[serde(default)]
    pub is_allowed: bool,
}

/// Peers by node id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// Version of the API.
    pub version: Version,
    /// Peers of the list.
    pub peers: Vec<PeerEntry>,
    /// Number of peers that the node knows, connected or not.
    pub known: u64,
}

/// Longest ban that ends, in seconds: 136 years.
pub const MAX_BAN_SECONDS: u64 = u32::MAX as u64;

/// A ban in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BanEntry {
    /// Node id of the banned peer.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Its public key, if it is known.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub public_key: Option<CompressedKey>,
    /// Time at which the ban ends; absent if it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Name of the offence; absent if the operator banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offence: Option<String>,
    /// Reason for people. The peer may have chosen a part of it.
    pub reason: String,
}

/// Bans in force, those that end first first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BanList {
    /// Version of the API.
    pub version: Version,
    /// Bans of the list.
    pub bans: Vec<BanEntry>,
}

/// A peer to ban, the body of `POST /v1/bans`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    /// Public key or node id of the peer.
    pub peer: String,
    /// Length of the ban in seconds, 1 to 4 294 967 295; without it the ban never ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4294967295u64)]
    pub seconds: Option<u64>,
    /// Reason for people. Defaults to `banned by the operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A peer on the allow list, which is never banned; the body of `POST /v1/allowed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowedPeer {
    /// Node id of the peer. A request may give its public key instead.
    pub peer: String,
}

/// The allow list, by node id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AllowList {
    /// Version of the API.
    pub version: Version,
    /// Peers of the list.
    pub allowed: Vec<AllowedPeer>,
}

/// A peer to search for, the body of `POST /v1/discover`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverPeer {
    /// Public key of the peer.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub public_key: PublicKey,
}

/// A peer that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerFound {
    /// Version of the API.
    pub version: Version,
    /// Record of the peer.
    pub peer: PeerEntry,
}

/// A peer to reach, the body of `POST /v1/ping`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingPeer {
    /// Public key of the peer, or `KEY::ADDRESS` of one this node does not know.
    pub peer: String,
}

/// Answer of a peer to a ping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pong {
    /// Version of the API.
    pub version: Version,
    /// Node id of the peer, which proved to hold its key.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Whether the peer was connected before.
    pub was_connected: bool,
    /// Time it took to find, dial and authenticate the peer, in microseconds; absent if it was connected before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_micros: Option<u64>,
    /// Time from a request on the connection to the answer of the peer, in microseconds.
    pub round_trip_micros: u64,
}
