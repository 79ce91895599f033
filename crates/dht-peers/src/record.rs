//! Record of one peer in the directory.

use std::{cmp::Reverse, fmt, mem, sync::Arc};

use bytes::Bytes;
use dht_core::{Address, Claim, CompressedKey, Features, NodeId, PublicKey, UnixSeconds};

use crate::{
    address::{AddressRecord, DialTimes, MAX_ADDRESSES},
    agent::Agent,
    ban::Ban,
    group::NetGroup,
    moment::Moment,
};

/// One peer. Addresses, claims and bans of it change only through methods that keep their bounds.
///
/// A record is also the unit of an update: describe what was learned as a record and hand it to
/// [`Directory::add_or_update`](crate::Directory::add_or_update).
// In this order: a look-up reads the node id, a filter the fields after it, beside the reference counts.
#[derive(Clone, PartialEq, Eq)]
#[repr(C)]
pub struct PeerRecord {
    pub(crate) node_id: NodeId,
    pub(crate) is_seed: bool,
    pub(crate) proven: bool,
    /// Group of the address it authenticated itself from, or of the peer that first delivered a claim of it.
    pub(crate) source: NetGroup,
    pub(crate) features: Features,
    pub(crate) addresses: Box<[AddressRecord]>,
    pub(crate) ban: Option<Arc<Ban>>,
    pub(crate) last_seen: Moment,
    pub(crate) deleted_at: Moment,
    pub(crate) added_at: UnixSeconds,
    pub(crate) claim: Option<Arc<Claim>>,
    /// `None` until a handshake tells it.
    pub(crate) agent: Option<Arc<Agent>>,
    pub(crate) public_key: CompressedKey,
}

impl PeerRecord {
    /// A peer of which nothing but key and features is known.
    #[must_use]
    pub fn new(public_key: PublicKey, features: Features, now: UnixSeconds) -> Self {
        Self::stored(public_key.into(), features, now)
    }

    /// As [`new`](Self::new), from a key that is not decoded again.
    pub(crate) fn stored(public_key: CompressedKey, features: Features, now: UnixSeconds) -> Self {
        Self {
            node_id: public_key.node_id(),
            public_key,
            features,
            addresses: Box::default(),
            claim: None,
            is_seed: false,
            proven: false,
            source: NetGroup::Unknown,
            ban: None,
            agent: None,
            added_at: now,
            last_seen: Moment::NEVER,
            deleted_at: Moment::NEVER,
        }
    }

    /// A peer the operator named: proven, and never evicted from a full directory.
    #[must_use]
    pub fn seed(
        public_key: PublicKey,
        features: Features,
        addresses: impl IntoIterator<Item = Address>,
        now: UnixSeconds,
    ) -> Self {
        let mut record = Self::new(public_key, features, now);
        record.is_seed = true;
        record.proven = true;
        record.at(addresses, AddressRecord::named)
    }

    /// A node that somebody told of without its signature, as a name server does: it counts for nothing until it has
    /// authenticated itself.
    #[must_use]
    pub fn unsigned(
        public_key: PublicKey,
        addresses: impl IntoIterator<Item = Address>,
        now: UnixSeconds,
    ) -> Self {
        Self::new(public_key, Features::NODE, now).at(addresses, AddressRecord::unsigned)
    }

    /// The same peer without the operator's word.
    pub(crate) const fn into_hearsay(mut self) -> Self {
        self.is_seed = false;
        self.proven = false;
        self
    }

