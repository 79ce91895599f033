//! The one door of everything a node sends: specification 04, sections 1, 8 and 11.1.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{NodeIdentity, OnDelivery, SendQueue, SendQueueError, SendRequest};
use dht_stack::RoomAsk;
use futures::future::BoxFuture;
use tower::BoxError;
use tower_service::Service;

use crate::{
    config::Config,
    deliver::Deliveries,
    discover::Discover,
    error::SendError,
    queue::{Job, Report},
    shared::{Shared, ask},
    worker::Worker,
};

/// Takes every message that a node sends. Cheap to clone.
///
/// Requests are admitted once, bounded in number and bytes: the more important may fill more of the room, and each
/// [`Cause`](dht_core::Cause) keeps to a share of it. As a tower service it waits for room, callers of a cause in the order in which they
/// came, and seals on the caller's task, so that many callers use many cores. As a [`SendQueue`] it never waits: what finds no
/// room is refused, and what is taken runs on the [`Worker`].
///
/// With a [`Discover`], the recipient of a direct message that is not known is searched for; meanwhile the request holds
/// no room.
///
/// # Cancel safety
/// Dropping the future of a call before it is ready may keep the message from being sent. It holds no room afterwards.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{
///     Message, Entropy, Features, ManualClock, NodeIdentity, Payload, SecretKey, SeededEntropy, SendParams,
///     SendRequest, UnixSeconds,
/// };
/// use dht_dedup::DedupTable;
/// use dht_outbound::{Config, Outbound, OutboundMessage, PipelineParts, SendError, pipeline};
/// use dht_peers::{Connections, Directory};
/// use tower::{BoxError, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let entropy = Arc::new(SeededEntropy::new(1));
/// let now = UnixSeconds(1_700_000_000);
/// let mut rng = entropy.rng();
/// let me = NodeIdentity::new(SecretKey::random(&mut rng), Features::NODE, vec![], now, &mut rng);
/// let parts = PipelineParts {
///     connections: Connections::new(),
///     directory: Directory::new(*me.node_id()),
///     identity: Arc::new(me),
///     clock: Arc::new(ManualClock::new(now)),
///     entropy,
///     dedup: DedupTable::new(1_000, [1; 16]),
/// };
/// let sink = service_fn(|message: OutboundMessage| async move {
///     message.reply.send(Ok(()));
///     Ok::<_, BoxError>(())
/// });
/// let config = Config::default();
/// let (outbound, worker) = Outbound::new(&config, pipeline(parts, &config, sink));
/// tokio::spawn(worker.run()); // ends with the last `Outbound`
///
/// let hello = Payload::Domain(Message::new(1, &b"hello"[..]));
/// let request = SendRequest::new(SendParams::builder().broadcast(vec![]).finish(), hello);
/// let nobody_is_connected = outbound.oneshot(request).await;
/// assert_eq!(nobody_is_connected.err(), Some(SendError::NobodySelected));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Outbound {
    pub(crate) shared: Arc<Shared>,
    discover: Option<Arc<dyn Discover>>,
    _open: Arc<Open>,
}

/// Ends the worker once the last handle is gone.
struct Open(Arc<Shared>);

// === impl Outbound ===

impl Outbound {
    /// Sends through `pipeline`: [`pipeline`](crate::pipeline), or another with the same shape. Run the worker for as long
    /// as anything is sent; when it is dropped, requests are refused as [closed](SendError::Closed).
    pub fn new<S>(config: &Config, pipeline: S) -> (Self, Worker)
    where
        S: Service<SendRequest, Response = Deliveries, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let shared = Arc::new(Shared::new(config, pipeline));
        let outbound = Self {
            _open: Arc::new(Open(Arc::clone(&shared))),
            shared: Arc::clone(&shared),
            discover: None,
        };
        (outbound, Worker::new(shared))
    }

    /// The same door for requests that may [search](dht_core::SendParams::discovery) for their recipient. The requests of `discover`
    /// itself go through a handle without it.
    #[must_use]
    pub fn with_discovery(&self, discover: Arc<dyn Discover>) -> Self {
        Self {
            discover: Some(discover),
            ..self.clone()
        }
    }

    /// Sends a request, and waits for room. The future resolves when every copy is in its peer's queue or refused by it.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, request: SendRequest) -> Result<Deliveries, SendError> {
        // Only what may come back is kept: a clone takes an allocation.
        let again = match (&self.discover, request.discoverable()) {
            (Some(discover), Some(key)) => Some((discover, *key, request.clone())),
            _ => None,
        };
        let place = self.shared.admission.acquire(ask(&request)).await?;
        let first = self.shared.run(request, place).await;
        match (first, again) {
            (Err(SendError::NobodySelected), Some((discover, key, request))) => {
                self.shared.search(&**discover, key, request).await
            }
            (result, _) => result,
        }
    }

    /// As [`send`](Self::send), without waiting for room.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Full`] if there is no room now.
    pub async fn send_now(&self, request: SendRequest) -> Result<Deliveries, SendError> {
        let place = self.shared.admit_now(&request)?;
        self.shared.run(request, place).await
    }

    /// Announces this node to its neighbourhood with a [join](SendRequest::join).
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if no node is connected or known.
    pub async fn join(&self, me: &NodeIdentity, nonce: u64) -> Result<Deliveries, SendError> {
        self.send(SendRequest::join(me, nonce)).await
    }

    fn queue(&self, request: SendRequest, report: Option<Report>) -> Result<(), SendQueueError> {
        let place = self.shared.admit_now(&request)?;
        self.shared.queue.push(Job {
            request,
            place,
            report,
        });
        Ok(())
    }
}

impl Service<SendRequest> for Outbound {
    type Response = Deliveries;
    type Error = SendError;
    // The outer edge, and it awaits.
    type Future = BoxFuture<'static, Result<Deliveries, SendError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        // Whether there is room depends on the request, so the call waits, in order of arrival.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let outbound = self.clone();
        Box::pin(async move { outbound.send(request).await })
    }
}

impl SendQueue for Outbound {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        self.queue(request, None)
    }

    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), SendQueueError> {
        // The message itself has its place in the other admission.
        let ask = RoomAsk {
            bytes: 0,
            ..ask(&request)
        };
        let place = self.shared.reports.try_acquire(ask);
        let place = place.ok_or(SendQueueError::Full)?;
        self.queue(request, Some(Report::new(done, place)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.queue.end();
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("admission", &self.shared.admission)
            .field("discovers", &self.discover.is_some())
            .finish_non_exhaustive()
    }
}
