//! Runs the requests of those parts of a node that do not wait.

use std::{collections::VecDeque, fmt, sync::Arc};

use dht_core::{OnDelivery, SendRequest};
use dht_stack::{LEVELS, Place};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::{deliver::Deliveries, error::SendError, metrics, outbound::Shared};

/// Requests in the pipeline at one time, of those that the worker runs; more wait in its queue.
const CONCURRENT: usize = 64;

/// Runs what the [`Outbox`](dht_core::Outbox) side of an [`Outbound`](crate::Outbound) has taken, the most important
/// first, and watches the deliveries that are to be reported. Spawns nothing.
#[must_use = "nothing runs before the worker does"]
pub struct Worker(Arc<Shared>);

/// Requests that are taken and not yet in the pipeline. Bounded by the places they hold.
#[derive(Default)]
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    changed: Notify,
}

#[derive(Default)]
struct Jobs {
    by_level: [VecDeque<Job>; LEVELS],
    is_ended: bool,
}

/// A request that has been admitted.
pub(crate) struct Job {
    pub(crate) request: SendRequest,
    pub(crate) place: Place,
    pub(crate) report: Option<Report>,
}

/// Tells the outcome of a delivery.
pub(crate) struct Report {
    done: OnDelivery,
    /// Bounds the number of reports.
    _place: OwnedSemaphorePermit,
}

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
                        reporting.push(tell(report, sent).boxed());
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

async fn tell(report: Report, sent: Result<Deliveries, SendError>) {
    let left = match sent {
        Ok(deliveries) => deliveries.wait_single().await,
        Err(_) => false,
    };
    (report.done)(left);
}

// === impl Queue ===

impl Queue {
    pub(crate) fn push(&self, job: Job) {
        let level = job.request.priority() as usize;
        if let Some(jobs) = self.jobs.lock().by_level.get_mut(level) {
            jobs.push_back(job);
        }
        self.changed.notify_one();
    }

    /// No more requests come.
    pub(crate) fn end(&self) {
        self.jobs.lock().is_ended = true;
        self.changed.notify_one();
    }

    /// The most important request, or `None` when there is none and no more come.
    async fn next(&self) -> Option<Job> {
        loop {
            {
                let mut jobs = self.jobs.lock();
                if let Some(job) = jobs.by_level.iter_mut().find_map(VecDeque::pop_front) {
                    return Some(job);
                }
                if jobs.is_ended {
                    return None;
                }
            }
            // Correctness: a permit of an earlier `notify_one` is kept, so no request is overlooked.
            self.changed.notified().await;
        }
    }

    fn clear(&self) {
        let jobs = std::mem::take(&mut self.jobs.lock().by_level);
        drop(jobs);
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(done: OnDelivery, place: OwnedSemaphorePermit) -> Self {
        Self {
            done,
            _place: place,
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.0.admission).finish()
    }
}
