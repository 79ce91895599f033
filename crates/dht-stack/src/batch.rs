//! Natural batching: what waits now is done together, and nothing waits for company.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tower_service::Service;

/// Work that is cheaper together. Answers in the order of the requests, one each.
pub trait BatchWork<Request>: Send + Sync + 'static {
    /// Output for each request.
    type Response: Send;

    /// Does the work of all requests.
    fn run(&self, requests: Vec<Request>) -> Vec<Self::Response>;
}

/// A service that collects the requests of many callers into batches.
///
/// There is no task and no timer. A request is queued when the service is *called*. The first caller to be *polled*
/// becomes the worker and does what is queued by then, at most `max_batch` requests; what has been queued meanwhile is
/// handed to the next caller in line. An idle service therefore answers a single request at once, and a busy one
/// finds large batches. A caller with several requests at hand calls for all of them before it polls for any.
///
/// Clones share the queue.
///
/// # Cancel safety
/// A future can be dropped at any time: a role it has is passed on, and a request that still waits is not worked on.
///
/// ```
/// use dht_stack::{Batch, BatchWork};
/// use tower::ServiceExt as _;
///
/// struct Double;
/// impl BatchWork<u32> for Double {
///     type Response = u32;
///     fn run(&self, requests: Vec<u32>) -> Vec<u32> {
///         requests.into_iter().map(|n| 2 * n).collect()
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let batch = Batch::new(Double, 64, 2);
/// assert_eq!(batch.oneshot(21).await, Ok(42));
/// # });
/// ```
pub struct Batch<W, Request>
where
    W: BatchWork<Request>,
{
    shared: Arc<Shared<W, Request>>,
    gathers: bool,
}

/// The worker vanished in the middle of a batch: its work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLost;

struct Shared<W: BatchWork<Request>, Request> {
    work: W,
    max_batch: usize,
    state: Mutex<State<Request, W::Response>>,
}

struct State<Request, Response> {
    queue: VecDeque<Queued<Request, Response>>,
    idle_workers: usize,
}

struct Queued<Request, Response> {
    request: Request,
    answer: oneshot::Sender<Answer<Request, Response>>,
}

enum Answer<Request, Response> {
    Done(Response),
    /// "It is your turn to work": the request comes back to its caller.
    Turn(Request),
}

/// Response future of [`Batch`].
pub struct BatchFuture<W: BatchWork<Request>, Request> {
    shared: Arc<Shared<W, Request>>,
    /// Still to let others go first.
    gathers: bool,
    step: Step<Request, W::Response>,
}

enum Step<Request, Response> {
    /// Has the worker's role and starts when polled.
    Work(Request),
    Wait(oneshot::Receiver<Answer<Request, Response>>),
    Done,
}

impl<W: BatchWork<Request>, Request> Batch<W, Request> {
    /// Batches of at most `max_batch` requests, at most `workers` at a time: as many as there are cores.
    #[must_use]
    pub fn new(work: W, max_batch: usize, workers: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            idle_workers: workers.max(1),
        };
        let shared = Shared {
            work,
            max_batch: max_batch.max(1),
            state: Mutex::new(state),
        };
        Self {
            shared: Arc::new(shared),
            gathers: false,
        }
    }

    /// For callers that call and poll one after the other: the first to be polled goes to the end of the line once,
    /// so that those of the same task that are ready as well call before it works.
    #[must_use]
    pub fn gathering(self) -> Self {
        Self {
            gathers: true,
            ..self
        }
    }
}

impl<W, Request> Service<Request> for Batch<W, Request>
where
    W: BatchWork<Request>,
    Request: Send + Unpin,
    W::Response: Unpin,
{
    type Response = W::Response;
    type Error = BatchLost;
    type Future = BatchFuture<W, Request>;

    /// Always ready: the limit on requests under way also limits this queue.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut state = self.shared.state.lock();
        let step = if let Some(fewer) = state.idle_workers.checked_sub(1) {
            state.idle_workers = fewer;
            Step::Work(request)
        } else {
            let (answer, receiver) = oneshot::channel();
            state.queue.push_back(Queued { request, answer });
            Step::Wait(receiver)
        };
        drop(state);
        BatchFuture {
            shared: Arc::clone(&self.shared),
            gathers: self.gathers,
            step,
        }
    }
}

