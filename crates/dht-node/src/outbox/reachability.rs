//! Which recipients take copies now, and which may not: each kind has its half of every resource of the outbox, so that any
//! number of recipients that cannot be reached leave the other half to those that can.

use std::collections::HashSet;

use dht_core::NodeId;
use dht_peers::Connections;
use parking_lot::Mutex;

/// Whether a recipient takes copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// It is connected, and its last copy was written.
    Reachable,
    /// It is not connected, or its last copy could not be written.
    Unreachable,
}

/// Answers for every recipient whether it takes copies.
#[derive(Debug)]
pub(super) struct ReachabilityTracker {
    connections: Connections,
    /// Recipients whose last copy could not be written. Bounded by the messages that have not ended.
    failing: Mutex<HashSet<NodeId>>,
}

/// One value for each [`Reachability`].
#[derive(Debug, Default)]
pub(super) struct ByReachability<T> {
    pub(super) reachable: T,
    pub(super) unreachable: T,
}

// === impl ReachabilityTracker ===

impl ReachabilityTracker {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            failing: Mutex::default(),
        }
    }

    pub(super) fn of(&self, recipient: &NodeId) -> Reachability {
        if self.connections.contains(recipient) && !self.failing.lock().contains(recipient) {
            Reachability::Reachable
        } else {
            Reachability::Unreachable
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

// === impl ByReachability ===

impl<T> ByReachability<T> {
    pub(super) fn new(mut value: impl FnMut() -> T) -> Self {
        Self {
            reachable: value(),
            unreachable: value(),
        }
    }

    pub(super) const fn of(&self, reachability: Reachability) -> &T {
        match reachability {
            Reachability::Reachable => &self.reachable,
            Reachability::Unreachable => &self.unreachable,
        }
    }

    pub(super) const fn of_mut(&mut self, reachability: Reachability) -> &mut T {
        match reachability {
            Reachability::Reachable => &mut self.reachable,
            Reachability::Unreachable => &mut self.unreachable,
        }
    }
}
