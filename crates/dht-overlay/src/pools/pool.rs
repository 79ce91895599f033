//! A bounded set of peers, nearest first.

use dht_core::{Distance, NodeId};
use dht_peers::NetGroup;
use tokio::time::Instant;

/// A peer of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Node id of the peer.
    pub id: NodeId,
    /// Distance from this node.
    pub distance: Distance,
    /// Network that it counts for; `None` if it counts for none.
    pub network: Option<NetGroup>,
    /// When it connected; `None` while it is being dialled.
    pub since: Option<Instant>,
}

/// At most so many peers, nearest first.
#[derive(Clone, Debug)]
pub struct Pool {
    size: usize,
    members: Vec<Member>,
}

impl Pool {
    /// An empty pool of this size.
    #[must_use]
    pub const fn new(size: usize) -> Self {
        Self {
            size,
            members: Vec::new(),
        }
    }

    /// Enters a peer before the first that is farther. Of a pool that is then too long the farthest is taken out, which may be
    /// the one just entered. A peer that is there stays as it is.
    pub fn insert(&mut self, member: Member) -> Option<Member> {
        if self.contains(&member.id) {
            return None;
        }
        let before = |other: &Member| other.distance <= member.distance;
        let at = self.members.partition_point(before);
        self.members.insert(at, member);
        if self.members.len() > self.size {
            return self.members.pop();
        }
        None
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: &NodeId) -> Option<Member> {
        let at = self.members.iter().position(|member| member.id == *id)?;
        Some(self.members.remove(at))
    }

    /// The peers, nearest first.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether a peer is in the pool.
    #[must_use]
    pub fn contains(&self, id: &NodeId) -> bool {
        self.members.iter().any(|member| member.id == *id)
    }

    /// Peers that are missing.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.size.saturating_sub(self.members.len())
    }

    /// Peers that are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        let connected = self.members.iter().filter(|member| member.since.is_some());
        connected.count()
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn find_mut(&mut self, id: &NodeId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == *id)
    }

    /// Number of peers of this network.
    pub(crate) fn of_network(&self, network: NetGroup) -> usize {
        let same = |member: &&Member| member.network == Some(network);
        self.members.iter().filter(same).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(byte: u8) -> Member {
        let id = NodeId::from_bytes(&[byte; 13]).unwrap();
        Member {
            id,
            distance: NodeId::default().distance(&id),
            network: None,
            since: None,
        }
    }

    fn bytes(pool: &Pool) -> Vec<u8> {
        let ids = pool.members().iter().map(|member| member.id.as_bytes()[0]);
        ids.collect()
    }

    #[test]
    fn dp44_pool_keeps_the_nearest() {
        let mut pool = Pool::new(8);
        let shuffled = [7, 2, 9, 1, 10, 4, 8, 3, 6, 5];
        let out: Vec<_> = shuffled
            .map(|byte| pool.insert(member(byte)).map(|out| out.id.as_bytes()[0]))
            .into();
        let none = [None; 8].into_iter();
        let expected: Vec<_> = none.chain([Some(10), Some(9)]).collect();
        assert_eq!(out, expected);
        assert_eq!(bytes(&pool), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    proptest! {
        /// A pool is the sorted list of what was put in, cut to its size.
        #[test]
        fn pool_is_a_sorted_list(steps in prop::collection::vec((any::<bool>(), any::<u8>()), 0..60)) {
            let mut pool = Pool::new(5);
            let mut model: Vec<u8> = Vec::new();
            for (insert, byte) in steps {
                if insert {
                    let out = pool.insert(member(byte));
                    if !model.contains(&byte) {
                        model.push(byte);
                        model.sort_unstable();
                        let cut = (model.len() > 5).then(|| model.pop()).flatten();
                        prop_assert_eq!(out.map(|out| out.id.as_bytes()[0]), cut);
                    }
                } else {
                    let had = pool.remove(&member(byte).id).is_some();
                    prop_assert_eq!(had, model.contains(&byte));
                    model.retain(|kept| *kept != byte);
                }
                prop_assert_eq!(bytes(&pool), model.clone());
                prop_assert_eq!(pool.room(), 5 - model.len());
            }
        }
    }
}
