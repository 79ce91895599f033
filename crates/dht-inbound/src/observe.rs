//! One span and one count per message: the outermost layer.

use dht_peers::InboundFrame;
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

use crate::metrics::{CANCELLED, Outcomes};

/// Wraps each message in a span and counts what became of it.
///
/// The span `inbound` has the fields `source`, `bytes`, `tag` and `kind` (once decoded), and `disposition` at the
/// end: the name of a [`Disposition`], `error`, or `cancelled` for a message that was given up on its way. Counters are looked up when the layer is made: install the metrics recorder before.
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
        // Until the message is counted.
        outcomes: Option<Arc<Outcomes>>,
    }

    impl<F> PinnedDrop for ObserveFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(outcomes) = this.outcomes.take() {
                this.span.record("disposition", CANCELLED);
                outcomes.cancelled();
            }
        }
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

impl<S> Service<InboundFrame> for Observe<S>
where
    S: Service<InboundFrame, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: InboundFrame) -> Self::Future {
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
            outcomes: Some(Arc::clone(&self.outcomes)),
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
        if let Some(outcomes) = this.outcomes.take() {
            outcomes.count(disposition);
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write as _};

    use dht_core::{
        ManualClock, Signing,
        test_util::{clear, identity},
    };
    use dht_stack::FilterLayer;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use parking_lot::Mutex;
    use tracing::{
        Subscriber,
        field::{Field, Visit},
        span::{Attributes, Id, Record},
        subscriber,
    };
    use tracing_subscriber::{
        layer::{Context as LayerContext, SubscriberExt as _},
        registry,
    };

    use super::*;
    use crate::{
        filter::{Decode, RateLimiter, RateLimits},
        metrics::MESSAGES,
        test_support::{self as support, Accept},
    };

    /// Writes down the fields of every span.
    #[derive(Clone, Default)]
    struct Fields(Arc<Mutex<String>>);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let _ = write!(self.0.lock(), "{field}={value:?} ");
        }
    }

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Fields {
        fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: LayerContext<'_, S>) {
            span.record(&mut self.clone());
        }

        fn on_record(&self, _: &Id, values: &Record<'_>, _: LayerContext<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    #[test]
    fn readiness_is_that_of_inner_service() {
        support::assert_readiness_is_inner::<InboundFrame, InboundFrame, _>(ObserveLayer::new());
    }

    #[test]
    fn span_has_every_field() {
        let fields = Fields::default();
        let frame = clear(&identity(3), Signing::Origin, b"x", 77);
        let (length, source) = (frame.len(), support::peer(support::DELIVERER).node_id);
        subscriber::with_default(registry().with(fields.clone()), || {
            let layer = FilterLayer::new(Decode {
                limiter: RateLimiter::new(RateLimits::default(), [0; 16]),
                clock: Arc::new(ManualClock::new(support::NOW)),
                known_in: None,
            });
            let service = ObserveLayer::new().layer(layer.layer(Accept));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let call = tower::ServiceExt::oneshot(service, support::received(frame));
            assert_eq!(runtime.block_on(call).unwrap(), Disposition::Delivered);
        });
        let expected = format!(
            "source={source} bytes={length} tag=77 kind=\"domain\" disposition=\"delivered\" "
        );
        assert_eq!(*fields.0.lock(), expected);
    }

    /// A message given up on its way is told and counted.
    #[test]
    fn cancelled_message_is_recorded_and_counted() {
        let (fields, recorder) = (Fields::default(), DebuggingRecorder::new());
        let snapshot = recorder.snapshotter();
        subscriber::with_default(registry().with(fields.clone()), || {
            ::metrics::with_local_recorder(&recorder, || {
                let slow = tower::service_fn(|_: InboundFrame| {
                    std::future::pending::<Result<Disposition, std::convert::Infallible>>()
                });
                let mut service = ObserveLayer::new().layer(slow);
                let frame = clear(&identity(3), Signing::Origin, b"x", 77);
                drop(service.call(support::received(frame)));
            });
        });
        assert!(fields.0.lock().ends_with("disposition=\"cancelled\" "));
        let counted: Vec<_> = snapshot
            .snapshot()
            .into_vec()
            .into_iter()
            .filter(|(key, _, _, value)| {
                key.key().name() == MESSAGES && *value != DebugValue::Counter(0)
            })
            .map(|(key, _, _, value)| (key.key().labels().next().cloned(), value))
            .collect();
        let label = Some(::metrics::Label::new("outcome", "cancelled"));
        assert_eq!(counted, [(label, DebugValue::Counter(1))]);
    }
}
