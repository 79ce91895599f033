//! The directory: the peers this node knows or has heard of, and the bans.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dht_core::{Address, NodeId, PublicKey, UnixSeconds};
use parking_lot::{Mutex, RwLock};
use rand_core::Rng;

use crate::{
    address::DialTimes,
    ban::{BAN_BYTES, Ban},
    connections::Connections,
    filter::PeerFilter,
    group::NetGroup,
    metrics,
    record::PeerRecord,
};
use index::Index;
use region::Region;

mod anchors;
mod bans;
pub(crate) mod changed;
pub(crate) mod disk;
mod index;
mod memory;
mod region;
mod shares;
mod table;

/// Memory of a directory by default, in bytes: a sixteenth of the default memory of a node. Room for about 8 000 proven
/// peers.
pub const DEFAULT_DIRECTORY_BYTES: usize = 16 * 1024 * 1024;

/// How much a [`Directory`] may hold. Defaults to the shares of [`DEFAULT_DIRECTORY_BYTES`].
///
/// A peer takes 0.6 to 2 KiB, more with a long claim. When a table is over its limit, a peer gives way of the
/// [network group](NetGroup) whose peers delivered most bytes of it, and of these of the network group whose addresses take most:
/// deleted peers first, then offline ones, then those not seen for longest; of peers heard of, those whose claim is oldest.
/// Connected peers, and those the operator named or [allowed](Directory::allow), always stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryLimits {
    /// Most bytes of proven peers, without those the operator named or allowed.
    pub proven_bytes: usize,
    /// Most bytes of peers heard of.
    pub heard_of_bytes: usize,
    /// Most bans of unknown peers. An offender can make new keys for nothing: the bans that would lapse first give way.
    pub max_bans: usize,
}

/// Outcome of a call of [`Directory::add_or_update`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The peer was not known.
    Added,
    /// The peer was known and something changed.
    Updated,
    /// The peer was known and the record said nothing new.
    Unchanged,
    /// This node is not its own peer; the record was ignored.
    Ourselves,
    /// Another key is already known under the same node id; the record was ignored.
    KeyMismatch,
}

/// The peers this node knows, in two tables. Cloning gives another handle to the same directory.
///
/// *Proven* peers have authenticated themselves on a connection of this node's own, or the operator named them.
/// *Heard-of* peers are signed claims that others delivered; anybody can make as many of them as they like, so they only
/// suggest whom to dial. A peer that authenticates itself moves from the one table to the other. Queries are about
/// proven peers unless their [`PeerFilter`] says otherwise; looking up one peer finds it in either table.
///
/// Reads take a shared lock for as long as they walk and hand out shared records; no call waits for anything else.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

type BanHook = Box<dyn Fn(&Arc<Ban>) + Send + Sync>;

struct Inner {
    me: NodeId,
    state: RwLock<Index>,
    region: Mutex<Region>,
    anchors: Mutex<Vec<NodeId>>,
    is_cut_off: AtomicBool,
    hooks: RwLock<Vec<BanHook>>,
}

impl DirectoryLimits {
    /// The limits of a directory that takes at most so many bytes: half for proven peers, a quarter each for peers heard
    /// of and for bans.
    #[must_use]
    pub const fn within(bytes: usize) -> Self {
        Self {
            proven_bytes: bytes / 2,
            heard_of_bytes: bytes / 4,
            max_bans: bytes / 4 / BAN_BYTES,
        }
    }
}

impl Default for DirectoryLimits {
    fn default() -> Self {
        Self::within(DEFAULT_DIRECTORY_BYTES)
    }
}

// === impl Directory ===

