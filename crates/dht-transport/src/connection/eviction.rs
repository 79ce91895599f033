//! Which connection makes room when all slots are taken.
//!
//! The protections are those of Bitcoin Core's node eviction. A stranger passes each of them with something else: an
//! address in a source group that a secret key ranks first, a short round trip, messages that this node had not seen, age. Of
//! the rest, the source group with most peers loses its youngest connection. Peers count, not connections: who has a second
//! one, because both sides dialled, is not first to lose one.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use dht_core::{NodeId, SourceGroup};
use tokio::time::Instant;

/// How many connections each protection keeps from being closed for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protections {
    /// Oldest connections of their source group, in the groups that a secret key ranks first.
    groups: usize,
    /// Connections with the shortest round trip.
    fast: usize,
    /// Connections that sent a useful message most recently.
    useful: usize,
}

/// A connection that may be closed for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<T> {
    /// The connection.
    pub(crate) connection: T,
    /// Peer at the other end, which may have two.
    pub(crate) peer: NodeId,
    /// Source group that it counts for; `None` for trusted private ranges, which are taken for one group.
    pub(crate) group: Option<SourceGroup>,
    /// Hash of the group under a key that only this node knows.
    pub(crate) rank: u64,
    /// When the connection began.
    pub(crate) since: Instant,
    /// Time the peer took to answer in the handshake.
    pub(crate) round_trip: Duration,
    /// When the peer last sent a message that this node could use.
    pub(crate) useful: Option<Instant>,
}

impl Protections {
    /// The protections of a node with at most `connections`: 8 groups, 8 fast and 16 useful ones, or half of all connections if that is
    /// less, so that a small node makes room too.
    pub(crate) const fn of(connections: usize) -> Self {
        const MOST: usize = 8;
        let eighth = if connections < 8 * MOST {
            connections / 8
        } else {
            MOST
        };
        Self {
            groups: eighth,
            fast: eighth,
            useful: 2 * eighth,
        }
    }

    /// Connections that are kept at most; one more must be there for one to be closed.
    pub(crate) const fn total(self) -> usize {
        self.groups + self.fast + self.useful
    }
}

/// The least useful connection of those that are not protected: the youngest of the group that has most peers.
///
/// Kept are those that the [`Protections`] name, and of the others the older half.
pub(crate) fn victim<T>(mut candidates: Vec<Candidate<T>>, protections: Protections) -> Option<T> {
    protect_groups(&mut candidates, protections.groups);
    protect(&mut candidates, protections.fast, |peer| peer.round_trip);
    // Those that were never of use are last, and not protected.
    let useful = candidates.iter().filter(|peer| peer.useful.is_some());
    let useful = useful.count().min(protections.useful);
    protect(&mut candidates, useful, |peer| Reverse(peer.useful));
    let older_half = candidates.len() / 2;
    protect(&mut candidates, older_half, |peer| peer.since);

    let mut groups = HashMap::<_, (HashSet<NodeId>, Instant)>::new();
    for candidate in &candidates {
        let group = groups.entry(candidate.group);
        let (peers, youngest) = group.or_insert_with(|| (HashSet::new(), candidate.since));
        peers.insert(candidate.peer);
        *youngest = (*youngest).max(candidate.since);
    }
    let (group, _) = groups
        .into_iter()
        .max_by_key(|(group, (peers, youngest))| (peers.len(), *youngest, *group))?;
    let of_group = candidates.into_iter().filter(|peer| peer.group == group);
    of_group
        .max_by_key(|peer| peer.since)
        .map(|peer| peer.connection)
}

/// Takes the oldest connection of each of the first `count` groups out of the candidates.
fn protect_groups<T>(candidates: &mut Vec<Candidate<T>>, count: usize) {
    candidates.sort_by_key(|peer| (peer.rank, peer.group, peer.since));
    let (mut groups, mut last) = (0, None);
    candidates.retain(|peer| {
        let is_first = last != Some(peer.group);
        last = Some(peer.group);
        groups += usize::from(is_first);
        !is_first || groups > count
    });
}

