//! Connections that wait for their next request.
//!
//! They take places that others need. The one that has waited longest gives its place to the next connection when no other
//! place is free.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

/// Time in which a connection that was told to end ends: 1 s.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The idle connections of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleConnections(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ends: Mutex<Ends>,
    /// Notified when there is one more, or the one that is to end has a request.
    changed: Notify,
}

/// Handles that end connections.
#[derive(Debug, Default)]
struct Ends {
    /// Of idle ones; the one that has waited longest first.
    idle: VecDeque<Arc<Notify>>,
    /// Of the one that was told to end, until it has.
    ending: Option<Arc<Notify>>,
    /// Of those whose last request is answered, until the answer is written.
    answered: Vec<Arc<Notify>>,
}

/// One connection, as long as it is open.
#[derive(Debug)]
pub(super) struct KeepAlive {
    connections: IdleConnections,
    end: Arc<Notify>,
}

/// A request that is being answered. Dropped, its connection is idle as soon as the answer is written.
#[derive(Debug)]
pub(super) struct Busy(Output);

/// The output of a connection.
#[derive(Clone, Debug)]
pub(super) struct Output {
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

    /// Ends the connection that has waited longest, unless one is ending.
    pub(super) fn evict(&self) {
        let mut ends = self.0.ends.lock();
        if ends.ending.is_none()
            && let Some(longest) = ends.idle.pop_front()
        {
            longest.notify_one();
            ends.ending = Some(longest);
        }
    }

    /// Ends once [`evict`](Self::evict) may find another connection, also before this call.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The connection is not idle, or no longer there. Whether it was to end.
    fn remove(&self, end: &Arc<Notify>) -> bool {
        let mut ends = self.0.ends.lock();
        ends.idle.retain(|other| !Arc::ptr_eq(other, end));
        ends.answered.retain(|other| !Arc::ptr_eq(other, end));
        let ending = ends.ending.take_if(|other| Arc::ptr_eq(other, end));
        ending.is_some()
    }

    fn is_ending(&self, end: &Arc<Notify>) -> bool {
        let ends = self.0.ends.lock();
        ends.ending.as_ref().is_some_and(|it| Arc::ptr_eq(it, end))
    }
}

// === impl KeepAlive ===

impl KeepAlive {
    /// A request has come. If the connection was to end for another one, it is not.
    pub(super) fn begin(&self) -> Busy {
        if self.connections.remove(&self.end) {
            self.connections.0.changed.notify_one();
        }
        Busy(self.output())
    }

    pub(super) fn output(&self) -> Output {
        Output {
            connections: self.connections.clone(),
            end: Arc::clone(&self.end),
        }
    }

    /// Ends when the connection has to be closed for another one, in order: a request may just be coming.
    pub(super) async fn evicted(&self) {
        self.end.notified().await;
        while !self.connections.is_ending(&self.end) {
            self.end.notified().await;
        }
    }

    /// Ends when the connection was to end and has not.
    pub(super) async fn overdue(&self) {
        loop {
            sleep(END_LIMIT).await;
            if self.connections.is_ending(&self.end) {
                return;
            }
            self.evicted().await;
        }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.connections.remove(&self.end);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Output { connections, end } = &self.0;
        connections.0.ends.lock().answered.push(Arc::clone(end));
    }
}

// === impl Output ===

impl Output {
    /// Everything is written: the connection is idle if its last request is answered.
    pub(super) fn flushed(&self) {
        let state = &self.connections.0;
        let mut ends = state.ends.lock();
        let is_answered = |other: &Arc<Notify>| Arc::ptr_eq(other, &self.end);
        let Some(index) = ends.answered.iter().position(is_answered) else {
            return;
        };
        let end = ends.answered.swap_remove(index);
        ends.idle.push_back(end);
        drop(ends);
        state.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_end_within_a_second() {
        let connections = IdleConnections::default();
        let idle = connections.enter();
        drop(idle.begin());
        connections.evict();
        assert!(idle.evicted().now_or_never().is_none(), "it is not written");
        idle.output().flushed();
        connections.evict();
        idle.evicted().await;
        let start = Instant::now();
        idle.overdue().await;
        assert_eq!(start.elapsed(), END_LIMIT);
        drop(idle.begin());
        let mut overdue = Box::pin(idle.overdue());
        sleep(2 * END_LIMIT).await;
        assert!((&mut overdue).now_or_never().is_none(), "a request came");
        // It is the next one to end again.
        idle.output().flushed();
        connections.evict();
        overdue.await;
    }
}
