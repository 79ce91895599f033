//! How often a peer may be served.

use std::hash::Hash;

use dht_core::UnixSeconds;
use dht_stack::{Rate, TokenBuckets};

/// Peers whose rate is remembered; connections are bounded far below this.
const MAX_PEERS: usize = 4096;

/// A token bucket for each peer, or source group. A table full of peers without tokens refuses new ones.
#[derive(Debug)]
pub(crate) struct Rates<K>(TokenBuckets<K>);

impl<K: Copy + Eq + Hash> Rates<K> {
    /// `seed` must be unknown to peers, who choose their keys.
    pub(crate) fn new(rate: Rate, seed: [u8; 16]) -> Self {
        Self(TokenBuckets::new([rate], MAX_PEERS, seed))
    }

    /// Whether `peer` may be served once more now; takes a token if so.
    pub(crate) fn admit(&self, peer: &K, now: UnixSeconds) -> bool {
        self.0.try_take(peer, 0, now.0)
    }
}
