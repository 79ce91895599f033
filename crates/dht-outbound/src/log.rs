//! Logs each request on its way in and each message on its way out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use dht_core::SendRequest;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::{
    deliver::{Deliveries, OutboundMessage},
    error::SendError,
    metrics,
};

/// Opens the span `outbound{tag, strategy, kind, disposition}` around a request, logs it, and counts its outcome, which
/// is the `disposition`. A forwarded message's `kind` is `forward`: its header is not read again.
///
/// Specification 04, section 1, layer 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRequestLayer;

/// Service produced by [`LogRequestLayer`].
#[derive(Clone, Debug)]
pub struct LogRequest<S>(S);

/// Logs each message before it is handed to the sink. Never its body.
///
/// Specification 04, section 1, layer 3.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMessageLayer;

/// Service produced by [`LogMessageLayer`].
#[derive(Clone, Debug)]
pub struct LogMessage<S>(S);

pin_project! {
    /// Response future of [`LogRequest`].
    #[derive(Debug)]
    pub struct LogRequestFuture<F> {
        #[pin]
        future: F,
        span: Span,
        strategy: &'static str,
    }
}

// === impl LogRequest ===

impl<S> Layer<S> for LogRequestLayer {
    type Service = LogRequest<S>;

    fn layer(&self, inner: S) -> LogRequest<S> {
        LogRequest(inner)
    }
}

impl<S> Service<SendRequest> for LogRequest<S>
where
    S: Service<SendRequest, Response = Deliveries, Error = BoxError>,
{
    type Response = Deliveries;
    type Error = BoxError;
    type Future = LogRequestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let strategy = request.strategy().name();
        // The tag may still be unknown; selection records it.
        let kind = match &request {
            SendRequest::Forward { .. } => "forward",
            SendRequest::Message { params, .. } => params.message_type.name(),
        };
        let span = tracing::debug_span!(
            "outbound",
            tag = tracing::field::Empty,
            strategy,
            kind,
            disposition = tracing::field::Empty,
        );
        let future = span.in_scope(|| {
            let priority = request.priority().name();
            match &request {
                SendRequest::Forward { frame, .. } => {
                    tracing::debug!(bytes = frame.len(), priority, "forwarding");
                }
                SendRequest::Message { params, payload } => tracing::debug!(
                    bytes = payload.len(),
                    priority,
                    encrypted = params.encryption != dht_core::Encryption::Clear,
                    note = params.debug_info.as_deref(),
                    "sending"
                ),
            }
            self.0.call(request)
        });
        LogRequestFuture {
            future,
            span,
            strategy,
        }
    }
}

impl<F> Future for LogRequestFuture<F>
where
    F: Future<Output = Result<Deliveries, BoxError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let result = ready!(this.future.poll(cx));
        let outcome = match &result {
            Ok(_) => "queued",
            Err(error) => error
                .downcast_ref::<SendError>()
                .map_or("error", SendError::name),
        };
        metrics::request(this.strategy, outcome);
        this.span.record("disposition", outcome);
        tracing::debug!("answered");
        Poll::Ready(result)
    }
}

// === impl LogMessage ===

impl<S> Layer<S> for LogMessageLayer {
    type Service = LogMessage<S>;

    fn layer(&self, inner: S) -> LogMessage<S> {
        LogMessage(inner)
    }
}

impl<S> Service<OutboundMessage> for LogMessage<S>
where
    S: Service<OutboundMessage>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, message: OutboundMessage) -> S::Future {
        let (peer, bytes) = (message.to, message.frame.len());
        tracing::debug!(%peer, bytes, priority = message.priority.name(), "to sink");
        self.0.call(message)
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
    use tower_test::mock;

    use super::*;
    use dht_core::{Payload, SendParams};

    /// Writes down the fields of every span.
    #[derive(Clone, Default)]
    struct Fields(std::sync::Arc<parking_lot::Mutex<String>>);

    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            use std::fmt::Write as _;
            let _ = write!(self.0.lock(), "{field}={value:?} ");
        }
    }

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Fields {
        fn on_new_span(
            &self,
            span: &tracing::span::Attributes<'_>,
            _: &tracing::span::Id,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            span.record(&mut self.clone());
        }

        fn on_record(
            &self,
            _: &tracing::span::Id,
            values: &tracing::span::Record<'_>,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            values.record(&mut self.clone());
        }
    }

    #[test]
    fn the_span_tells_kind_and_outcome() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let fields = Fields::default();
        let subscriber = tracing_subscriber::registry().with(fields.clone());
        tracing::subscriber::with_default(subscriber, || {
            let mut service = LogRequestLayer.layer(tower::service_fn(|_: SendRequest| {
                std::future::ready(Err::<Deliveries, _>(BoxError::from(
                    SendError::NobodySelected,
                )))
            }));
            let params = SendParams::builder().broadcast(vec![]).finish();
            let request = SendRequest::new(params, Payload::Part("hi".into()));
            let answered = task::spawn(service.call(request)).poll();
            assert!(assert_ready!(answered).is_err());
        });
        let seen = fields.0.lock().clone();
        let expected = "strategy=\"broadcast\" kind=\"domain\" disposition=\"nobody\" ";
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn logging_changes_nothing() {
        let (mut service, mut inner) =
            mock::spawn_layer::<SendRequest, Deliveries, _>(LogRequestLayer);
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let params = SendParams::builder().with_debug_info("note").finish();
        let request = SendRequest::new(params.clone(), Payload::Part("hi".into()));
        let mut call = task::spawn(service.call(request));
        assert_pending!(call.poll());
        let (seen, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
        assert!(matches!(seen, SendRequest::Message { params: seen, .. } if *seen == params));
        send.send_response(Deliveries::default());
        assert!(assert_ready_ok!(call.poll()).is_empty());
    }
}
