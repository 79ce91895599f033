//! Peer directory: records, claims, address statistics, bans and closest-n.
//!
//! [`Directory`] holds the peers this node has proven or heard of, and the bans; [`Connections`] holds the peers that are
//! connected now; [`policy`] holds the table of offences and the bans that follow. Cloning a directory or a table of connections
//! shares it, and both find the peers closest to an id by walking outward from it instead of sorting. With the feature `redb`,
//! `DirectoryFile` keeps the directory across restarts. Nothing here reads a clock: time is an argument.
//!
//! ```
//! use dht_core::{Features, NodeId, SecretKey, Severity, UnixSeconds};
//! use dht_peers::{Directory, PeerFilter, PeerRecord};
//!
//! let now = UnixSeconds(1_700_000_000);
//! let key = |n| SecretKey::from_bytes(&[n; 32]).unwrap_or_else(|_| unreachable!()).public_key();
//! let directory = Directory::new(key(1).node_id());
//! for n in 2..=9 {
//!     directory.add_or_update(PeerRecord::seed(key(n), Features::NODE, [], now), now);
//! }
//!
//! let near = directory.closest(&NodeId::default(), 3, &PeerFilter::reachable(now));
//! assert_eq!(near.len(), 3);
//!
//! // Also works for unknown peers.
//! directory.ban(*near[0].node_id(), now.saturating_add(600), Severity::Low, "talks nonsense", now);
//! assert!(directory.is_banned(near[0].node_id(), now));
//! assert!(!directory.is_banned(near[0].node_id(), now.saturating_add(600)));
//! ```

mod address;
mod agent;
mod ban;
mod claims;
mod connections;
mod directory;
mod exclude;
#[cfg(feature = "redb")]
mod file;
mod filter;
mod frame;
mod group;
mod metrics;
mod moment;
pub mod policy;
mod record;
mod sample;
mod xor;

#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use address::{AddressRecord, Average, DialTimes, MAX_ADDRESSES, MAX_FAILURE_BYTES};
pub use agent::{MAX_PROTOCOLS, MAX_USER_AGENT_BYTES};
pub use ban::{AllowListFull, Ban, BanOutcome, BanTarget, FOREVER, MAX_ALLOWED, MAX_REASON_BYTES};
pub use claims::{
    ClaimPolicy, MAX_CLAIM_ADDRESSES, MAX_CLAIM_BYTES, MAX_CLAIMS, MAX_STATED_ADDRESSES, Unusable,
    ValidClaims, validate_claims,
};
pub use connections::{ConnectedPeer, ConnectedPeers, Connections, Direction};
pub use directory::{
    Change, DEFAULT_DIRECTORY_BYTES, Directory, DirectoryLimits, DirectoryMemory, MAX_ANCHORS,
    RegionThresholds,
};
#[cfg(feature = "redb")]
pub use file::DirectoryFile;
pub use filter::{ACTIVE_SECONDS, FeatureRule, PeerFilter};
pub use frame::InboundFrame;
pub use group::NetGroup;
pub use metrics::describe_metrics;
pub use record::PeerRecord;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
