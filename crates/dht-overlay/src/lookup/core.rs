//! Choice of the node that a lookup asks next, and of its end. No I/O, no clock.

use std::collections::{BTreeMap, HashMap};

use dht_core::{Distance, NodeId};
use dht_peers::NetGroup;
use tokio::time::Instant;

use super::LookupConfig;

/// A node that may be asked, as far as a lookup needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Node id of the node.
    pub id: NodeId,
    /// Network of the address at which it would be dialled; [`NetGroup::Unknown`] counts for no network.
    pub network: NetGroup,
}

/// A search for the nodes closest to an id: each node that is asked tells of closer ones. Kademlia's lookup over disjoint
/// paths, after S/Kademlia: no node is asked on two paths, so that a path on which everybody lies ends none of the others.
///
/// The caller asks whom [`next`](Self::next) names and reports what came of it; when `next` names nobody and nobody is being
/// asked, the lookup is over.
#[derive(Debug)]
pub struct Lookup {
    target: NodeId,
    config: LookupConfig,
    paths: Vec<Path>,
    /// Every node that was named by [`Lookup::next`].
    asked: HashMap<NodeId, Query>,
}

/// One of the disjoint paths.
#[derive(Debug, Default)]
struct Path {
    /// Nodes that this path knows, nearest to the target first.
    known: BTreeMap<Distance, Known>,
    /// Number of nodes that were asked in each network.
    networks: HashMap<NetGroup, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    candidate: Candidate,
    /// Answers on the way from this node's own directory to the candidate.
    hops: usize,
}

#[derive(Clone, Copy, Debug)]
struct Query {
    path: usize,
    hops: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Being asked since then.
    Asked(Instant),
    Answered,
    Failed,
}

impl Lookup {
    /// A lookup that begins at these nodes, which it deals to its paths, the nearest first.
    pub fn new(
        target: NodeId,
        config: LookupConfig,
        starts: impl IntoIterator<Item = Candidate>,
    ) -> Self {
        let mut lookup = Self {
            target,
            config,
            paths: (0..config.paths.max(1)).map(|_| Path::default()).collect(),
            asked: HashMap::new(),
        };
        let mut starts: Vec<_> = starts.into_iter().collect();
        starts.sort_by_key(|start| target.distance(&start.id));
        starts.dedup_by_key(|start| start.id);
        let paths = lookup.paths.len();
        for (at, start) in starts.into_iter().enumerate() {
            lookup.learn(at % paths, start, 0);
        }
        lookup
    }

    /// The id whose closest nodes are sought.
    #[must_use]
    pub const fn target(&self) -> &NodeId {
        &self.target
    }

    /// The next node to ask; `None` while enough are being asked, and when nobody is left to ask.
    pub fn next(&mut self, now: Instant) -> Option<NodeId> {
        let all = self.asked_now().count();
        let is_full = all >= self.config.alpha.saturating_mul(MOST_AT_ONCE);
        if is_full || self.asked.len() >= self.config.max_queries {
            return None;
        }
        let mut busy = vec![0_usize; self.paths.len()];
        for query in self.asked_now().filter(|query| !self.is_slow(query, now)) {
            if let Some(busy) = busy.get_mut(query.path) {
                *busy = busy.saturating_add(1);
            }
        }
        if busy.iter().sum::<usize>() >= self.config.alpha {
            return None;
        }
        // The path that waits for the fewest.
        let mut order: Vec<_> = (0..self.paths.len()).collect();
        order.sort_by_key(|path| busy.get(*path).copied());
        let (path, Known { candidate, hops }) = order
            .into_iter()
            .find_map(|path| Some((path, self.next_of(path, now)?)))?;
        let query = Query {
            path,
            hops,
            state: State::Asked(now),
        };
        self.asked.insert(candidate.id, query);
        let networks = &mut self.paths.get_mut(path)?.networks;
        let count = networks.entry(candidate.network).or_default();
        *count = count.saturating_add(1);
        Some(candidate.id)
    }