impl<W, Request> Future for BatchFuture<W, Request>
where
    W: BatchWork<Request>,
    Request: Send + Unpin,
    W::Response: Unpin,
{
    type Output = Result<W::Response, BatchLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match mem::replace(&mut this.step, Step::Done) {
                Step::Work(request) if mem::take(&mut this.gathers) => {
                    this.step = Step::Work(request);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Work(request) => {
                    let turn = Turn(&this.shared);
                    return Poll::Ready(turn.work(request).ok_or(BatchLost));
                }
                Step::Wait(mut receiver) => match Pin::new(&mut receiver).poll(cx) {
                    Poll::Pending => {
                        this.step = Step::Wait(receiver);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Answer::Done(response))) => return Poll::Ready(Ok(response)),
                    Poll::Ready(Ok(Answer::Turn(request))) => this.step = Step::Work(request),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(BatchLost)),
                },
                Step::Done => return Poll::Ready(Err(BatchLost)),
            }
        }
    }
}

impl<W: BatchWork<Request>, Request> Drop for BatchFuture<W, Request> {
    fn drop(&mut self) {
        match mem::replace(&mut self.step, Step::Done) {
            // A cancelled caller gives the role away; without this the queue would stand still.
            Step::Work(_) => drop(Turn(&self.shared)),
            Step::Wait(mut receiver) => {
                // The turn may have been given to us in the very moment we left.
                receiver.close();
                if let Ok(Answer::Turn(_)) = receiver.try_recv() {
                    drop(Turn(&self.shared));
                }
            }
            Step::Done => {}
        }
    }
}

/// The worker's role; passed on when dropped, also by a panic.
struct Turn<'s, W: BatchWork<Request>, Request>(&'s Shared<W, Request>);

impl<W: BatchWork<Request>, Request> Turn<'_, W, Request> {
    /// Does one batch, own request first.
    fn work(self, own: Request) -> Option<W::Response> {
        let more = {
            let mut state = self.0.state.lock();
            let most = self.0.max_batch - 1;
            let mut more = Vec::with_capacity(state.queue.len().min(most));
            while more.len() < most {
                match state.queue.pop_front() {
                    // A caller that has gone took its permits along: its request is skipped.
                    Some(queued) if queued.answer.is_closed() => {}
                    Some(queued) => more.push(queued),
                    None => break,
                }
            }
            more
        };
        let (requests, answers): (Vec<_>, Vec<_>) = more
            .into_iter()
            .map(|queued| (queued.request, queued.answer))
            .unzip();
        let requests = std::iter::once(own).chain(requests).collect();
        let mut responses = self.0.work.run(requests).into_iter();
        let own = responses.next();
        for (answer, response) in answers.into_iter().zip(responses) {
            // A caller that has gone needs no answer.
            let _ = answer.send(Answer::Done(response));
        }
        own
    }
}

impl<W: BatchWork<Request>, Request> Drop for Turn<'_, W, Request> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        while let Some(Queued { request, answer }) = state.queue.pop_front() {
            if answer.send(Answer::Turn(request)).is_ok() {
                return;
            }
        }
        state.idle_workers += 1;
    }
}

impl<W: BatchWork<Request>, Request> Clone for Batch<W, Request> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            gathers: self.gathers,
        }
    }
}

impl<W: BatchWork<Request>, Request> fmt::Debug for Batch<W, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("max_batch", &self.shared.max_batch)
            .finish_non_exhaustive()
    }
}

impl<W: BatchWork<Request>, Request> fmt::Debug for BatchFuture<W, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchFuture").finish_non_exhaustive()
    }
}

impl fmt::Display for BatchLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker of this batch failed")
    }
}

impl std::error::Error for BatchLost {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::{Service as _, ServiceExt as _};

    use super::*;

    /// Adds one, and records the sizes of the batches.
    struct Recorder(Arc<Mutex<Vec<usize>>>);

