//! Which connection counts for each peer, and who wins when there are two.
//! docs/protocol/02-transport-and-connectivity.md section 9.5.

use std::{collections::BTreeMap, sync::Arc};

use dht_core::NodeId;
use dht_peers::Direction;
use parking_lot::Mutex;

use super::handle::Connection;

/// The connections of each peer. Bounded by the limits of admission.
#[derive(Debug)]
pub(crate) struct Table {
    own: NodeId,
    peers: Mutex<BTreeMap<NodeId, Entry>>,
}

/// The connections of one peer.
#[derive(Debug)]
struct Entry {
    /// The one that counts.
    current: Arc<Connection>,
    /// One that lost against it and has not ended: takes its place if it ends first.
    standby: Option<Arc<Connection>>,
}

/// Outcome of entering a new connection.
#[derive(Debug)]
pub(crate) struct Installed {
    /// The one that counts from now on.
    pub(crate) winner: Arc<Connection>,
    /// The other one, if the peer has two. Its end is not published.
    pub(crate) loser: Option<Arc<Connection>>,
    /// Whether the peer had no connection before.
    pub(crate) is_first: bool,
}

/// Outcome of taking a connection out.
#[derive(Debug)]
pub(crate) enum Removed {
    /// Another one counts.
    Uncounted,
    /// This one counts now.
    Reinstated(Arc<Connection>),
    /// The peer has no connection any more.
    Gone {
        /// No peer has.
        was_last: bool,
    },
}

/// Whether the new one of two connections to `peer` is kept.
///
/// Of two directions, the one dialled by the node with the smaller id survives; of two equal ones, the newer.
#[must_use]
pub fn new_connection_wins(
    existing: Direction,
    new: Direction,
    own: &NodeId,
    peer: &NodeId,
) -> bool {
    match (existing, new) {
        (Direction::Inbound, Direction::Inbound) | (Direction::Outbound, Direction::Outbound) => {
            true
        }
        (Direction::Inbound, Direction::Outbound) => peer > own,
        (Direction::Outbound, Direction::Inbound) => own > peer,
    }
}

impl Table {
    pub(crate) fn new(own: NodeId) -> Self {
        Self {
            own,
            peers: Mutex::default(),
        }
    }

    pub(crate) fn install(&self, new: &Arc<Connection>) -> Installed {
        let mut peers = self.peers.lock();
        let peer = new.node_id();
        let Some(entry) = peers.get_mut(peer) else {
            let entry = Entry {
                current: Arc::clone(new),
                standby: None,
            };
            peers.insert(*peer, entry);
            return Installed {
                winner: Arc::clone(new),
                loser: None,
                is_first: true,
            };
        };
        let existing = &entry.current;
        let wins = !existing.is_open()
            || new_connection_wins(existing.direction(), new.direction(), &self.own, peer);
        let loser = match wins {
            true => std::mem::replace(&mut entry.current, Arc::clone(new)),
            false => Arc::clone(new),
        };
        if let Some(earlier) = entry.standby.replace(Arc::clone(&loser)) {
            earlier.retire();
        }
        Installed {
            winner: Arc::clone(&entry.current),
            loser: Some(loser),
            is_first: false,
        }
    }

    /// Takes a connection out. If it counted, the peer's other one takes its place.
    pub(crate) fn remove(&self, connection: &Connection) -> Removed {
        let mut peers = self.peers.lock();
        let Some(entry) = peers.get_mut(connection.node_id()) else {
            return Removed::Uncounted;
        };
        let standby = &mut entry.standby;
        if standby
            .as_ref()
            .is_some_and(|held| held.id() == connection.id())
        {
            *standby = None;
        }
        if entry.current.id() != connection.id() {
            return Removed::Uncounted;
        }
        if let Some(other) = standby.take().filter(|other| other.is_open()) {
            other.reinstate();
            entry.current = Arc::clone(&other);
            return Removed::Reinstated(other);
        }
        peers.remove(connection.node_id());
        Removed::Gone {
            was_last: peers.is_empty(),
        }
    }

