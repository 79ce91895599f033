//! Every task of a transport, owned in one place.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

use crate::metrics;

/// Tasks that end with the transport at the latest.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    /// Messages may be sent from threads that belong to no runtime.
    runtime: Handle,
    panics: Arc<Panics>,
}

/// Panics of tasks since the start. Each costs what its task was about, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Panics(AtomicU64);

impl Tasks {
    /// Tasks of the present runtime.
    pub(crate) fn new() -> Self {
        Self {
            set: Mutex::default(),
            runtime: Handle::current(),
            panics: Arc::default(),
        }
    }

    /// Runs a task. Those that ended are forgotten at the same time.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.set.lock();
        while tasks.try_join_next().is_some() {}
        let panics = Arc::clone(&self.panics);
        let caught = async move {
            let _panicked = panics.catch(task).await;
        };
        tasks.spawn_on(caught, &self.runtime);
    }

    /// For parts of tasks, and for threads.
    pub(crate) const fn panics(&self) -> &Arc<Panics> {
        &self.panics
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

impl Panics {
    /// Runs `work`; `None` if it panicked, which is counted.
    pub(crate) async fn catch<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        // State that `work` shares with other tasks is behind locks that a panic releases, and changed in one step each.
        let done = AssertUnwindSafe(work).catch_unwind().await;
        self.counted(done)
    }

    /// As [`catch`](Self::catch), for a function that blocks its thread.
    pub(crate) fn catch_blocking<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        self.counted(std::panic::catch_unwind(AssertUnwindSafe(work)))
    }

    fn counted<T>(&self, done: std::thread::Result<T>) -> Option<T> {
        if done.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
            metrics::task_panicked();
            tracing::error!("a task of the transport panicked");
        }
        done.ok()
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
