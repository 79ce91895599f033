//! Requests that wait for the writer thread, bounded in count and bytes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::{config::WriterConfig, error::SpoolError};

/// Bytes a request takes beside its content.
const REQUEST_OVERHEAD_BYTES: usize = 256;

/// Time for which a request that can wait waits for others to be committed with: 5 ms.
const COMMIT_DELAY: Duration = Duration::from_millis(5);

/// Requests of one commit from which on its fixed cost, of pages and a sync, is small beside that of the requests: 32.
const LARGE_BATCH: usize = 32;

/// Requests that the last commit carried for the next to wait for others: 4. Fewer callers would only wait for themselves.
const BUSY_BATCH: usize = 4;

/// Pause between two looks at whether more requests have come for a commit that waits for others: 500 µs.
const GATHER_PAUSE: Duration = Duration::from_micros(500);

/// A request's share of the queue; given back once the request is answered.
pub(crate) type Place = OwnedSemaphorePermit;

/// The queue between callers and the writer thread.
pub(crate) struct Queue<C> {
    state: Mutex<State<C>>,
    arrived: Condvar,
    /// One permit a byte.
    room: Arc<Semaphore>,
    capacity: usize,
    /// Smallest cost of one request: with it, the bound in bytes is also the bound in requests.
    smallest: usize,
}

struct State<C> {
    waiting: VecDeque<(C, Place)>,
    /// Requests among them that are committed at once, unless many are.
    urgent: usize,
    /// Urgent requests that the last commit carried.
    last_urgent: usize,
    /// The writer waits for more urgent requests.
    is_gathering: bool,
    closed: bool,
}

// === impl Queue ===

impl<C> Queue<C> {
    pub(crate) fn new(config: &WriterConfig) -> Self {
        // Permits are handed out as `u32`.
        let capacity = config.queue_bytes.clamp(1, u32::MAX as usize >> 1);
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                urgent: 0,
                last_urgent: 0,
                is_gathering: false,
                closed: false,
            }),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
            smallest: capacity.div_ceil(config.queue_requests.max(1)),
        }
    }

    /// Takes a place without waiting.
    pub(crate) fn try_place(&self, bytes: usize) -> Result<Place, SpoolError> {
        let room = Arc::clone(&self.room);
        room.try_acquire_many_owned(self.cost(bytes))
            .map_err(|error| match error {
                TryAcquireError::NoPermits => SpoolError::Busy,
                TryAcquireError::Closed => SpoolError::Closed,
            })
    }

    /// Waits for a place, in the order of the callers.
    pub(crate) async fn place(&self, bytes: usize) -> Result<Place, SpoolError> {
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(self.cost(bytes))
            .await
            .map_err(|_| SpoolError::Closed)
    }

    /// Queues a request. One that may wait does so for others to be committed with, at most for [`COMMIT_DELAY`].
    pub(crate) fn push(&self, request: C, place: Place, may_wait: bool) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SpoolError::Closed);
        }
        state.waiting.push_back((request, place));
        state.urgent += usize::from(!may_wait);
        let wakes_writer = match state.is_gathering {
            true => state.urgent >= LARGE_BATCH,
            false => !may_wait || state.waiting.len() == 1,
        };
        drop(state);
        if wakes_writer {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Refuses requests from now on; what is queued is still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.arrived.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Refuses requests from now on, also those that are queued.
    pub(crate) fn abandon(&self) {
        self.close();
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }

    /// Waits for requests and takes those that one commit may carry; `None` once it is closed and empty.
    pub(crate) fn take(&self, config: &WriterConfig) -> Option<Vec<(C, Place)>> {
        let batch_requests = config.batch_requests.max(1);
        let mut state = self.state.lock();
        while !state.closed && state.urgent == 0 && state.waiting.len() < batch_requests {
            if state.waiting.is_empty() {
                self.arrived.wait(&mut state);
            } else if self.arrived.wait_for(&mut state, COMMIT_DELAY).timed_out() {
                break;
            }
        }
        self.gather(&mut state);
        if state.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0_usize;
        let mut count = 0;
        for (_, place) in &state.waiting {
            bytes = bytes.saturating_add(place.num_permits());
            if count > 0 && (count >= batch_requests || bytes > config.batch_bytes) {
                break;
            }
            count += 1;
        }
        let batch = state.waiting.drain(..count).collect();
        state.last_urgent = state.urgent;
        // The rest does not wait again.
        state.urgent = state.waiting.len();
        Some(batch)
    }

    /// Waits for others to be committed with as long as they keep coming, at most for [`COMMIT_DELAY`].
    fn gather(&self, state: &mut MutexGuard<'_, State<C>>) {
        state.is_gathering = true;
        for _ in 0..COMMIT_DELAY.as_micros() / GATHER_PAUSE.as_micros() {
            if !state.expects_more() {
                break;
            }
            let before = state.urgent;
            self.arrived.wait_for(state, GATHER_PAUSE);
            if state.urgent == before {
                break;
            }
        }
        state.is_gathering = false;
    }

    fn cost(&self, bytes: usize) -> u32 {
        let cost = bytes.saturating_add(REQUEST_OVERHEAD_BYTES);
        // A request larger than the queue waits until the queue is empty.
        let cost = cost.max(self.smallest).min(self.capacity);
        u32::try_from(cost).unwrap_or(u32::MAX)
    }
}

