//! Which recipients take copies now, and which may not: each sort has its half of every resource of the outbox, so that any
//! number of recipients that cannot be reached leave the other half to those that can.

use std::collections::HashSet;

use dht_core::NodeId;
use dht_peers::Connections;
use parking_lot::Mutex;

/// Whether a recipient takes copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is connected, and its last copy was written.
    Taking,
    /// It is not connected, or its last copy could not be written.
    Other,
}

/// Knows the standing of every recipient.
#[derive(Debug)]
pub(super) struct Standings {
    connections: Connections,
    /// Recipients whose last copy could not be written. Bounded by the messages that have not ended.
    failing: Mutex<HashSet<NodeId>>,
}

/// Something for each standing.
#[derive(Debug, Default)]
pub(super) struct Halves<T> {
    pub(super) taking: T,
    pub(super) other: T,
}

// === impl Standings ===

impl Standings {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            failing: Mutex::default(),
        }
    }

    pub(super) fn of(&self, recipient: &NodeId) -> Standing {
        if self.connections.contains(recipient) && !self.failing.lock().contains(recipient) {
            Standing::Taking
        } else {
            Standing::Other
        }
    }

    /// The last copy for a recipient was written, or could not be.
    pub(super) fn note(&self, recipient: &NodeId, is_written: bool) {
        let mut failing = self.failing.lock();
        if is_written {
            failing.remove(recipient);
        } else {
            failing.insert(*recipient);
        }
    }

    /// No message for a recipient is left.
    pub(super) fn forget(&self, recipient: &NodeId) {
        self.failing.lock().remove(recipient);
    }
}

// === impl Halves ===

impl<T> Halves<T> {
    pub(super) fn new(mut half: impl FnMut() -> T) -> Self {
        Self {
            taking: half(),
            other: half(),
        }
    }

    pub(super) const fn of(&self, standing: Standing) -> &T {
        match standing {
            Standing::Taking => &self.taking,
            Standing::Other => &self.other,
        }
    }

    pub(super) const fn of_mut(&mut self, standing: Standing) -> &mut T {
        match standing {
            Standing::Taking => &mut self.taking,
            Standing::Other => &mut self.other,
        }
    }
}
