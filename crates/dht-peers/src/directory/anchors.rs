//! The peers that a restarted node tries first.

use std::{collections::HashSet, sync::Arc};

use dht_core::{NodeId, UnixSeconds};

use super::Directory;
use crate::{connections::Direction, record::PeerRecord};

/// Anchors of a directory: as many as a node has neighbours.
pub const MAX_ANCHORS: usize = 8;

impl Directory {
    /// The nodes that this node was last connected to by dials of its own, those that stayed longest first: what a restarted
    /// node tries first, since who fills its directory meanwhile has no part in the choice. At most [`MAX_ANCHORS`], without
    /// banned and deleted ones.
    #[must_use]
    pub fn anchors(&self, now: UnixSeconds) -> Vec<Arc<PeerRecord>> {
        let anchors = self.0.anchors.lock().clone();
        let known = anchors.iter().filter_map(|id| self.find(id));
        known
            .filter(|peer| peer.is_proven() && !peer.is_banned(now) && peer.deleted_at().is_none())
            .collect()
    }

    /// Whether this peer is one of the [`anchors`](Self::anchors).
    #[must_use]
    pub fn is_anchor(&self, id: &NodeId) -> bool {
        self.0.anchors.lock().contains(id)
    }

    /// Takes note of the connections there are now: a node that this node dialled becomes an anchor, one of each
    /// [network](crate::NetGroup) first. An anchor stays as long as it is connected, and until another takes its place:
    /// while this node is cut off, all do.
    pub fn update_anchors(&self) {
        let connected = self.connections().snapshot();
        let is_dialled = |id: &NodeId| {
            let entry = connected.find(id);
            entry.is_some_and(|entry| {
                entry.direction == Direction::Outbound && entry.peer.features.is_node()
            })
        };
        let before = self.0.anchors.lock().clone();
        let (stayed, lost): (Vec<_>, Vec<_>) = before.into_iter().partition(is_dialled);
        let news = connected.iter().map(|entry| entry.peer.node_id);
        let mut news: Vec<_> = news
            .filter(|id| is_dialled(id) && !stayed.contains(id))
            .filter_map(|id| self.find(&id))
            .collect();
        let networks = stayed.iter().filter_map(|id| self.find(id));
        let mut networks: HashSet<_> = networks.map(|peer| peer.network()).collect();
        news.sort_by_key(|peer| (peer.added_at(), *peer.node_id()));
        let (first, others): (Vec<_>, Vec<_>) = news
            .into_iter()
            .partition(|peer| networks.insert(peer.network()));
        let news = first.iter().chain(&others).map(|peer| *peer.node_id());
        let anchors = stayed.into_iter().chain(news).chain(lost);
        *self.0.anchors.lock() = anchors.take(MAX_ANCHORS).collect();
    }
}