    /// Lets the standby go, if this connection counts.
    pub(crate) fn retire_standby(&self, current: &Connection) {
        let peers = self.peers.lock();
        let entry = peers.get(current.node_id());
        if let Some(entry) = entry.filter(|entry| entry.current.id() == current.id())
            && let Some(standby) = &entry.standby
        {
            standby.retire();
        }
    }

    /// Lets a standby count instead of the present connection, which is forgotten. False if it is none, or closed.
    pub(crate) fn take_over(&self, standby: &Arc<Connection>) -> bool {
        let mut peers = self.peers.lock();
        let entry = peers.get_mut(standby.node_id());
        let found = entry.filter(|entry| {
            let held = entry.standby.as_ref();
            standby.is_open() && held.is_some_and(|held| held.id() == standby.id())
        });
        found.is_some_and(|entry| {
            standby.reinstate();
            entry.current = Arc::clone(standby);
            entry.standby = None;
            true
        })
    }

    pub(crate) fn find(&self, peer: &NodeId) -> Option<Arc<Connection>> {
        let peers = self.peers.lock();
        let open = peers.get(peer)?.all().find(|held| held.is_open());
        open.cloned()
    }

    /// Every connection that counts, by node id.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        let peers = self.peers.lock();
        let all = peers.values().map(|entry| Arc::clone(&entry.current));
        all.collect()
    }

    /// Every connection, those that lost a tie-break and have not ended included, in no order.
    pub(crate) fn with_standbys(&self) -> Vec<Arc<Connection>> {
        let peers = self.peers.lock();
        peers.values().flat_map(Entry::all).cloned().collect()
    }

    /// Closes the connections of a peer on purpose; false if there is none.
    pub(crate) fn close(&self, peer: &NodeId) -> bool {
        let peers = self.peers.lock();
        let found = peers.get(peer);
        let open = found.is_some_and(|entry| entry.all().any(|held| held.is_open()));
        found.into_iter().for_each(Entry::close);
        open
    }

    /// Closes every connection on purpose.
    pub(crate) fn close_all(&self) {
        self.peers.lock().values().for_each(Entry::close);
    }

    /// Number of connections, standbys included.
    pub(crate) fn connections(&self) -> usize {
        let peers = self.peers.lock();
        let standbys = peers.values().filter(|entry| entry.standby.is_some());
        peers.len() + standbys.count()
    }

    /// Peers with a connection.
    pub(crate) fn len(&self) -> usize {
        self.peers.lock().len()
    }
}

impl Entry {
    fn all(&self) -> impl Iterator<Item = &Arc<Connection>> {
        std::iter::once(&self.current).chain(&self.standby)
    }

    fn close(&self) {
        self.all().for_each(|connection| connection.close(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8) -> NodeId {
        let mut bytes = [0; NodeId::LENGTH];
        bytes[0] = first;
        NodeId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn the_table_of_the_specification() {
        use Direction::{Inbound, Outbound};
        let (small, large) = (id(1), id(2));
        for (existing, new, own, peer, keep_new) in [
            (Inbound, Inbound, small, large, true),
            (Inbound, Inbound, large, small, true),
            (Outbound, Outbound, small, large, true),
            (Outbound, Outbound, large, small, true),
            (Inbound, Outbound, small, large, true),
            (Inbound, Outbound, large, small, false),
            (Outbound, Inbound, small, large, false),
            (Outbound, Inbound, large, small, true),
        ] {
            assert_eq!(
                new_connection_wins(existing, new, &own, &peer),
                keep_new,
                "{existing:?} {new:?} own {own} peer {peer}"
            );
        }
    }

    /// Both sides keep the same connection, whatever the order in which they see the two.
    #[test]
    fn tie_break_agrees_in_every_order() {
        use Direction::{Inbound, Outbound};
        let (small, large) = (id(1), id(2));
        // True: the connection that the smaller id dialled is kept.
        let kept = |own: &NodeId, peer: &NodeId, first: Direction, second: Direction| {
            let winner = if new_connection_wins(first, second, own, peer) {
                second
            } else {
                first
            };
            (winner == Outbound) == (own == &small)
        };
        for (first, second) in [(Inbound, Outbound), (Outbound, Inbound)] {
            assert!(kept(&small, &large, first, second));
            assert!(kept(&large, &small, first, second));
        }
    }
}
