//! The orderly end of a node.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::Node;

/// Longest time that [`Node::shutdown`] takes. Short of the five seconds in which a process should end.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);

/// Time within [`SHUTDOWN_LIMIT`] for messages that are being sent to be written and read.
const OUTBOX_LIMIT: Duration = Duration::from_millis(1500);

/// Time within [`SHUTDOWN_LIMIT`] for the tasks that remain after the connections have closed.
const TASKS_LIMIT: Duration = Duration::from_millis(500);

/// Time within [`SHUTDOWN_LIMIT`] for the files, at least.
const FILES_LIMIT: Duration = Duration::from_millis(750);

impl Node {
    /// Stops the node in order, within [`SHUTDOWN_LIMIT`]: refuses new messages, sends those queued, closes the
    /// connections, then the files. Inboxes end once they are empty.
    pub async fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tasks.let_return();
        let end = Instant::now() + SHUTDOWN_LIMIT;
        // While the connections are there.
        self.shared.directory.update_anchors();
        self.outbox.wind_down(OUTBOX_LIMIT).await;
        let closed = end - TASKS_LIMIT - FILES_LIMIT;
        let left = closed.saturating_duration_since(Instant::now());
        self.transport.shutdown(left).await;
        self.tasks.stop(TASKS_LIMIT).await;
        // A device that hangs holds up a thread of the blocking pool, and not this.
        if timeout_at(end, self.close_files()).await.is_err() {
            tracing::error!("the files of this node could not be closed in time");
        }
        // The task that removes closed connections has ended.
        self.shared.connections.clear();
        self.subscribers.close();
    }

    async fn close_files(&self) {
        let messages = async {
            #[cfg(feature = "spool")]
            if let Some(durable_inbox) = &self.durable_inbox {
                durable_inbox.close().await;
            }
        };
        let seen = async {
            #[cfg(feature = "spool")]
            if let Some(snapshot) = &self.snapshot {
                snapshot.save().await;
            }
        };
        let peers = async {
            // A failure is logged.
            let _ = self.known_peers.save().await;
        };
        tokio::join!(self.outbox.close(), messages, self.saf.close(), seen, peers);
    }
}
