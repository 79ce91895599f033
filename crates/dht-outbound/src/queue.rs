//! Requests that wait for the worker, by importance.

use std::collections::VecDeque;

use dht_core::{OnDelivery, SendRequest};
use dht_stack::{LEVELS, Place};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{deliver::Deliveries, error::SendError};

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
    _place: Place,
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
    pub(crate) async fn next(&self) -> Option<Job> {
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

    pub(crate) fn clear(&self) {
        let jobs = std::mem::take(&mut self.jobs.lock().by_level);
        drop(jobs);
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(done: OnDelivery, place: Place) -> Self {
        Self {
            done,
            _place: place,
        }
    }

    /// Waits for the delivery and tells its outcome.
    pub(crate) async fn tell(self, sent: Result<Deliveries, SendError>) {
        let left = match sent {
            Ok(deliveries) => deliveries.wait_single().await,
            Err(_) => false,
        };
        (self.done)(left);
    }
}