    fn at(
        mut self,
        addresses: impl IntoIterator<Item = Address>,
        record: impl Fn(Address) -> AddressRecord,
    ) -> Self {
        let mut held: Vec<AddressRecord> = Vec::new();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if held.iter().all(|held| held.address != address) {
                held.push(record(address));
            }
        }
        self.addresses = held.into();
        self
    }

    /// A peer that described itself. The claim must have been
    /// [validated](crate::validate_claims) for this key.
    #[must_use]
    pub fn from_claim(public_key: PublicKey, claim: Arc<Claim>, now: UnixSeconds) -> Self {
        let addresses = claim.addresses.clone();
        Self::from_claim_at(public_key, claim, &addresses, now)
    }

    /// As [`from_claim`](Self::from_claim), with only these of the addresses in the claim.
    pub(crate) fn from_claim_at(
        public_key: PublicKey,
        claim: Arc<Claim>,
        addresses: &[Address],
        now: UnixSeconds,
    ) -> Self {
        let claimed = |address| AddressRecord::claimed(address, Arc::clone(&claim));
        let record = Self::new(public_key, claim.features, now);
        let mut record = record.at(addresses.iter().cloned(), claimed);
        record.claim = Some(claim);
        record
    }

    /// Sets what the handshake told: protocol names and user agent, cut to their bounds. Both are text a peer
    /// chose; print them escaped.
    #[must_use]
    pub fn with_agent(
        mut self,
        user_agent: &str,
        protocols: impl IntoIterator<Item = Bytes>,
    ) -> Self {
        self.agent = Agent::new(user_agent, protocols).map(Arc::new);
        self
    }

    /// Public key of the peer.
    #[must_use]
    pub const fn public_key(&self) -> &CompressedKey {
        &self.public_key
    }

    /// The node id of the key.
    #[must_use]
    pub const fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// Network of the address it authenticated itself from, or of the peer that first delivered a claim of it.
    #[must_use]
    pub const fn network(&self) -> NetGroup {
        self.source
    }

    /// Features that the peer claims.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Its addresses, at most [`MAX_ADDRESSES`], in the order they became known.
    #[must_use]
    pub fn addresses(&self) -> &[AddressRecord] {
        &self.addresses
    }

    /// Its addresses in the order to dial them, best first. Scores are computed now, unknown ones count as 0.
    #[must_use]
    pub fn dial_order(&self, now: UnixSeconds) -> Vec<&AddressRecord> {
        let mut order: Vec<_> = self.addresses.iter().collect();
        order.sort_by_key(|address| Reverse(address.quality(now).unwrap_or(0)));
        order
    }

    /// The newest claim held, to be passed on to others.
    #[must_use]
    pub const fn claim(&self) -> Option<&Arc<Claim>> {
        self.claim.as_ref()
    }

    /// Whether the operator named this peer.
    #[must_use]
    pub const fn is_seed(&self) -> bool {
        self.is_seed
    }

    /// Whether this peer authenticated itself on a connection of this node's own, or the operator named it. What is known
    /// of others is hearsay.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.proven
    }

    /// The last ban, which may have lapsed.
    #[must_use]
    pub fn ban(&self) -> Option<&Ban> {
        self.ban.as_deref()
    }

    /// Whether a ban is in force.
    #[must_use]
    pub fn is_banned(&self, now: UnixSeconds) -> bool {
        self.ban.as_ref().is_some_and(|ban| ban.is_active(now))
    }

    /// Whether every one of its addresses failed at the last dial. A peer without addresses is not offline.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.iter().all(AddressRecord::has_failed)
    }

    /// Since when it is offline: the earliest last attempt.
    #[must_use]
    pub fn offline_since(&self) -> Option<UnixSeconds> {
        self.is_offline().then(|| {
            self.addresses
                .iter()
                .filter_map(AddressRecord::last_attempt)
                .min()
        })?
    }

    /// When any of its addresses, or the peer at an address since withdrawn, was last seen.
    #[must_use]
    pub fn last_seen(&self) -> Option<UnixSeconds> {
        self.last_seen.time()
    }

    /// When it became known.
    #[must_use]
    pub const fn added_at(&self) -> UnixSeconds {
        self.added_at
    }

    /// When it was given up; it comes back as soon as it is heard of again.
    #[must_use]
    pub fn deleted_at(&self) -> Option<UnixSeconds> {
        self.deleted_at.time()
    }

    /// Protocol names it offers.
    #[must_use]
    pub fn protocols(&self) -> &[Bytes] {
        self.agent.as_ref().map_or(&[], |agent| agent.protocols())
    }

    /// Its user agent, empty if unknown.
    #[must_use]
    pub fn user_agent(&self) -> &str {
        self.agent.as_ref().map_or("", |agent| agent.user_agent())
    }

    /// Takes in what `incoming` says about the same peer: specification 02, section 11.5.
    ///
    /// - A strictly newer claim replaces the features, and all addresses but the operator's and those that worked; an
    ///   address named again keeps its history. One without addresses to dial replaces none. An older claim is ignored
    ///   together with its addresses.
    /// - The same address is merged, a new one appended, and the [`MAX_ADDRESSES`] best are kept.
    /// - A peer heard of again is no longer deleted.
    ///
    /// Merging the same record twice changes nothing more, as long as no address has to be cut. Bans are not merged; the directory keeps them.
    pub fn merge(&mut self, incoming: &Self, now: UnixSeconds) {
        debug_assert_eq!(self.public_key, incoming.public_key);
        let standing = match (&self.claim, &incoming.claim) {
            (_, None) => Standing::Unsigned,
            (None, Some(_)) => Standing::Newer,
            (Some(held), Some(new)) if new.is_newer_than(held) => Standing::Newer,
            (Some(held), Some(new)) if held.is_newer_than(new) => Standing::Older,
            _ => Standing::Same,
        };
        let mut addresses = mem::take(&mut self.addresses).into_vec();
        if standing == Standing::Newer {
            self.claim.clone_from(&incoming.claim);
            addresses.retain(|held| {
                incoming.addresses.is_empty()
                    || held.is_named()
                    || held.last_seen != Moment::NEVER
                    || incoming
                        .addresses
                        .iter()
                        .any(|new| new.address == held.address)
            });
        }
        // Signed features are not overruled by unsigned or outdated ones.
        if standing == Standing::Newer || (standing == Standing::Unsigned && self.claim.is_none()) {
            self.features = incoming.features;
        }
        for new in &incoming.addresses {
            if standing == Standing::Older && !new.is_named() {
                continue;
            }
            match addresses
                .iter_mut()
                .find(|held| held.address == new.address)
            {
                Some(held) => held.merge(new),
                None => addresses.push(new.clone()),
            }
        }
        keep_best(&mut addresses, now);
        self.addresses = addresses.into();
        self.is_seed |= incoming.is_seed;
        if incoming.proven && incoming.source != NetGroup::Unknown {
            self.source = incoming.source;
        }
        self.proven |= incoming.proven;
        self.agent = match (self.agent.take(), &incoming.agent) {
            (Some(held), Some(new)) => Some(held.merged(new)),
            (held, new) => held.or_else(|| new.clone()),
        };
        self.added_at = self.added_at.min(incoming.added_at);
        self.last_seen = self.last_seen.max(incoming.last_seen);
        self.deleted_at = Moment::NEVER;
    }

    /// An authenticated connection with this address.
    pub(crate) fn seen_at(&mut self, address: &Address, now: UnixSeconds, times: DialTimes) {
        self.proven = true;
        self.last_seen = self.last_seen.max(now.into());
        self.deleted_at = Moment::NEVER;
        if let Some(held) = self
            .addresses
            .iter_mut()
            .find(|held| held.address == *address)
        {
            held.seen(now, times);
        }
    }

    /// A dial of this address that came to nothing.
    pub(crate) fn failed_at(&mut self, address: &Address, now: UnixSeconds, reason: &str) {
        if let Some(held) = self
            .addresses
            .iter_mut()
            .find(|held| held.address == *address)
        {
            held.failed(now, reason);
        }
    }
}

fn keep_best(addresses: &mut Vec<AddressRecord>, now: UnixSeconds) {
    if addresses.len() > MAX_ADDRESSES {
        // One not tried yet before one that failed: of addresses that worked long ago there may be many.
        addresses.sort_by_key(|held| (held.has_failed(), Reverse(held.quality(now).unwrap_or(0))));
        addresses.truncate(MAX_ADDRESSES);
    }
}

impl fmt::Debug for PeerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRecord")
            .field("node_id", &self.node_id)
            .field("public_key", &self.public_key)
            .field("features", &self.features)
            .field(
                "addresses",
                &self
                    .addresses
                    .iter()
                    .map(|a| &a.address)
                    .collect::<Vec<_>>(),
            )
            .field("ban", &self.ban)
            .field("last_seen", &self.last_seen())
            .finish_non_exhaustive()
    }
}

/// How an incoming claim stands to the one held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unsigned,
    Older,
    Same,
    Newer,
}

#[cfg(test)]
mod tests;
