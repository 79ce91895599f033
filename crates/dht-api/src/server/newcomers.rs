//! Connections on which no request was admitted yet.
//!
//! They take places that others need, and everybody who can connect can make them. So each has little time, and the oldest
//! gives its place to the next connection when no other place is free.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

/// The newcomers of one server, the oldest first. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Newcomers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Dropped to end a connection.
    ends: BTreeMap<u64, oneshot::Sender<Admitted>>,
}

#[derive(Clone, Copy, Debug)]
struct Admitted;

/// One connection, until a request is admitted or it ends.
#[derive(Debug)]
pub(super) struct Newcomer {
    newcomers: Newcomers,
    number: u64,
}

impl Newcomers {
    /// Enters a connection. The future ends when it has to be closed: after `limit`, or for another one. It does not end once
    /// a request is admitted.
    pub(super) fn enter(&self, limit: Duration) -> (Newcomer, impl Future<Output = ()> + use<>) {
        let (sender, admitted) = oneshot::channel();
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.ends.insert(number, sender);
        let ended = async move {
            if let Ok(Ok(Admitted)) = timeout(limit, admitted).await {
                std::future::pending().await
            }
        };
        let newcomers = self.clone();
        (Newcomer { newcomers, number }, ended)
    }

    /// Ends the oldest newcomer; whether there is one.
    pub(super) fn evict(&self) -> bool {
        self.0.lock().ends.pop_first().is_some()
    }
}

impl Newcomer {
    /// A request is admitted: the connection keeps its place.
    pub(super) fn admit(&self) {
        if let Some(end) = self.newcomers.0.lock().ends.remove(&self.number) {
            // The connection may have just ended.
            let _ = end.send(Admitted);
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.newcomers.0.lock().ends.remove(&self.number);
    }
}