impl<C> State<C> {
    /// Whether a commit of what waits would cost more than waiting for others, of which there are several.
    const fn expects_more(&self) -> bool {
        !self.closed && self.last_urgent >= BUSY_BATCH && self.urgent < LARGE_BATCH
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn count_and_bytes_are_bounded() {
        let config = WriterConfig {
            queue_requests: 4,
            queue_bytes: 4096,
            batch_requests: 3,
            ..WriterConfig::default()
        };
        let queue = Queue::new(&config);
        for number in 0..4 {
            let place = queue.try_place(1).unwrap();
            queue.push(number, place, false).unwrap();
        }
        assert_eq!(queue.try_place(1).unwrap_err(), SpoolError::Busy);
        assert_eq!(queue.take(&config).unwrap().len(), 3);
        let larger_than_all = queue.try_place(1 << 20);
        assert_eq!(larger_than_all.unwrap_err(), SpoolError::Busy);
        assert_eq!(queue.take(&config).unwrap().len(), 1);
        drop(queue.try_place(1 << 20).unwrap());
        queue.close();
        assert_eq!(queue.try_place(1).unwrap_err(), SpoolError::Closed);
        assert!(queue.take(&config).is_none());
    }

    /// One caller after the other never waits; several wait until many are there, or none comes.
    #[test]
    fn busy_writer_expects_more_requests() {
        let config = WriterConfig::default();
        let queue = Queue::new(&config);
        let push = |count| {
            for _ in 0..count {
                let place = queue.try_place(1).unwrap();
                queue.push((), place, false).unwrap();
            }
        };
        let take = || queue.take(&config).unwrap().len();
        let expects_more = || queue.state.lock().expects_more();
        push(BUSY_BATCH - 1);
        assert!(!expects_more());
        assert_eq!(take(), BUSY_BATCH - 1);
        push(BUSY_BATCH);
        assert!(!expects_more(), "the last commit carried few");
        assert_eq!(take(), BUSY_BATCH);
        push(1);
        assert!(expects_more());
        assert_eq!(take(), 1, "nobody came");
        push(LARGE_BATCH);
        take();
        push(LARGE_BATCH);
        assert!(!expects_more(), "they are many");
        take();
        push(1);
        assert!(expects_more());
        queue.close();
        assert!(!expects_more());
        assert_eq!(take(), 1);
    }

    /// A request that can wait goes with the next one that cannot, or when the queue is closed.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer is a thread, which waits on the system's clock"
    )]
    fn delayed_requests_share_a_commit() {
        let config = WriterConfig::default();
        let queue = Queue::new(&config);
        let push = |number, may_wait| {
            let place = queue.try_place(1).unwrap();
            queue.push(number, place, may_wait).unwrap();
        };
        let take = || -> Vec<_> {
            let batch = queue.take(&config).unwrap().into_iter();
            batch.map(|(number, _)| number).collect()
        };
        push(1, true);
        push(2, true);
        push(3, false);
        assert_eq!(take(), [1, 2, 3]);
        let start = Instant::now();
        push(4, true);
        assert_eq!(take(), [4], "alone, once its time is over");
        assert!(start.elapsed() >= COMMIT_DELAY);
        push(5, true);
        queue.close();
        assert_eq!(take(), [5]);
        assert!(queue.take(&config).is_none());
    }
}
