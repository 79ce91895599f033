//! Admits requests to the pipeline and sends them: what the handles and the worker have in common.

use std::time::Duration;

use dht_core::{Cause, PublicKey, SendRequest};
use dht_stack::{Place, PriorityAdmission, Room, RoomAsk};
use futures::future::BoxFuture;
use tokio::{sync::Semaphore, time::timeout};
use tower::{BoxError, ServiceExt as _};
use tower_service::Service;

use crate::{
    config::{Config, share},
    deliver::Deliveries,
    discover::Discover,
    error::SendError,
    metrics,
    queue::Queue,
};

/// State that the handles and the worker share.
pub(crate) struct Shared {
    pipeline: Box<dyn ErasedPipeline>,
    pub(crate) admission: PriorityAdmission,
    pub(crate) queue: Queue,
    searches: Semaphore,
    /// Places of requests whose delivery is reported.
    pub(crate) reports: PriorityAdmission,
    pipeline_limit: Duration,
    discovery_limit: Duration,
}

/// A pipeline whose type is hidden.
trait ErasedPipeline: Send + Sync {
    fn send(&self, request: SendRequest) -> BoxFuture<'static, Result<Deliveries, BoxError>>;
}

struct Hidden<S>(S);

impl<S> ErasedPipeline for Hidden<S>
where
    S: Service<SendRequest, Response = Deliveries, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    fn send(&self, request: SendRequest) -> BoxFuture<'static, Result<Deliveries, BoxError>> {
        Box::pin(self.0.clone().oneshot(request))
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new<S>(config: &Config, pipeline: S) -> Self
    where
        S: Service<SendRequest, Response = Deliveries, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let room = Room {
            requests: config.max_requests,
            bytes: config.max_request_bytes,
        };
        let reports = Room {
            requests: config.max_reports,
            bytes: 0,
        };
        let shares = Cause::ALL.map(share);
        Self {
            pipeline: Box::new(Hidden(pipeline)),
            admission: PriorityAdmission::new(room, &shares, config.max_waiting),
            queue: Queue::default(),
            searches: Semaphore::new(config.max_searching),
            reports: PriorityAdmission::new(reports, &shares, 0),
            pipeline_limit: Duration::from_secs(config.pipeline_seconds),
            discovery_limit: Duration::from_secs(config.discovery_seconds),
        }
    }

    pub(crate) fn admit_now(&self, request: &SendRequest) -> Result<Place, SendError> {
        if let Some(place) = self.admission.try_acquire(ask(request)) {
            return Ok(place);
        }
        if self.admission.is_closed() {
            return Err(SendError::Closed);
        }
        metrics::shed(request.priority());
        Err(SendError::Full)
    }

    /// Sends a request that has been admitted, within the time limit.
    pub(crate) async fn run(
        &self,
        request: SendRequest,
        place: Place,
    ) -> Result<Deliveries, SendError> {
        let sending = timeout(self.pipeline_limit, self.pipeline.send(request)).await;
        drop(place);
        match sending {
            Ok(Ok(deliveries)) => Ok(deliveries),
            Ok(Err(error)) => Err(match error.downcast::<SendError>() {
                Ok(error) => *error,
                Err(error) => {
                    tracing::warn!(%error, "outbound pipeline failed");
                    SendError::PipelineFailed
                }
            }),
            Err(_elapsed) => Err(SendError::TimedOut),
        }
    }

    /// Finds the recipient and sends, within one time limit.
    pub(crate) async fn search(
        &self,
        discover: &dyn Discover,
        key: PublicKey,
        request: SendRequest,
    ) -> Result<Deliveries, SendError> {
        let Ok(_searching) = self.searches.try_acquire() else {
            metrics::discovery("refused");
            return Err(SendError::Full);
        };
        tracing::debug!(peer = %key, "searching for recipient");
        let find_and_send = async {
            if let Err(error) = discover.discover(key).await {
                tracing::debug!(peer = %key, %error, "recipient not found");
                return (Err(SendError::NotFound), "failed");
            }
            let sent = match self.admission.acquire(ask(&request)).await {
                Ok(place) => self.run(request, place).await,
                Err(reason) => Err(reason.into()),
            };
            match sent {
                // Found, but banned or gone again.
                Err(SendError::NobodySelected) => (Err(SendError::NotFound), "unusable"),
                sent => (sent, "found"),
            }
        };
        let found = timeout(self.discovery_limit, find_and_send).await;
        let (sent, outcome) = found.unwrap_or((Err(SendError::NotFound), "timed_out"));
        metrics::discovery(outcome);
        sent
    }
}

pub(crate) fn ask(request: &SendRequest) -> RoomAsk {
    RoomAsk {
        level: request.priority() as usize,
        cause: request.cause() as usize,
        requester: request.requester().map(|requester| *requester.as_bytes()),
        bytes: request.bytes(),
    }
}
