//! Runs a pipeline for everybody who holds a [`Requester`](crate::Requester).

use std::time::Duration;

use dht_stack::{BoxError, BytePermit};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, poll_fn},
    stream::FuturesUnordered,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tower_service::Service;

use crate::{
    MAX_CONCURRENT, MAX_PARKED, PIPELINE_TIMEOUT, PendingDiscovery, SendFailure,
    SendMessageResponse, SendRequest, metrics,
};

/// A request in the queue, and who waits for the answer.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub request: SendRequest,
    /// Where the first answer goes; `None` if nobody waits.
    pub reply: Option<oneshot::Sender<SendMessageResponse>>,
    /// Where the outcome of the delivery goes.
    pub report: Option<Report>,
    /// Its bytes, given back when it has left the pipeline.
    pub permit: BytePermit,
}

/// Tells the outcome of a delivery.
pub struct Report {
    pub(crate) done: dht_core::OnDelivery,
    pub(crate) _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Report(..)")
    }
}

/// Bounds of a [`Driver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverLimits {
    /// Requests in the pipeline at one time; more wait in the queue. Defaults to [`MAX_CONCURRENT`].
    pub concurrent: usize,
    /// Requests waiting for a search at one time; more fail at once. Defaults to [`MAX_PARKED`].
    pub parked: usize,
    /// Time a request may spend in the pipeline. Defaults to [`PIPELINE_TIMEOUT`].
    pub timeout: Duration,
}

/// Takes requests from a queue and sends them through a pipeline, several at a time.
///
/// ```
/// use dht_outbound::{
///     Driver, DriverLimits, MessageSendStates, Requester, SendMessageResponse,
/// };
/// use dht_core::{Payload, SendParams, SendRequest};
/// use dht_stack::BoxError;
/// use tokio::sync::mpsc;
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A pipeline that knows nobody; a node takes `outbound`'s.
/// let pipeline = service_fn(|_request: SendRequest| async {
///     Ok::<_, BoxError>(SendMessageResponse::Queued(MessageSendStates::default()))
/// });
/// let (requests, queue) = mpsc::channel(20);
/// let driving = tokio::spawn(Driver::new(queue, pipeline, DriverLimits::default()).run());
///
/// let requester = Requester::new(requests);
/// let hello = SendRequest::new(SendParams::default(), Payload::Part("hello".into()));
/// assert_eq!(requester.send(hello).await?.name(), "nobody");
/// drop(requester);
/// driving.await?; // ends with the last requester
/// # Ok(())
/// # }
/// ```
///
/// Requests that wait for a discovery are set aside and occupy no place. Spawns nothing: everything it runs ends when
/// [`run`](Self::run) is dropped.
///
/// Specification 04, sections 1 and 11.1.
#[derive(Debug)]
pub struct Driver<S> {
    queue: mpsc::Receiver<Submission>,
    pipeline: S,
    limits: DriverLimits,
}

impl Default for DriverLimits {
    fn default() -> Self {
        Self {
            concurrent: MAX_CONCURRENT,
            parked: MAX_PARKED,
            timeout: PIPELINE_TIMEOUT,
        }
    }
}

impl<S> Driver<S>
where
    S: Service<SendRequest, Response = SendMessageResponse, Error = BoxError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    /// A driver of `pipeline`.
    #[must_use]
    pub const fn new(queue: mpsc::Receiver<Submission>, pipeline: S, limits: DriverLimits) -> Self {
        Self {
            queue,
            pipeline,
            limits,
        }
    }

    /// Runs until every requester is gone and everything they asked for is done.
    ///
    /// # Cancel safety
    /// Dropping the future drops what is under way; whoever waits for it learns
    /// [`SendFailure::SenderCancelled`].
    pub async fn run(self) {
        let Self {
            mut queue,
            pipeline,
            limits,
        } = self;
        let mut running: FuturesUnordered<BoxFuture<'static, _>> = FuturesUnordered::new();
        let mut parked: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut reporting: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !running.is_empty() || !parked.is_empty() || !reporting.is_empty() {
            metrics::occupancy(running.len(), parked.len());
            tokio::select! {
                // Finish what has begun before taking more.
                biased;
                Some((reply, report, response)) = running.next(), if !running.is_empty() => {
                    let response = match response {
                        SendMessageResponse::PendingDiscovery(pending) => {
                            park(pending, &mut parked, limits.parked)
                        }
                        response => response,
                    };
                    match report {
                        Some(report) => reporting.push(tell(report, response).boxed()),
                        None => answer(reply, response),
                    }
                }
                Some(()) = parked.next(), if !parked.is_empty() => {}
                Some(()) = reporting.next(), if !reporting.is_empty() => {}
                submission = queue.recv(), if is_open && running.len() < limits.concurrent => {
                    match submission {
                        Some(Submission { request, reply, report, permit }) => {
                            let sending = send(pipeline.clone(), request, limits.timeout);
                            let sent = sending.map(|response| {
                                drop(permit);
                                (reply, report, response)
                            });
                            // One box a request: the type of the pipeline's future cannot be named here.
                            running.push(sent.boxed());
                        }
                        None => is_open = false,
                    }
                }
            }
        }
    }
}

async fn send<S>(mut pipeline: S, request: SendRequest, timeout: Duration) -> SendMessageResponse
where
    S: Service<SendRequest, Response = SendMessageResponse, Error = BoxError>,
{
    let sending = async {
        poll_fn(|cx| pipeline.poll_ready(cx)).await?;
        pipeline.call(request).await
    };
    match tokio::time::timeout(timeout, sending).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::warn!(%error, "outbound pipeline failed");
            SendFailure::PipelineFailed.into()
        }
        Err(_elapsed) => SendFailure::TimedOut.into(),
    }
}

/// Sets a search aside and gives back what only waits for it.
fn park(
    pending: PendingDiscovery,
    parked: &mut FuturesUnordered<BoxFuture<'static, ()>>,
    max: usize,
) -> SendMessageResponse {
    if parked.len() >= max {
        return SendFailure::DiscoveryFailed.into();
    }
    let (found, answer) = oneshot::channel();
    let searching = pending.map(|response| {
        let _no_longer_listening = found.send(response);
    });
    parked.push(searching.boxed());
    let waiting =
        answer.map(|answer| answer.unwrap_or_else(|_| SendFailure::SenderCancelled.into()));
    SendMessageResponse::PendingDiscovery(PendingDiscovery::new(waiting))
}

async fn tell(report: Report, response: SendMessageResponse) {
    let left = match response.resolve().await {
        Ok(states) => states.wait_single().await,
        Err(_) => false,
    };
    (report.done)(left);
}

fn answer(reply: Option<oneshot::Sender<SendMessageResponse>>, response: SendMessageResponse) {
    if let Some(reply) = reply {
        let _no_longer_listening = reply.send(response);
    }
}
