//! One span and one count per message: the outermost layer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use dht_core::Disposition;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, debug_span, field};

use crate::{Received, metrics::Outcomes};

/// Wraps each message in a span and counts what became of it.
///
/// The span `inbound` has the fields `source`, `bytes`, `tag` and `kind` (once decoded), and `disposition` at the
/// end. Counters are looked up when the layer is made: install the metrics recorder before.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    outcomes: Arc<Outcomes>,
}

/// Service produced by [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct Observe<S> {
    outcomes: Arc<Outcomes>,
    inner: S,
}

pin_project! {
    /// Response future of [`Observe`].
    #[derive(Debug)]
    pub struct ObserveFuture<F> {
        #[pin]
        inner: F,
        span: Span,
        outcomes: Arc<Outcomes>,
    }
}

// === impl ObserveLayer ===

impl ObserveLayer {
    /// Counts into the recorder installed now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            outcomes: Arc::new(Outcomes::new()),
        }
    }
}

impl Default for ObserveLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe {
            outcomes: Arc::clone(&self.outcomes),
            inner,
        }
    }
}

// === impl Observe ===

impl<S> Service<Received> for Observe<S>
where
    S: Service<Received, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: Received) -> Self::Future {
        self.outcomes.arrived(received.frame.len());
        let span = debug_span!(
            "inbound",
            source = %received.source.node_id,
            bytes = received.frame.len(),
            tag = field::Empty,
            kind = field::Empty,
            disposition = field::Empty,
        );
        // The layers inside decide synchronously wherever they can: already in `call`.
        let inner = span.in_scope(|| self.inner.call(received));
        ObserveFuture {
            inner,
            span,
            outcomes: Arc::clone(&self.outcomes),
        }
    }
}

impl<F, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = {
            let _entered = this.span.enter();
            ready!(this.inner.poll(cx))
        };
        let disposition = outcome.as_ref().ok().copied();
        this.span.record(
            "disposition",
            disposition.map_or("error", Disposition::name),
        );
        this.outcomes.count(disposition);
        Poll::Ready(outcome)
    }
}
