//! Searching for a recipient nobody knows: specification 04, sections 5.2 and 11.1.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use dht_core::PublicKey;
use dht_stack::BoxError;
use futures::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{PendingDiscovery, SendFailure, SendMessageResponse, SendRequest, metrics};

/// Finds a peer by its key. A closure that returns a future is one.
///
/// Implementations bound and join searches for the same key: a remote party can choose which keys are sent to.
pub trait Discover: Send + Sync + 'static {
    /// Searches. On success the peer is in the [`Directory`](dht_peers::Directory), where the message then finds it.
    ///
    /// Dropping the future ends the search.
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>>;
}

impl<F, R> Discover for F
where
    F: Fn(PublicKey) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn discover(&self, key: PublicKey) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(self(key))
    }
}

/// Searches for the recipient of a direct message that was queued for nobody, if the request allows it, and then
/// sends again.
///
/// The first answer, [`SendMessageResponse::PendingDiscovery`], comes at once: while the search goes on the request
/// occupies no place in the pipeline. One deadline covers search and sending.
///
/// Specification 04, sections 5.2 and 11.1.
#[derive(Clone)]
pub struct DiscoverLayer {
    discover: Option<Arc<dyn Discover>>,
    timeout: Duration,
}

/// Service produced by [`DiscoverLayer`].
#[derive(Clone)]
pub struct DiscoverService<S> {
    layer: DiscoverLayer,
    inner: S,
}

pin_project! {
    /// Response future of [`DiscoverService`].
    pub struct DiscoverFuture<F, S> {
        #[pin]
        future: F,
        search: Option<Search<S>>,
    }
}

/// A request that may have to search for its recipient.
struct Search<S> {
    discover: Arc<dyn Discover>,
    timeout: Duration,
    key: PublicKey,
    request: SendRequest,
    inner: S,
}

// === impl DiscoverLayer ===

impl DiscoverLayer {
    /// Searches with `discover`, for at most `timeout` including the sending.
    #[must_use]
    pub const fn new(discover: Arc<dyn Discover>, timeout: Duration) -> Self {
        Self {
            discover: Some(discover),
            timeout,
        }
    }

    /// Never searches.
    #[must_use]
    pub const fn disabled() -> Self {
        Self {
            discover: None,
            timeout: Duration::ZERO,
        }
    }
}

impl<S> Layer<S> for DiscoverLayer {
    type Service = DiscoverService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DiscoverService {
            layer: self.clone(),
            inner,
        }
    }
}

// === impl DiscoverService ===

impl<S> Service<SendRequest> for DiscoverService<S>
where
    S: Service<SendRequest, Response = SendMessageResponse> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = SendMessageResponse;
    type Error = S::Error;
    type Future = DiscoverFuture<S::Future, S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let search = match (&self.layer.discover, request.discoverable()) {
            (Some(discover), Some(key)) => Some(Search {
                discover: Arc::clone(discover),
                timeout: self.layer.timeout,
                key: *key,
                request: request.clone(),
                // Not ready yet; it is readied when the peer is found.
                inner: self.inner.clone(),
            }),
            _ => None,
        };
        DiscoverFuture {
            future: self.inner.call(request),
            search,
        }
    }
}

impl<F, E, S> Future for DiscoverFuture<F, S>
where
    F: Future<Output = Result<SendMessageResponse, E>>,
    S: Service<SendRequest, Response = SendMessageResponse> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        Poll::Ready(match (response, this.search.take()) {
            (Ok(SendMessageResponse::Queued(states)), Some(search)) if states.is_empty() => {
                // Boxed: it awaits, outlives this future, and is far rarer and slower than a send.
                let pending = PendingDiscovery::new(search.run());
                Ok(SendMessageResponse::PendingDiscovery(pending))
            }
            (response, _) => response,
        })
    }
}

impl<S> Search<S>
where
    S: Service<SendRequest, Response = SendMessageResponse>,
    S::Error: Into<BoxError>,
{
    async fn run(self) -> SendMessageResponse {
        let Self {
            discover,
            timeout,
            key,
            request,
            mut inner,
        } = self;
        tracing::debug!(peer = %key, "searching for recipient");
        let find_and_send = async {
            discover.discover(key).await?;
            poll_fn(|cx| inner.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            inner.call(request).await.map_err(Into::into)
        };
        let (response, outcome) = match tokio::time::timeout(timeout, find_and_send).await {
            Ok(Ok(SendMessageResponse::Queued(states))) if states.is_empty() => {
                // Found, but banned or gone again.
                (SendFailure::DiscoveryFailed.into(), "unusable")
            }
            Ok(Ok(response)) => (response, "found"),
            Ok(Err(error)) => {
                tracing::debug!(peer = %key, %error, "recipient not found");
                (SendFailure::DiscoveryFailed.into(), "failed")
            }
            Err(_elapsed) => (SendFailure::DiscoveryFailed.into(), "timed_out"),
        };
        metrics::discovery(outcome);
        response
    }
}

impl fmt::Debug for DiscoverLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverLayer")
            .field("enabled", &self.discover.is_some())
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for DiscoverService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<F: fmt::Debug, S> fmt::Debug for DiscoverFuture<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverFuture")
            .field("future", &self.future)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
