//! The tasks of a node: each has this owner, none outlives the node.

use std::{thread, time::Duration};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::timeout};

use crate::{Event, events::Events};

/// The tasks of one node; dropping it aborts them.
#[derive(Debug)]
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
    events: Events,
}

/// Dropped with its task; reports a panic.
struct Watched {
    part: &'static str,
    events: Events,
}

// === impl Tasks ===

impl Tasks {
    /// No tasks yet. Panics of tasks are published in `events`.
    pub(crate) fn new(events: Events) -> Self {
        let running = Mutex::default();
        Self { running, events }
    }

    /// Runs `task`, the part of the node named `part`. If it panics, [`Event::Failed`] says so: no node goes on in silence
    /// without one of its parts (law 11).
    pub(crate) fn spawn(
        &self,
        part: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let events = self.events.clone();
        let watched = Watched { part, events };
        self.running.lock().spawn(async move {
            let _watched = watched;
            task.await;
        });
    }

    /// Aborts every task and waits for their ends, at most for `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
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
        // A task that returns or is aborted was told to.
        if !thread::panicking() {
            return;
        }
        tracing::error!(part = self.part, "a task panicked; restart the node");
        self.events.publish(|| Event::Failed {
            part: self.part,
            reason: "its task panicked".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn panicked_task_is_reported() {
        let events = Events::new();
        let mut stream = events.subscribe();
        let tasks = Tasks::new(events);
        tasks.spawn("returns", ready(()));
        tasks.spawn("waits", pending());
        tasks.spawn("panics", async { panic!("a test") });
        let event = stream.recv().await.unwrap();
        assert!(
            matches!(event, Event::Failed { part: "panics", .. }),
            "{event:?}"
        );
        tasks.stop(Duration::from_secs(5)).await;
        drop(tasks);
        // Neither the one that returned nor the one that was aborted.
        assert!(stream.recv().await.is_none());
    }
}
