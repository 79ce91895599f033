//! Order of the nodes that a probe visits: each once, in the order in which it became known. Performs no I/O.

use std::collections::HashMap;

use dht_core::{PeerAddress, PublicKey};
use dht_overlay::sync::AnnouncedPeer;
use dht_transport::DialError;

use super::{ProbeProgress, ProbeReport, ProbeVisit, ProbedPeer, ReachedPeer};

/// A probe so far.
pub(super) struct Crawl {
    me: PublicKey,
    peers: Vec<ProbedPeer>,
    /// Where each node is in the list.
    places: HashMap<PublicKey, usize>,
    /// First place in the list that is not visited.
    next: usize,
    /// Most nodes of the list.
    most: usize,
    is_complete: bool,
    visited: usize,
    reached: usize,
}

impl Crawl {
    pub(super) fn new(me: PublicKey, seeds: &[PeerAddress], most: usize) -> Self {
        let mut crawl = Self {
            me,
            peers: Vec::new(),
            places: HashMap::new(),
            next: 0,
            most,
            is_complete: true,
            visited: 0,
            reached: 0,
        };
        for seed in seeds {
            crawl.add(seed.clone());
        }
        crawl
    }

    /// The next node to visit, with its place.
    pub(super) fn next(&mut self) -> Option<(usize, PeerAddress)> {
        let (place, peer) = (self.next, self.peers.get(self.next)?);
        self.next += 1;
        let peer = PeerAddress {
            public_key: peer.public_key,
            addresses: peer.addresses.clone(),
        };
        Some((place, peer))
    }

    /// The node at this place answered and told of others, of which `valid` tells those that are what they seem.
    pub(super) fn reached(
        &mut self,
        place: usize,
        mut reached: ReachedPeer,
        told: Vec<AnnouncedPeer>,
        valid: impl Fn(AnnouncedPeer) -> Option<PeerAddress>,
    ) {
        for peer in told {
            // A claim that another node told of before costs no signature check.
            let known = self.places.get(&peer.public_key).copied();
            if let Some(known) = known.or_else(|| self.add(valid(peer)?))
                && known != place
                && !reached.tells_of.contains(&known)
            {
                reached.tells_of.push(known);
                if let Some(known) = self.peers.get_mut(known) {
                    known.told_by += 1;
                }
            }
        }
        self.reached += 1;
        self.set(place, ProbeVisit::Reached(reached));
    }

    /// The node at this place was not reached.
    pub(super) fn failed(&mut self, place: usize, error: DialError) {
        self.set(place, ProbeVisit::Failed(error));
    }

    pub(super) const fn progress(&self) -> ProbeProgress {
        ProbeProgress {
            known: self.peers.len(),
            visited: self.visited,
            reached: self.reached,
        }
    }

    pub(super) fn finish(self) -> ProbeReport {
        ProbeReport {
            peers: self.peers,
            is_complete: self.is_complete,
        }
    }

    fn set(&mut self, place: usize, visit: ProbeVisit) {
        self.visited += 1;
        if let Some(peer) = self.peers.get_mut(place) {
            peer.visit = visit;
        }
    }

    /// The place of a node; `None` for this one, and for one that there is no room for.
    fn add(&mut self, peer: PeerAddress) -> Option<usize> {
        if let Some(place) = self.places.get(&peer.public_key) {
            return Some(*place);
        }
        if peer.public_key == self.me {
            return None;
        }
        let place = self.peers.len();
        if place >= self.most {
            self.is_complete = false;
            return None;
        }
        self.places.insert(peer.public_key, place);
        self.peers.push(ProbedPeer {
            public_key: peer.public_key,
            addresses: peer.addresses,
            told_by: 0,
            visit: ProbeVisit::NotVisited,
        });
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dht_core::{Address, Features, UnixSeconds, test_util::public_key};

    use super::*;

    fn peer(seed: u64) -> PeerAddress {
        PeerAddress {
            public_key: public_key(seed),
            addresses: vec![Address::memory(seed)],
        }
    }

    fn told(seeds: impl IntoIterator<Item = u64>) -> Vec<AnnouncedPeer> {
        let seeds = seeds.into_iter();
        let told = seeds.map(|seed| AnnouncedPeer {
            public_key: public_key(seed),
            claims: Vec::new(),
            is_complete: true,
        });
        told.collect()
    }

    /// All but the node 7, which others made up.
    fn valid(peer: AnnouncedPeer) -> Option<PeerAddress> {
        let seed = (0..30).find(|seed| public_key(*seed) == peer.public_key)?;
        (seed != 7).then(|| self::peer(seed))
    }

    fn reached() -> ReachedPeer {
        ReachedPeer {
            user_agent: "test".into(),
            features: Features::NODE,
            claimed_at: UnixSeconds(1),
            dial_time: Duration::ZERO,
            tells_of: Vec::new(),
            failure: None,
        }
    }

    /// Every node is visited once, however many tell of it; this node, and a node to itself, is no news.
    #[test]
    fn nodes_are_visited_once() {
        let mut crawl = Crawl::new(public_key(0), &[peer(1), peer(1)], 10);
        let graph = |seed| match seed {
            1 => vec![2, 3, 0, 1, 7],
            2 => vec![1, 3, 3],
            _ => vec![],
        };
        let mut visited = Vec::new();
        while let Some((place, next)) = crawl.next() {
            let seed = (1..9)
                .find(|seed| public_key(*seed) == next.public_key)
                .unwrap();
            visited.push(seed);
            match seed {
                3 => crawl.failed(place, DialError::NoAddresses),
                _ => crawl.reached(place, reached(), told(graph(seed)), valid),
            }
        }
        assert_eq!(visited, [1, 2, 3]);
        let progress = crawl.progress();
        assert_eq!(
            (progress.known, progress.visited, progress.reached),
            (3, 3, 2)
        );
        let report = crawl.finish();
        assert!(report.is_complete);
        let told: Vec<_> = report.peers.iter().map(|peer| peer.told_by).collect();
        assert_eq!(told, [1, 1, 2]);
        let tells_of = |place: usize| match &report.peers[place].visit {
            ProbeVisit::Reached(reached) => reached.tells_of.clone(),
            _ => Vec::new(),
        };
        assert_eq!((tells_of(0), tells_of(1)), (vec![1, 2], vec![0, 2]));
        assert!(matches!(report.peers[2].visit, ProbeVisit::Failed(_)));
    }

    /// A node that tells of ever more nodes takes no more than the room that there is.
    #[test]
    fn crawls_are_bounded() {
        let mut crawl = Crawl::new(public_key(0), &[peer(1)], 5);
        let (place, _) = crawl.next().unwrap();
        crawl.reached(place, reached(), told(1..30), valid);
        assert_eq!(crawl.progress().known, 5);
        assert!(!crawl.finish().is_complete);
    }
}
