//! The task of a server.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Time a server takes to stop, at most.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The task of a server; dropping it cuts off what it serves.
#[derive(Debug)]
pub(super) struct Serving {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Closed when the task ends, however it does.
    running: watch::Receiver<()>,
}

impl Serving {
    /// Runs `serve` as a task, which ends once `stopping` says so.
    pub(super) fn start(
        stopping: watch::Sender<bool>,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (alive, running) = watch::channel(());
        let task = tokio::spawn(async move {
            let _alive = alive;
            serve.await;
        });
        Self {
            stopping,
            task,
            running,
        }
    }

    /// Ends when the task does: a server that was not stopped has failed.
    pub(super) async fn ended(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }

    /// Stops in order, within [`STOP_LIMIT`].
    pub(super) async fn stop(mut self) {
        self.stopping.send_replace(true);
        // Dropped afterwards, which cuts off what is left.
        let _late = timeout(STOP_LIMIT, &mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn end_of_server_is_seen() {
        let running = Serving::start(watch::Sender::new(false), pending());
        assert!(running.ended().now_or_never().is_none());
        let failed = Serving::start(watch::Sender::new(false), async { panic!("a test") });
        failed.ended().await;
    }
}
