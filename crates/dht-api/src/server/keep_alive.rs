//! Connections that wait for their next request.
//!
//! They take places that others need. The one that has waited longest gives its place to the next connection when no other
//! place is free.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The idle connections of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleConnections(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// What ends each of them; the one that has waited longest first.
    ends: Mutex<VecDeque<Arc<Notify>>>,
    /// Notified when there is one more.
    added: Notify,
}

/// One connection, as long as it is open.
#[derive(Debug)]
pub(super) struct KeepAlive {
    connections: IdleConnections,
    end: Arc<Notify>,
}

/// A request that is being answered. Dropped, its connection is idle.
#[derive(Debug)]
pub(super) struct Busy {
    connections: IdleConnections,
    end: Arc<Notify>,
}

// === impl IdleConnections ===

impl IdleConnections {
    /// A connection that has no request yet, and is not idle before it had one.
    pub(super) fn enter(&self) -> KeepAlive {
        KeepAlive {
            connections: self.clone(),
            end: Arc::default(),
        }
    }

    /// Ends the connection that has waited longest; whether there is one.
    pub(super) fn evict(&self) -> bool {
        let longest = self.0.ends.lock().pop_front();
        if let Some(end) = &longest {
            end.notify_one();
        }
        longest.is_some()
    }

    /// Ends once a connection became idle, also before this call.
    pub(super) async fn added(&self) {
        self.0.added.notified().await;
    }

    fn remove(&self, end: &Arc<Notify>) {
        self.0.ends.lock().retain(|other| !Arc::ptr_eq(other, end));
    }
}

// === impl KeepAlive ===

impl KeepAlive {
    /// A request has come.
    pub(super) fn begin(&self) -> Busy {
        self.connections.remove(&self.end);
        Busy {
            connections: self.connections.clone(),
            end: Arc::clone(&self.end),
        }
    }

    /// Ends when the connection has to be closed for another one, in order: a request may just have come.
    pub(super) async fn evicted(&self) {
        self.end.notified().await;
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.connections.remove(&self.end);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let state = &self.connections.0;
        state.ends.lock().push_back(Arc::clone(&self.end));
        state.added.notify_one();
    }
}
