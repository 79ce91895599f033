//! Finds a node, or the nodes closest to an id, by asking nodes ever closer to it: specification 06, section 15 ("Lookup").
//!
//! [`Lookup`] decides whom to ask and when to stop; [`Finder`] asks over sessions of the [peer-sync service](crate::sync), and shares
//! one lookup among all callers that look for one key.
//!
//! # Security
//!
//! Answers come from nodes that authenticated themselves on a connection of this node's own. What they tell is hearsay: it goes
//! to the heard-of table, each claim with the signature of its owner, until this node has dialled it. Whoever makes keys close to
//! the target can be on every path; so of one network only a few nodes are asked on a path, and a lookup asks no more than
//! [`max_queries`](LookupConfig::max_queries) nodes.

mod core;
mod finder;

use std::time::Duration;

pub use self::core::{Candidate, Lookup};
pub use finder::{Finder, LookupError, SyncNetwork};

/// Bounds of a [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// Number of closest nodes that are sought, and that each node is asked for, 1 to 100. Defaults to 20.
    pub k: usize,
    /// Nodes that are asked at a time, over all paths. Defaults to 3.
    pub alpha: usize,
    /// Disjoint paths, at least 1. Defaults to 2.
    pub paths: usize,
    /// Nodes asked in all. Defaults to 64.
    pub max_queries: usize,
    /// Answers on the way to a node that is asked: each at least halves the distance, so the default of 16 is enough for
    /// 2¹⁶ times as many nodes as one knows.
    pub max_hops: usize,
    /// Nodes of one network that are asked on a path. Defaults to 4.
    pub max_per_network: usize,
    /// Time after which a node that does not answer holds up no other. Defaults to 500 ms.
    pub slow: Duration,
    /// Time for dialling a node and for its answer. Defaults to 8 s.
    pub query: Duration,
    /// Time for the whole lookup. Defaults to 40 s.
    pub total: Duration,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            k: 20,
            alpha: 3,
            paths: 2,
            max_queries: 64,
            max_hops: 16,
            max_per_network: 4,
            slow: Duration::from_millis(500),
            query: Duration::from_secs(8),
            total: Duration::from_secs(40),
        }
    }
}