impl Directory {
    /// An empty directory of the node `me`, with default limits.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self::with_limits(me, DirectoryLimits::default())
    }

    /// An empty directory of the node `me`.
    #[must_use]
    pub fn with_limits(me: NodeId, limits: DirectoryLimits) -> Self {
        Self(Arc::new(Inner {
            me,
            state: RwLock::new(Index::new(limits)),
            region: Mutex::default(),
            anchors: Mutex::default(),
            is_cut_off: AtomicBool::new(false),
            hooks: RwLock::default(),
        }))
    }

    /// The node whose directory this is. It is never in it.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.0.me
    }

    /// The peers connected now, which are never evicted. The transport, which opens and closes connections, keeps the table.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.0.state.read().connections().clone()
    }

    // --- peers ---

    /// Enters a peer that has authenticated itself on a connection of this node's own, dialled by either side, with an
    /// address in the group `from`: it is proven, and seen now.
    pub fn authenticated(
        &self,
        mut record: PeerRecord,
        from: NetGroup,
        now: UnixSeconds,
    ) -> Change {
        record.proven = true;
        record.source = from;
        record.last_seen = now.into();
        self.add_or_update(record, now)
    }

    /// Enters what a peer claims about itself in a message that the connected peer `deliverer` handed over. It counts
    /// against the share of the deliverer's group.
    pub fn hear(&self, mut record: PeerRecord, deliverer: &NodeId, now: UnixSeconds) -> Change {
        record.source = self
            .find(deliverer)
            .map_or(NetGroup::Unknown, |peer| peer.source);
        self.add_or_update(record, now)
    }

    /// Enters a peer or [merges](PeerRecord::merge) what the record says into what is known. An existing ban stays.
    /// Proven are only [seeds](PeerRecord::seed).
    pub fn add_or_update(&self, record: PeerRecord, now: UnixSeconds) -> Change {
        if record.node_id == self.0.me {
            return Change::Ourselves;
        }
        let mut state = self.0.state.write();
        let change = state.add_or_update(record, now);
        metrics::known(state.table_len(true), state.table_len(false));
        change
    }

    /// The peer with this node id, banned or not.
    #[must_use]
    pub fn find(&self, id: &NodeId) -> Option<Arc<PeerRecord>> {
        self.0.state.read().find(id).map(Arc::clone)
    }

    /// The peer with this key, banned or not.
    #[must_use]
    pub fn find_by_key(&self, key: &PublicKey) -> Option<Arc<PeerRecord>> {
        self.find(&key.node_id())
            .filter(|peer| peer.public_key() == key.compressed())
    }

    /// Up to `limit` peers whose node id, or else whose key, starts with these hexadecimal digits of either case.
    /// Looks at every peer's key if no node id matches.
    #[must_use]
    pub fn find_by_prefix(&self, digits: &str, limit: usize) -> Vec<Arc<PeerRecord>> {
        self.0
            .state
            .read()
            .find_by_prefix(&digits.trim().to_ascii_lowercase(), limit)
    }

    /// Whether this peer is known.
    #[must_use]
    pub fn contains(&self, id: &NodeId) -> bool {
        self.0.state.read().find(id).is_some()
    }

    /// Number of peers in the directory, proven and heard of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.state.read().len()
    }

    /// True if no peer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes with every change of a proven peer or a ban that a query could notice.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.state.read().generation()
    }

    /// Gives a peer up: it stays known, but no query for usable peers finds it until it is heard of again.
    pub fn delete(&self, id: &NodeId, now: UnixSeconds) -> bool {
        self.0
            .state
            .write()
            .update(id, |peer| peer.deleted_at = now.into())
    }

    /// Forgets a peer altogether, but not a ban of it.
    pub fn remove(&self, id: &NodeId) -> Option<Arc<PeerRecord>> {
        let mut state = self.0.state.write();
        let removed = state.remove(id);
        metrics::known(state.table_len(true), state.table_len(false));
        removed
    }

    /// An authenticated connection using this address: the peer is proven. False if it is unknown.
    pub fn mark_seen(
        &self,
        id: &NodeId,
        address: &Address,
        times: DialTimes,
        now: UnixSeconds,
    ) -> bool {
        self.0
            .state
            .write()
            .update(id, |peer| peer.seen_at(address, now, times))
    }

    /// A dial of this address that failed; nothing is recorded while this node is [cut off](Self::set_cut_off). False if the
    /// peer is unknown.
    pub fn mark_failed(
        &self,
        id: &NodeId,
        address: &Address,
        reason: &str,
        now: UnixSeconds,
    ) -> bool {
        if self.0.is_cut_off.load(Ordering::Relaxed) {
            return self.contains(id);
        }
        self.0
            .state
            .write()
            .update(id, |peer| peer.failed_at(address, now, reason))
    }

    /// Whether this node itself has lost its network: then failed dials say nothing about peers, and are not recorded.
    pub fn set_cut_off(&self, is_cut_off: bool) {
        self.0.is_cut_off.store(is_cut_off, Ordering::Relaxed);
    }

    // --- queries ---

    /// The `n` peers closest to `target` that pass, nearest first: O(n + log size) when most pass.
    #[must_use]
    pub fn closest(
        &self,
        target: &NodeId,
        n: usize,
        filter: &PeerFilter<'_>,
    ) -> Vec<Arc<PeerRecord>> {
        let state = self.0.state.read();
        state
            .closest(target, filter)
            .take(n)
            .map(|(_, peer)| Arc::clone(peer))
            .collect()
    }

    /// Up to `n` peers that pass, uniformly at random without replacement.
    #[must_use]
    pub fn random(
        &self,
        n: usize,
        filter: &PeerFilter<'_>,
        rng: &mut impl Rng,
    ) -> Vec<Arc<PeerRecord>> {
        self.0.state.read().random(n, filter, rng)
    }

    /// Up to `n` peers that pass, by node id.
    #[must_use]
    pub fn list(&self, n: usize, filter: &PeerFilter<'_>) -> Vec<Arc<PeerRecord>> {
        // Ids by ascending distance to zero are ids in ascending order.
        self.closest(&NodeId::default(), n, filter)
    }

    /// Up to `n` peers that pass and whose node ids come after `after`, by node id. Looks at those before it as well.
    #[must_use]
    pub fn list_after(
        &self,
        after: &NodeId,
        n: usize,
        filter: &PeerFilter<'_>,
    ) -> Vec<Arc<PeerRecord>> {
        let state = self.0.state.read();
        state
            .closest(&NodeId::default(), filter)
            .map(|(_, peer)| peer)
            .skip_while(|peer| peer.node_id() <= after)
            .take(n)
            .map(Arc::clone)
            .collect()
    }

    /// Number of peers that pass. Looks at all of them.
    #[must_use]
    pub fn count(&self, filter: &PeerFilter<'_>) -> usize {
        self.0
            .state
            .read()
            .closest(&NodeId::default(), filter)
            .count()
    }

    // --- region: specification 01, section 2 ---

    /// Whether `target` lies in this node's neighbourhood of size `n`: no farther than the n-th nearest proven node
    /// that is neither banned nor offline, or failing that than the n-th nearest such client. Where fewer are known,
    /// everything does.
    #[must_use]
    pub fn in_region(&self, target: &NodeId, n: usize, now: UnixSeconds) -> bool {
        let distance = self.0.me.distance(target);
        let thresholds = self.region_thresholds(n, now);
        distance <= thresholds.nodes || distance <= thresholds.clients
    }

    /// The two distances behind [`in_region`](Self::in_region). Cached until a peer or ban changes.
    #[must_use]
    pub fn region_thresholds(&self, n: usize, now: UnixSeconds) -> RegionThresholds {
        // Correctness: lock order is region, then state; no other code takes both.
        self.0
            .region
            .lock()
            .thresholds(n, now, &self.0.me, &self.0.state)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("me", &self.0.me)
            .field("peers", &self.len())
            .finish()
    }
}

pub use anchors::MAX_ANCHORS;
pub use memory::DirectoryMemory;
pub use region::RegionThresholds;

#[cfg(test)]
mod tests;
