//! Which connection counts for each peer, and who wins when there are two.
//! docs/protocol/02-transport-and-connectivity.md section 9.5.

use std::{collections::HashMap, sync::Arc};

use dht_core::NodeId;
use dht_peers::Direction;
use parking_lot::Mutex;

use super::handle::Connection;

/// The live connection of each peer. Bounded by the limits of admission.
#[derive(Debug)]
pub(crate) struct Table {
    own: NodeId,
    live: Mutex<HashMap<NodeId, Arc<Connection>>>,
}

/// Outcome of entering a new connection.
#[derive(Debug)]
pub(crate) enum Installed {
    /// It is the peer's only one.
    First,
    /// It took over from this one, whose end is not published.
    Replaced(Arc<Connection>),
    /// This one stays.
    Lost(Arc<Connection>),
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
            live: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn install(&self, new: &Arc<Connection>) -> Installed {
        let mut live = self.live.lock();
        let peer = new.node_id();
        if let Some(existing) = live.get(peer).filter(|existing| existing.is_open())
            && !new_connection_wins(existing.direction(), new.direction(), &self.own, peer)
        {
            return Installed::Lost(Arc::clone(existing));
        }
        match live.insert(*peer, Arc::clone(new)) {
            Some(old) => Installed::Replaced(old),
            None => Installed::First,
        }
    }

    /// Takes a connection out if it still counts. Returns whether it did, and whether it was the last.
    pub(crate) fn remove(&self, connection: &Connection) -> Option<IsLast> {
        let mut live = self.live.lock();
        let current = live.get(connection.node_id())?;
        if current.id() != connection.id() {
            return None;
        }
        live.remove(connection.node_id());
        Some(IsLast(live.is_empty()))
    }

    pub(crate) fn find(&self, peer: &NodeId) -> Option<Arc<Connection>> {
        self.live
            .lock()
            .get(peer)
            .filter(|connection| connection.is_open())
            .cloned()
    }

    /// Every live connection, by node id.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<_> = self.live.lock().values().cloned().collect();
        all.sort_unstable_by_key(|connection| *connection.node_id());
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.live.lock().len()
    }
}

/// True if no connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IsLast(pub(crate) bool);

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
