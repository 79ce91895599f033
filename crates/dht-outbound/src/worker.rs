//! Runs the requests of those parts of a node that do not wait.

use std::{fmt, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    metrics,
    queue::{Job, Report},
    shared::Shared,
};

/// Requests in the pipeline at one time, of those that the worker runs; more wait in its queue.
const CONCURRENT: usize = 64;

/// Runs what the [`SendQueue`](dht_core::SendQueue) side of an [`Outbound`](crate::Outbound) has taken, the most important
/// first, and watches the deliveries that are to be reported. Spawns nothing.
#[must_use = "nothing runs before the worker does"]
pub struct Worker(Arc<Shared>);

// === impl Worker ===

impl Worker {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Runs until every [`Outbound`](crate::Outbound) is gone and what they were given is sent and reported.
    ///
    /// # Cancel safety
    /// Dropping the future drops the requests that it runs; reports are dropped uncalled.
    pub async fn run(self) {
        let mut running: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        let mut reporting: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !running.is_empty() || !reporting.is_empty() {
            metrics::occupancy(running.len());
            tokio::select! {
                // Finish what has begun before taking more.
                biased;
                Some((sent, report)) = running.next(), if !running.is_empty() => {
                    if let Some(report) = report {
                        reporting.push(Report::tell(report, sent).boxed());
                    }
                }
                Some(()) = reporting.next(), if !reporting.is_empty() => {}
                job = self.0.queue.next(), if is_open && running.len() < CONCURRENT => match job {
                    Some(Job { request, place, report }) => {
                        let sending = self.0.run(request, place);
                        running.push(sending.map(|sent| (sent, report)).boxed());
                    }
                    None => is_open = false,
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // First, so that nothing is taken any more.
        self.0.admission.close();
        self.0.queue.clear();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.0.admission).finish()
    }
}