    impl BatchWork<u32> for Recorder {
        type Response = u32;

        fn run(&self, requests: Vec<u32>) -> Vec<u32> {
            self.0.lock().push(requests.len());
            requests.into_iter().map(|n| n + 1).collect()
        }
    }

    fn recorder(
        max_batch: usize,
        workers: usize,
    ) -> (Batch<Recorder, u32>, Arc<Mutex<Vec<usize>>>) {
        let sizes = Arc::default();
        (
            Batch::new(Recorder(Arc::clone(&sizes)), max_batch, workers),
            sizes,
        )
    }

    #[tokio::test]
    async fn waiting_callers_are_served_together() {
        let (mut batch, sizes) = recorder(4, 1);
        let calls: Vec<_> = (0..6).map(|n| tokio::spawn(batch.call(n))).collect();
        for (n, call) in (0..).zip(calls) {
            assert_eq!(call.await.unwrap(), Ok(n + 1));
        }
        assert_eq!(*sizes.lock(), [4, 2]);
    }

    #[tokio::test]
    async fn a_single_caller_does_not_wait() {
        let (batch, sizes) = recorder(64, 1);
        assert_eq!(batch.oneshot(1).await, Ok(2));
        assert_eq!(*sizes.lock(), [1]);
    }

    /// Callers of one task that come one by one are gathered.
    #[tokio::test]
    async fn successive_calls_of_one_task_gather() {
        let (batch, sizes) = recorder(64, 1);
        let batch = batch.gathering();
        let calls = (0..5).map(|n| {
            let mut batch = batch.clone();
            async move { batch.call(n).await }
        });
        let answers = futures::future::join_all(calls).await;
        assert_eq!(answers, [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]);
        assert_eq!(*sizes.lock(), [5]);
    }

    #[tokio::test]
    async fn cancelled_worker_passes_its_turn_on() {
        let (mut batch, _) = recorder(64, 1);
        let worker = batch.call(1);
        let first = batch.call(2);
        let second = batch.call(3);
        drop(worker);
        // The turn was given to the first in line; it leaves as well.
        drop(first);
        assert_eq!(second.await, Ok(4));
        assert_eq!(batch.oneshot(5).await, Ok(6));
    }

    /// A worker that leaves while it lets others go first passes its turn on.
    #[tokio::test]
    async fn leaving_worker_passes_its_turn_on() {
        let (batch, sizes) = recorder(64, 1);
        let mut batch = batch.gathering();
        let mut worker = Box::pin(batch.call(1));
        assert!(futures::poll!(&mut worker).is_pending());
        let second = batch.call(2);
        drop(worker);
        assert_eq!(second.await, Ok(3));
        assert_eq!(batch.oneshot(4).await, Ok(5));
        assert_eq!(*sizes.lock(), [1, 1]);
    }

    #[tokio::test]
    async fn no_work_for_callers_that_left() {
        let (mut batch, sizes) = recorder(3, 1);
        let worker = batch.call(1);
        let gone: Vec<_> = (2..10).map(|n| batch.call(n)).collect();
        let (stays, last) = (batch.call(10), batch.call(11));
        let one_more = batch.call(12);
        drop(gone);
        assert_eq!(worker.await, Ok(2));
        assert_eq!((stays.await, last.await), (Ok(11), Ok(12)));
        assert_eq!(one_more.await, Ok(13));
        assert_eq!(*sizes.lock(), [3, 1]);
    }

    /// A panic in the work does not stop the queue.
    #[tokio::test]
    async fn panic_does_not_stop_the_queue() {
        struct Fussy;
        impl BatchWork<u32> for Fussy {
            type Response = u32;

            fn run(&self, requests: Vec<u32>) -> Vec<u32> {
                assert!(!requests.contains(&13), "does not like 13");
                requests
            }
        }
        let mut batch = Batch::new(Fussy, 1, 1);
        let bad = tokio::spawn(batch.call(13));
        let good = tokio::spawn(batch.call(1));
        assert!(bad.await.is_err());
        assert_eq!(good.await.unwrap(), Ok(1));
    }
}
