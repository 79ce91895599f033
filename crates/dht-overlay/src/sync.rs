//! The peer-sync service `t/dht/1`: specification 02 section 8.3, and 06 section 6.
//!
//! # Wire format
//!
//! | Method | Number | Request | Responses |
//! |---|---|---|---|
//! | get closer peers | 1 | number of peers 1 to 100, node ids to leave out, the id to be close to (the caller's if empty) | the closest peers, nearest first |
//! | get peers | 10 | number of peers, 0 for 100 | peers at random, at most [`MAX_TOLD_PEERS`] |
//!
//! Both requests say whether clients are wanted, how many claims of a peer, and of how many addresses each. Each response is
//! one peer: its key, and claims that it signed.
//!
//! # Security
//!
//! Only peers that this node itself authenticated in the last 7 days are told of, and each claim is signed by its owner. The
//! rate at which one peer, and one source group, is told of peers has a bound: beyond it an answer waits, since a failure would
//! get this node banned by a stock one. The reference lists peers in storage order, so that a caller of `get_peers` is told
//! of the same ones by everybody who stores them alike; a random choice leaves nobody a place to aim at.

mod ask;
mod learn;
mod serve;

use bytes::Bytes;
use dht_core::{NodeId, SourceGroup};
use dht_rpc::Caller;
use dht_stack::Rate;

pub use ask::{AnnouncedPeer, AnnouncedPeers, PeerSyncClient, SyncError};
pub use learn::{Ask, Learner, SyncFailure, SyncReport};
pub use serve::peer_sync_server;

/// Name of the protocol, as peers announce it.
pub const PEER_SYNC_PROTOCOL: Bytes = Bytes::from_static(b"t/dht/1");
/// Peers in the longest answer to a request for peers. The reference honours any number; its nodes ask for 500 at most (06 N5).
pub const MAX_TOLD_PEERS: usize = 500;
/// Peers in the longest answer to a request for closer peers, and in the answer to one for 0 peers.
pub const DEFAULT_TOLD_PEERS: usize = 100;
/// Peers that one peer is told of: two rounds of a stock node at once, and one in ten seconds.
pub const PEER_RATE: Rate = Rate {
    per_second: 50,
    burst: 1_000,
};
/// Peers that all peers of one source group are told of.
pub const NETWORK_RATE: Rate = Rate {
    per_second: 200,
    burst: 4_000,
};

/// A peer that asks, and its source group. Peers without one, behind a proxy or an onion service, share a single part of the
/// sessions.
pub type SyncCaller = Caller<NodeId, Option<SourceGroup>>;

/// Memory that one session takes at most, in bytes: a request, the responses that are gathered, and the one that is added.
pub const SESSION_BYTES: usize = MAX_REQUEST_BYTES + 40 * 1024;

/// Longest request that is read: room for more node ids than may be left out, so that too many are answered.
const MAX_REQUEST_BYTES: usize = 32 * 1024;

const GET_CLOSER_PEERS: u32 = 1;
const GET_PEERS: u32 = 10;
