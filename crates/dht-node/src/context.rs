//! State that the parts of a node share.

use std::sync::Arc;

use dht_core::{Entropy as _, NodeIdentity, SharedClock, SharedEntropy};
use dht_dedup::{DedupTable, FingerprintCache};
use dht_peers::{Connections, Directory, policy::BanPolicy};
use rand_core::Rng as _;

use crate::{counters::Counters, events::Events, expiry_clock::ExpiryClock};

/// Identity, tables and sources that every part of a node reads. Clones share them.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) bans: BanPolicy,
    /// Inbound messages are counted in it; outbound messages are entered, so that their echoes are duplicates.
    pub(crate) dedup: DedupTable,
    /// Exact copies of what passed validation lately.
    pub(crate) fingerprints: FingerprintCache,
    pub(crate) clock: SharedClock,
    /// Asked before something that is stored ends by its age.
    pub(crate) expiry: Arc<ExpiryClock>,
    pub(crate) entropy: SharedEntropy,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
}

impl NodeContext {
    /// Bytes of the tables of messages seen and of exact copies.
    pub(crate) fn remembered_bytes(&self) -> usize {
        self.dedup.allocated_bytes() + self.fingerprints.allocated_bytes()
    }
}

/// A random seed for a table whose keys peers choose.
pub(crate) fn seed(entropy: &SharedEntropy) -> [u8; 16] {
    let mut seed = [0; 16];
    entropy.rng().fill_bytes(&mut seed);
    seed
}