    /// The nearest node of a path that may be asked, unless the nodes nearest to the target have been asked.
    fn next_of(&self, path: usize, now: Instant) -> Option<Known> {
        let wanted = self.config.k.div_ceil(self.paths.len());
        let Path { known, networks } = self.paths.get(path)?;
        let mut live = 0_usize;
        for known in known.values() {
            let candidate = known.candidate;
            match self.asked.get(&candidate.id) {
                // A node of another path, or one that is gone.
                Some(query) if query.path != path || query.state == State::Failed => {}
                // Probably gone.
                Some(query) if self.is_slow(query, now) => {}
                Some(_) => live = live.saturating_add(1),
                None if live >= wanted => return None,
                None => {
                    let in_network = networks.get(&candidate.network).copied().unwrap_or(0);
                    let is_diverse = candidate.network == NetGroup::Unknown
                        || in_network < self.config.max_per_network;
                    if is_diverse || candidate.id == self.target {
                        return Some(*known);
                    }
                }
            }
        }
        None
    }

    /// The node `from` answered with these, of which the nearest [`k`](LookupConfig::k) count.
    pub fn answered(&mut self, from: &NodeId, closer: impl IntoIterator<Item = Candidate>) {
        let Some(query) = self.asked.get_mut(from) else {
            return;
        };
        query.state = State::Answered;
        let (path, hops) = (query.path, query.hops.saturating_add(1));
        if hops > self.config.max_hops {
            return;
        }
        let mut closer: Vec<_> = closer.into_iter().collect();
        closer.sort_by_key(|told| self.target.distance(&told.id));
        for told in closer.into_iter().take(self.config.k) {
            self.learn(path, told, hops);
        }
    }

    /// The node could not be reached, or did not answer as it should.
    pub fn failed(&mut self, from: &NodeId) {
        if let Some(query) = self.asked.get_mut(from) {
            query.state = State::Failed;
        }
    }

    /// A failed node may be asked again: there is news of it.
    pub fn renew(&mut self, id: &NodeId) {
        let has_failed = |query: &Query| query.state == State::Failed;
        if self.asked.get(id).is_some_and(has_failed) {
            self.asked.remove(id);
        }
    }

    /// When another node may be asked although nobody answers, if one may.
    #[must_use]
    pub fn next_slow(&self, now: Instant) -> Option<Instant> {
        let slow = self.asked_now().filter_map(|query| self.slow_at(query));
        slow.filter(|at| *at > now).min()
    }

    /// Number of nodes that were asked.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.asked.len()
    }

    /// The nodes that answered, nearest to the target first, at most [`k`](LookupConfig::k).
    #[must_use]
    pub fn closest(&self) -> Vec<NodeId> {
        let answered = self.asked.iter();
        let answered = answered.filter(|(_, query)| query.state == State::Answered);
        let mut closest: Vec<_> = answered.map(|(id, _)| *id).collect();
        closest.sort_by_key(|id| self.target.distance(id));
        closest.truncate(self.config.k);
        closest
    }

    fn asked_now(&self) -> impl Iterator<Item = &Query> {
        let all = self.asked.values();
        all.filter(|query| matches!(query.state, State::Asked(_)))
    }

    fn is_slow(&self, query: &Query, now: Instant) -> bool {
        self.slow_at(query).is_some_and(|at| at <= now)
    }

    /// When a node that is being asked counts as slow.
    fn slow_at(&self, query: &Query) -> Option<Instant> {
        match query.state {
            State::Asked(since) => Some(since + self.config.slow),
            State::Answered | State::Failed => None,
        }
    }

    fn learn(&mut self, path: usize, candidate: Candidate, hops: usize) {
        let distance = self.target.distance(&candidate.id);
        let Some(Path { known, .. }) = self.paths.get_mut(path) else {
            return;
        };
        // The first that tells of a node counts: a later one cannot move it to another network.
        known.entry(distance).or_insert(Known { candidate, hops });
        // Bounded, and the nearest stay: who tells of many has room for no more than these.
        while known.len() > self.config.k.saturating_mul(KNOWN_FACTOR) {
            known.pop_last();
        }
    }
}

/// Queries under way, slow ones included, as a multiple of alpha.
const MOST_AT_ONCE: usize = 4;

/// Nodes that a path knows of at most, as a multiple of k.
const KNOWN_FACTOR: usize = 8;

#[cfg(test)]
mod tests;