/// Takes the first `count` by this key out of the candidates.
fn protect<T, K: Ord>(
    candidates: &mut Vec<Candidate<T>>,
    count: usize,
    key: impl FnMut(&Candidate<T>) -> K,
) {
    candidates.sort_by_key(key);
    candidates.drain(..count.min(candidates.len()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGE: Protections = Protections::of(512);

    fn group(third: u8) -> Option<SourceGroup> {
        Some(SourceGroup::of_ip([198, 51, third, 1].into()))
    }

    /// The connection `n`, `age` seconds old, of a source group.
    fn candidate(now: Instant, n: usize, third: u8, age: u64) -> Candidate<usize> {
        Candidate {
            connection: n,
            peer: peer(n),
            group: group(third),
            rank: u64::from(third),
            since: now - Duration::from_secs(age),
            round_trip: Duration::from_millis(100),
            useful: None,
        }
    }

    fn peer(n: usize) -> NodeId {
        let mut id = [0; NodeId::LENGTH];
        id[..8].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(&id).unwrap()
    }

    fn now() -> Instant {
        Instant::now() + Duration::from_secs(1_000_000)
    }

    #[test]
    fn few_connections_are_all_protected() {
        let now = now();
        assert_eq!(victim::<usize>(vec![], LARGE), None);
        let few = (0..8).map(|n| candidate(now, n, 1, n as u64));
        assert_eq!(victim(few.collect(), LARGE), None);
    }

    /// Strangers that hold all slots of a small node keep nobody out, and half of them are protected all the same.
    #[test]
    fn full_small_node_makes_room() {
        let now = now();
        for slots in 1..=33_u8 {
            let most = usize::from(slots);
            let protections = Protections::of(most);
            assert!(protections.total() <= most / 2, "{most}");
            let all = (0..slots).map(|n| candidate(now, n.into(), n, 60 + u64::from(n)));
            let gone = victim(all.collect(), protections);
            assert!(gone.is_some_and(|n| n <= most / 2), "{gone:?} of {most}");
        }
        assert_eq!((LARGE.total(), Protections::of(64)), (32, LARGE));
    }

    /// A source group that has most of the slots loses its youngest connection, not one of an old honest peer.
    #[test]
    fn fullest_group_loses_its_youngest() {
        let now = now();
        let mut all: Vec<_> = (0..100)
            .map(|n| candidate(now, n, 200, 60 + n as u64))
            .collect();
        all.extend((100..140u8).map(|n| candidate(now, n.into(), n, 3_600)));
        assert_eq!(victim(all, LARGE), Some(0));
    }

    /// The youngest of all stays if its round trip is short, it is useful, or alone in a group that the key prefers.
    #[test]
    fn fast_useful_and_diverse_stay() {
        let now = now();
        let crowd = || (1..200).map(|n| candidate(now, n, 200, 60 + n as u64));
        let youngest = candidate(now, 0, 200, 1);
        let with = |peer: Candidate<usize>| victim(crowd().chain([peer]).collect(), LARGE);
        assert_eq!(with(youngest), Some(0));
        let fast = Candidate {
            round_trip: Duration::from_millis(1),
            ..youngest
        };
        let useful = Candidate {
            useful: Some(now),
            ..youngest
        };
        let alone = Candidate {
            group: group(1),
            rank: 0,
            ..youngest
        };
        for kept in [fast, useful, alone] {
            assert_ne!(with(kept), Some(0), "{kept:?}");
        }
    }

    /// Where each source group has one peer, the youngest connection makes room, not that of a peer which has two.
    #[test]
    fn second_connection_makes_no_group_busy() {
        let now = now();
        let mut all: Vec<_> = (0..100)
            .map(|n| candidate(now, n.into(), n, 3_600 + u64::from(n)))
            .collect();
        // Both of one peer; neither is the youngest.
        for n in [200, 201] {
            all.push(Candidate {
                peer: peer(50),
                ..candidate(now, n, 50, 60)
            });
        }
        all.push(candidate(now, 300, 150, 1));
        assert_eq!(victim(all, LARGE), Some(300));
    }

    proptest! {
        /// Whatever strangers from few networks present, peers of many networks that were here first and are useful
        /// keep their slots.
        #[test]
        fn useful_old_peers_outlast_strangers(
            strangers in prop::collection::vec((0u8..3, 0u64..500, 0u64..200, any::<bool>(), any::<u64>()), 60..200),
        ) {
            let now = now();
            let honest = (0..16u8).map(|n| Candidate {
                useful: Some(now),
                ..candidate(now, n.into(), 100 + n, 1_000)
            });
            let mut all: Vec<_> = honest.collect();
            let mut ranks = [0; 3];
            for (third, age, trip, is_useful, rank) in strangers {
                let first = ranks.get_mut(usize::from(third)).unwrap();
                if *first == 0 {
                    *first = rank.max(1);
                }
                all.push(Candidate {
                    rank: *first,
                    round_trip: Duration::from_millis(trip),
                    useful: is_useful.then(|| now - Duration::from_secs(age + 1)),
                    ..candidate(now, all.len(), third, age)
                });
            }
            // Until the strangers are down to a number that the protections cover.
            while all.len() > 60 {
                let gone = victim(all.clone(), LARGE);
                prop_assert!(gone.is_some_and(|n| n >= 16), "an honest peer made room");
                all.retain(|peer| Some(peer.connection) != gone);
            }
        }
    }
}
