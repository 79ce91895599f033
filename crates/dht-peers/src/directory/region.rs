//! The cached size of this node's neighbourhood.

use std::collections::BTreeSet;

use dht_core::{Distance, Features, NodeId, UnixSeconds};
use parking_lot::RwLock;

use super::index::Index;
use crate::{
    filter::{FeatureRule, PeerFilter},
    group::NetGroup,
};

/// How far this node's neighbourhood reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionThresholds {
    /// Distance to the n-th nearest node, or [`Distance::MAX`]. Of the nodes that authenticated themselves from one
    /// [group](crate::NetGroup), the nearest counts.
    pub nodes: Distance,
    /// Distance to the n-th nearest client, or [`Distance::MAX`].
    pub clients: Distance,
}

/// The last answer and how long it holds. One size is asked for again and again.
#[derive(Debug, Default)]
pub(super) struct Region {
    cached: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    n: usize,
    generation: u64,
    /// From when, to when, the end excluded: then a ban lapses and a nearer peer counts again.
    valid: (UnixSeconds, UnixSeconds),
    thresholds: RegionThresholds,
}

impl Region {
    pub(super) fn thresholds(
        &mut self,
        n: usize,
        now: UnixSeconds,
        me: &NodeId,
        state: &RwLock<Index>,
    ) -> RegionThresholds {
        let state = state.read();
        if let Some(cached) = &self.cached
            && cached.n == n
            && cached.generation == state.generation()
            && (cached.valid.0..cached.valid.1).contains(&now)
        {
            return cached.thresholds;
        }
        let nth = |features| match n.checked_sub(1) {
            None => Distance::MAX,
            Some(last) => {
                let filter = PeerFilter::reachable(now).features(FeatureRule::Exactly(features));
                // Keys are free: those of one source group count as one peer.
                let mut sources = BTreeSet::new();
                state
                    .closest(me, &filter)
                    .filter(|(_, peer)| {
                        peer.source == NetGroup::Unknown || sources.insert(peer.source)
                    })
                    .nth(last)
                    .map_or(Distance::MAX, |(_, peer)| me.distance(peer.node_id()))
            }
        };
        let thresholds = RegionThresholds {
            nodes: nth(Features::NODE),
            clients: nth(Features::CLIENT),
        };
        self.cached = Some(Cached {
            n,
            generation: state.generation(),
            valid: (now, state.bans().next_end(now)),
            thresholds,
        });
        thresholds
    }
}
