//! Bans: the peers this node refuses to talk to, until when, and why.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use dht_core::{CompressedKey, NodeId, PublicKey, Severity, UnixSeconds};

use crate::{address::truncate, directory::changed::Changed, policy::Offence};

/// Bytes kept of the reason of a ban.
pub const MAX_REASON_BYTES: usize = 256;

/// Peers on the allow list at most. It is written whole whenever it changes.
pub const MAX_ALLOWED: usize = 1_000;

/// Bytes that a ban takes at most, with its reason and its places in three indexes.
pub(crate) const BAN_BYTES: usize = 544;

/// "Until" of a ban without end.
pub const FOREVER: UnixSeconds = UnixSeconds(u64::MAX);

/// A ban with its reason and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Peer that is banned.
    pub node_id: NodeId,
    /// Key of the peer, if it is known.
    pub public_key: Option<CompressedKey>,
    /// In force strictly before this time; [`FOREVER`] never ends.
    pub until: UnixSeconds,
    /// Gravity of the offence.
    pub severity: Severity,
    /// Offence that the [policy](crate::policy::BanPolicy) banned for; `None` if the operator banned.
    pub offence: Option<Offence>,
    /// Whether the settings list the peer: such a ban is in no file, as a peer may be listed no longer.
    pub is_listed: bool,
    /// Reason for people, at most [`MAX_REASON_BYTES`].
    pub reason: Arc<str>,
}

/// Peer to ban, in the directory or not. Banning a key bans its node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanTarget {
    /// The peer with this node id.
    NodeId(NodeId),
    /// The peer with this key.
    PublicKey(CompressedKey),
}

/// Result of a request to ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanOutcome {
    /// The ban is in force, possibly longer than asked for because of an earlier one.
    Banned(Arc<Ban>),
    /// The operator trusts this peer; nothing happened.
    AllowListed,
    /// This node does not ban itself.
    Ourselves,
    /// The end lies in the past; nothing happened.
    AlreadyOver,
}

/// The allow list has [`MAX_ALLOWED`] peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the allow list is full: it has {MAX_ALLOWED} peers")]
pub struct AllowListFull;

/// All bans, those of peers outside the directory included, and the allow list.
#[derive(Debug)]
pub(crate) struct Bans {
    by_id: HashMap<NodeId, Arc<Ban>>,
    by_end: BTreeSet<(UnixSeconds, NodeId)>,
    /// Bans of peers that are not in the directory. Those that are there are bounded with it.
    strangers: BTreeSet<(UnixSeconds, NodeId)>,
    max_strangers: usize,
    allowed: HashSet<NodeId>,
    /// Bans whose rows in the file are outdated.
    pub(crate) outdated: Changed,
}

// === impl Ban ===

impl Ban {
    /// Whether the ban is in force.
    #[must_use]
    pub fn is_active(&self, now: UnixSeconds) -> bool {
        now < self.until
    }

    /// Seconds until the ban ends; `None` if it never does.
    #[must_use]
    pub fn seconds_left(&self, now: UnixSeconds) -> Option<u64> {
        (self.until != FOREVER).then(|| self.until.saturating_since(now))
    }
}

// === impl BanTarget ===

impl BanTarget {
    /// The node id that is banned.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        match self {
            Self::NodeId(id) => *id,
            Self::PublicKey(key) => key.node_id(),
        }
    }

    pub(crate) const fn public_key(&self) -> Option<CompressedKey> {
        match self {
            Self::NodeId(_) => None,
            Self::PublicKey(key) => Some(*key),
        }
    }
}

impl From<NodeId> for BanTarget {
    fn from(id: NodeId) -> Self {
        Self::NodeId(id)
    }
}

impl From<PublicKey> for BanTarget {
    fn from(key: PublicKey) -> Self {
        Self::PublicKey(key.into())
    }
}

impl From<CompressedKey> for BanTarget {
    fn from(key: CompressedKey) -> Self {
        Self::PublicKey(key)
    }
}

// === impl Bans ===

impl Bans {
    pub(crate) fn new(max_strangers: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            by_end: BTreeSet::new(),
            strangers: BTreeSet::new(),
            max_strangers,
            allowed: HashSet::new(),
            outdated: Changed::default(),
        }
    }

    /// Enters a ban; of two for one peer the one that ends later stands.
    pub(crate) fn insert(&mut self, mut ban: Ban, known: bool, now: UnixSeconds) -> Arc<Ban> {
        self.forget_lapsed(now);
        ban.reason = truncate(&ban.reason, MAX_REASON_BYTES).into();
        let id = ban.node_id;
        if let Some(held) = self.remove(&id) {
            ban.public_key = ban.public_key.or(held.public_key);
            if held.until > ban.until {
                ban = Ban {
                    public_key: ban.public_key,
                    ..Ban::clone(&held)
                };
            }
        }
        let ban = Arc::new(ban);
        self.outdated.note(&id);
        self.by_end.insert((ban.until, id));
        self.by_id.insert(id, Arc::clone(&ban));
        if !known {
            self.add_stranger(ban.until, id);
        }
        ban
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<Arc<Ban>> {
        let ban = self.by_id.remove(id)?;
        self.outdated.note(id);
        self.by_end.remove(&(ban.until, *id));
        self.strangers.remove(&(ban.until, *id));
        Some(ban)
    }

    pub(crate) fn find(&self, id: &NodeId) -> Option<&Arc<Ban>> {
        self.by_id.get(id)
    }

    /// The peer is in the directory from now on.
    pub(crate) fn peer_added(&mut self, id: &NodeId) -> Option<Arc<Ban>> {
        let ban = Arc::clone(self.by_id.get(id)?);
        self.strangers.remove(&(ban.until, *id));
        Some(ban)
    }

    /// The peer has left the directory; its ban stays.
    pub(crate) fn peer_removed(&mut self, id: &NodeId) {
        if let Some(ban) = self.by_id.get(id) {
            self.add_stranger(ban.until, *id);
        }
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Those in force, by when they end.
    pub(crate) fn active(&self, now: UnixSeconds) -> impl Iterator<Item = &Arc<Ban>> {
        self.by_end
            .range((now.saturating_add(1), NodeId::default())..)
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// When the next ban in force ends.
    pub(crate) fn next_end(&self, now: UnixSeconds) -> UnixSeconds {
        self.active(now).next().map_or(FOREVER, |ban| ban.until)
    }

    pub(crate) fn allow(&mut self, id: NodeId) -> Result<bool, AllowListFull> {
        if self.allowed.len() >= MAX_ALLOWED && !self.allowed.contains(&id) {
            return Err(AllowListFull);
        }
        Ok(self.allowed.insert(id))
    }

    pub(crate) fn disallow(&mut self, id: &NodeId) -> bool {
        self.allowed.remove(id)
    }

    pub(crate) fn is_allowed(&self, id: &NodeId) -> bool {
        self.allowed.contains(id)
    }

    pub(crate) fn allowed(&self) -> Vec<NodeId> {
        let mut ids: Vec<_> = self.allowed.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn add_stranger(&mut self, until: UnixSeconds, id: NodeId) {
        self.strangers.insert((until, id));
        // A flood of bans pushes out those that would have ended first.
        if self.strangers.len() > self.max_strangers
            && let Some((_, first)) = self.strangers.first().copied()
        {
            self.remove(&first);
        }
    }

    fn forget_lapsed(&mut self, now: UnixSeconds) {
        while let Some((until, id)) = self.by_end.first().copied()
            && until <= now
        {
            self.remove(&id);
        }
    }
}
