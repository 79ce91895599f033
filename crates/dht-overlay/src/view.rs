//! Snapshot of a node that a core sees in one step.

use std::sync::Arc;

use dht_core::{Distance, Features, Host, NodeId, UnixSeconds};
use dht_peers::{ConnectedPeers, Directory, FeatureRule, NetGroup, PeerFilter, PeerRecord};
use rand_core::Rng;
use tokio::time::Instant;

/// Snapshot of a node that a core sees in one step: the directory, the connections, and the time. Cores read it and change nothing.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Peers that this node knows.
    pub directory: &'a Directory,
    /// Peers that are connected.
    pub connected: &'a ConnectedPeers,
    /// Present time of the timers.
    pub at: Instant,
    /// Present wall-clock time, by which the directory goes.
    pub now: UnixSeconds,
}

impl View<'_> {
    /// The nodes of `filter` closest to this one that may be dialled and that `accept` takes, nearest first, at most `n`, of those
    /// nearer than `within`.
    pub(crate) fn closest(
        &self,
        n: usize,
        within: Option<Distance>,
        filter: PeerFilter<'_>,
        mut accept: impl FnMut(&PeerRecord) -> bool,
    ) -> Vec<Arc<PeerRecord>> {
        let me = self.directory.me();
        let is_beyond = |record: &PeerRecord| {
            within.is_some_and(|within| me.distance(record.node_id()) >= within)
        };
        let filter = filter.features(FeatureRule::Exactly(Features::NODE));
        let mut found = Vec::new();
        let (mut looked, mut window) = (0, 4 * n.max(4));
        loop {
            let near = self.directory.closest(me, window, &filter);
            for record in near.iter().skip(looked) {
                if found.len() == n || is_beyond(record) {
                    return found;
                }
                if self.may_dial(record) && accept(record) {
                    found.push(Arc::clone(record));
                }
            }
            if near.len() < window || window > MAX_WINDOW {
                return found;
            }
            (looked, window) = (near.len(), window * 4);
        }
    }

    /// Up to `n` proven nodes at random that may be dialled, those first that are connected or answered when last dialled.
    pub(crate) fn random(
        &self,
        n: usize,
        exclude: &[NodeId],
        rng: &mut impl Rng,
    ) -> Vec<Arc<PeerRecord>> {
        let filter = PeerFilter::allowed(self.now)
            .features(FeatureRule::Exactly(Features::NODE))
            .exclude(exclude);
        let mut drawn = self.directory.random(4 * n, &filter, rng);
        let is_connected = |record: &PeerRecord| self.connected.contains(record.node_id());
        drawn.retain(|record| is_connected(record) || self.may_dial(record));
        drawn.sort_by_key(|record| record.is_offline() && !is_connected(record));
        drawn.truncate(n);
        drawn
    }

    /// Up to `n` nodes at random of which this node only heard.
    pub(crate) fn random_heard_of(
        &self,
        n: usize,
        exclude: &[NodeId],
        rng: &mut impl Rng,
    ) -> Vec<Arc<PeerRecord>> {
        let filter = PeerFilter::heard_of(self.now)
            .features(FeatureRule::Exactly(Features::NODE))
            .exclude(exclude);
        let mut drawn = self.directory.random(n, &filter, rng);
        drawn.retain(|record| self.may_dial(record));
        drawn
    }

    /// Whether a peer has an address and is neither banned, given up, nor one that the operator keeps to itself.
    pub(crate) fn may_dial(&self, record: &PeerRecord) -> bool {
        !record.addresses().is_empty()
            && record.deleted_at().is_none()
            && !record.is_banned(self.now)
            && !self.directory.is_allowed(record.node_id())
    }

    /// The network of a peer that limits go by; `None` if its peers are not counted: they are of one machine or house.
    pub(crate) fn network(&self, record: &PeerRecord) -> Option<NetGroup> {
        match record.network() {
            NetGroup::Memory if record.is_proven() => None,
            // A private one, too: it is not known for addresses that are trusted.
            group if record.is_proven() && group != NetGroup::Unknown => Some(group),
            _ => {
                let address = &record.dial_order(self.now).first()?.address;
                let is_counted = match address.host()? {
                    Host::Ip(..) => address.is_public(),
                    Host::Dns { .. } | Host::Onion3 { .. } => true,
                    Host::Memory(_) => false,
                };
                is_counted.then(|| NetGroup::of_address(address))
            }
        }
    }
}

/// Peers nearest to this node beyond which none is looked for.
const MAX_WINDOW: usize = 4_096;
