//! Every task of a transport, owned in one place.

use std::{future::Future, time::Duration};

use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

/// Tasks that end with the transport at the latest.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    /// Messages may be sent from threads that belong to no runtime.
    runtime: Handle,
}

impl Tasks {
    /// Tasks of the present runtime.
    pub(crate) fn new() -> Self {
        Self {
            set: Mutex::default(),
            runtime: Handle::current(),
        }
    }

    /// Runs a task. Those that ended are forgotten at the same time.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.set.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }

    /// Tasks that have not ended.
    pub(crate) fn count(&self) -> usize {
        let mut tasks = self.set.lock();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    /// Waits for all tasks, those that are still spawned included; aborts what is left after `limit`.
    pub(crate) async fn join(&self, limit: Duration) {
        let all = async {
            loop {
                let mut tasks = std::mem::take(&mut *self.set.lock());
                if tasks.is_empty() {
                    return;
                }
                while tasks.join_next().await.is_some() {}
            }
        };
        // Dropping the set that is being joined aborts its tasks.
        let _left_over = timeout(limit, all).await;
        self.abort();
    }

    pub(crate) fn abort(&self) {
        self.set.lock().abort_all();
    }
}
