//! The tasks of a node: each has this owner, none outlives the node.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::timeout};

/// The tasks of one node; dropping it aborts them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().spawn(task);
    }

    /// Aborts every task and waits for their ends, at most for `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        tasks.abort_all();
        let ended = async { while tasks.join_next().await.is_some() {} };
        // An aborted task ends at its next await: late by the arithmetic of one batch at most.
        let _late = timeout(limit, ended).await;
    }
}
