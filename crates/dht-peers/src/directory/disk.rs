//! Exchange of a [`Directory`] with those that keep it across restarts.

use std::sync::Arc;

use dht_core::{NodeId, UnixSeconds};

use super::{Directory, changed::Changed};
use crate::{ban::Ban, metrics, record::PeerRecord};

/// A directory as its file has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) peers: Vec<PeerRecord>,
    pub(crate) bans: Vec<Ban>,
    pub(crate) anchors: Vec<NodeId>,
    pub(crate) allowed: Vec<NodeId>,
    /// Whether the file has rows that are not among these.
    pub(crate) has_more: bool,
}

/// Rows of the file that are no longer true.
#[derive(Debug)]
pub(crate) struct Outdated {
    pub(crate) peers: Changed,
    pub(crate) bans: Changed,
}

/// Stored record of a peer. One that the operator named and that was never reached is heard of later, for a message may wait
/// for it that nothing else leads to; that it is the operator's say the settings, if they still do.
pub(crate) fn remembered(peer: Arc<PeerRecord>) -> Option<Arc<PeerRecord>> {
    if !peer.is_proven() || peer.last_seen().is_some() {
        return Some(peer);
    }
    let has_addresses = !peer.addresses().is_empty();
    has_addresses.then(|| Arc::new(Arc::unwrap_or_clone(peer).into_hearsay()))
}

impl Directory {
    /// Enters what the file has and begins to note what differs from it. Answers the number of peers.
    pub(crate) fn restore(&self, stored: Stored, now: UnixSeconds) -> usize {
        let mut state = self.0.state.write();
        let (peers, bans) = (stored.peers.len(), stored.bans.len());
        for peer in stored.peers {
            if peer.node_id != self.0.me {
                state.add_or_update(peer, now);
            }
        }
        for id in stored.allowed {
            // Of a longer list, which an earlier version kept, the first stay.
            if state.allow(id).is_err() {
                break;
            }
        }
        let bans_in_force = stored.bans.into_iter().filter(|ban| ban.is_active(now));
        let entered = bans_in_force.filter_map(|ban| state.ban(ban, now)).count();
        let changed = |is_same: bool| match is_same && !stored.has_more {
            true => Changed::Ids(Default::default()),
            false => Changed::All,
        };
        let restored = state.len();
        let outdated = Outdated {
            peers: changed(restored == peers),
            bans: changed(entered == bans),
        };
        state.set_outdated(outdated);
        metrics::known(state.table_len(true), state.table_len(false));
        drop(state);
        *self.0.anchors.lock() = stored.anchors;
        restored
    }

    /// Rows that differ from the file; from now on none does.
    #[cfg(feature = "redb")]
    pub(crate) fn take_outdated(&self) -> Outdated {
        self.0.state.write().take_outdated()
    }

    /// Nothing in the file is known to be true.
    #[cfg(feature = "redb")]
    pub(crate) fn outdate(&self) {
        let outdated = Outdated {
            peers: Changed::All,
            bans: Changed::All,
        };
        self.0.state.write().set_outdated(outdated);
    }

    /// All node ids in order.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        let mut ids = self.0.state.read().ids();
        ids.sort_unstable();
        ids
    }

    /// The peers with these ids, as many as there are ids.
    pub(crate) fn find_all(&self, ids: &[NodeId]) -> Vec<Option<Arc<PeerRecord>>> {
        let state = self.0.state.read();
        ids.iter()
            .map(|id| state.find(id).map(Arc::clone))
            .collect()
    }

    /// The node ids of all bans in order.
    pub(crate) fn ban_ids(&self) -> Vec<NodeId> {
        self.0.state.read().bans().ids()
    }

    /// The ban of this peer, which may have lapsed.
    pub(crate) fn ban_of(&self, id: &NodeId) -> Option<Arc<Ban>> {
        self.0.state.read().bans().find(id).map(Arc::clone)
    }

    pub(crate) fn anchor_ids(&self) -> Vec<NodeId> {
        self.0.anchors.lock().clone()
    }
}
