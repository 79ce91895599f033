//! The tasks of a node: each has this owner, none outlives the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::timeout};

use crate::events::Events;

/// The tasks of one node; dropping it aborts them.
#[derive(Debug)]
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
    /// Tasks may return from now on.
    stopping: Arc<AtomicBool>,
    events: Events,
}

/// Dropped with its task; reports one that ended too early.
struct Watched {
    part: &'static str,
    has_returned: bool,
    stopping: Arc<AtomicBool>,
    events: Events,
}

// === impl Tasks ===

impl Tasks {
    /// No tasks yet. Ends of tasks are reported to `events`.
    pub(crate) fn new(events: Events) -> Self {
        Self {
            running: Mutex::default(),
            stopping: Arc::default(),
            events,
        }
    }

    /// Runs `task`, the part of the node named `part`. If it panics, or returns while the node runs, the part
    /// [has failed](Events::fail).
    pub(crate) fn spawn(
        &self,
        part: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let watched = Watched {
            part,
            has_returned: false,
            stopping: Arc::clone(&self.stopping),
            events: self.events.clone(),
        };
        self.running.lock().spawn(async move {
            let mut watched = watched;
            task.await;
            watched.has_returned = true;
        });
    }

    /// Lets tasks return: what they take from is about to end.
    pub(crate) fn let_return(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Aborts every task and waits for their ends, at most for `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.let_return();
        let mut tasks = std::mem::take(&mut *self.running.lock());
        tasks.abort_all();
        let ended = async { while tasks.join_next().await.is_some() {} };
        // An aborted task ends at its next await: late by the arithmetic of one batch at most.
        let _late = timeout(limit, ended).await;
    }
}

// === impl Watched ===

impl Drop for Watched {
    fn drop(&mut self) {
        if thread::panicking() {
            self.events.fail(self.part, "its task panicked");
        } else if self.has_returned && !self.stopping.load(Ordering::Acquire) {
            self.events.fail(self.part, "its task has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::Event;

    #[tokio::test]
    async fn early_ends_are_reported() {
        let events = Events::new();
        let mut stream = events.subscribe();
        let tasks = Tasks::new(events.clone());
        tasks.spawn("waits", pending());
        tasks.spawn("panics", async { panic!("a test") });
        tasks.spawn("returns", ready(()));
        for expected in ["panics", "returns"] {
            let event = stream.recv().await.unwrap();
            assert!(
                matches!(event, Event::Failed { part, .. } if part == expected),
                "{event:?}"
            );
        }
        let failed: Vec<_> = events.failures().into_keys().collect();
        assert_eq!(failed, ["panics", "returns"]);
        tasks.let_return();
        tasks.spawn("is told to", ready(()));
        tasks.stop(Duration::from_secs(5)).await;
        drop((tasks, events));
        // Neither the one that was told to return nor the one that was aborted.
        assert!(stream.recv().await.is_none());
    }
}
