//! Whether the nodes closest to this one are closer than those of others are to them: keys made for this place look so.

use std::collections::BTreeMap;

use dht_core::{Distance, NodeId};
use dht_peers::PeerFilter;

use crate::view::View;

/// Nodes whose spread is compared.
pub(crate) const AROUND: usize = 20;
/// Others whose surroundings must be known.
const MIN_SAMPLES: usize = 5;
/// Others that are remembered.
const MAX_SAMPLES: usize = 64;
/// How much closer the own ones may be. In a network of chance keys the distance of the 20th node varies by a quarter, and a
/// fourth of the median comes about once in a million.
const SUSPICIOUS: u128 = 4;

/// How far the closest nodes of others are from these, as they themselves tell.
#[derive(Debug, Default)]
pub struct Density(BTreeMap<NodeId, u128>);

impl Density {
    /// The node `of` told of the nodes closest to it, `farthest` the last of twenty.
    pub fn add(&mut self, of: NodeId, farthest: Distance) {
        if self.0.len() < MAX_SAMPLES || self.0.contains_key(&of) {
            self.0.insert(of, value(farthest));
        }
    }

    /// By what factor the twenty nodes closest to this one are closer than those of others are to them, if that is beyond
    /// chance: somebody may have made keys to surround this node.
    #[must_use]
    pub fn suspicion(&self, view: &View<'_>) -> Option<u64> {
        if self.0.len() < MIN_SAMPLES {
            return None;
        }
        let mut samples: Vec<_> = self.0.values().copied().collect();
        samples.sort_unstable();
        let median = *samples.get(samples.len() / 2)?;
        let closest = view.closest(AROUND, None, PeerFilter::everybody(view.now), |_| true);
        let farthest = closest.get(AROUND - 1)?;
        let own = value(view.directory.me().distance(farthest.node_id())).max(1);
        let factor = median / own;
        (factor >= SUSPICIOUS).then(|| u64::try_from(factor).unwrap_or(u64::MAX))
    }
}

fn value(distance: Distance) -> u128 {
    u128::from_be_bytes(distance.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::Net;

    /// A network of chance keys, and what each node would tell of its surroundings.
    fn measured(net: &Net, nodes: u64) -> Density {
        let ids: Vec<_> = (1..=nodes).map(|seed| net.id(seed)).collect();
        let mut density = Density::default();
        for id in ids.iter().take(30) {
            let others = ids.iter().filter(|other| *other != id);
            let mut distances: Vec<_> = others.map(|other| id.distance(other)).collect();
            distances.sort_unstable();
            density.add(*id, distances[AROUND - 1]);
        }
        density
    }

    #[test]
    fn keys_made_nearby_are_suspicious() {
        let net = Net::new();
        for seed in 1..=200 {
            net.know(seed);
        }
        let density = measured(&net, 200);
        assert_eq!(density.suspicion(&net.view()), None);
        for n in 0..64 {
            net.know_near(n);
        }
        assert!(density.suspicion(&net.view()).is_some());
        assert_eq!(Density::default().suspicion(&net.view()), None);
    }
}
