//! What is logged of a request on its way in and of each message on its way out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::{OutboundMessage, SendMessageResponse, SendRequest, metrics};

/// Opens the span `outbound{tag, strategy}` around a request, logs it, and counts its outcome.
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
    S: Service<SendRequest, Response = SendMessageResponse>,
{
    type Response = SendMessageResponse;
    type Error = S::Error;
    type Future = LogRequestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let strategy = request.strategy().name();
        // The tag may still be unknown; selection records it.
        let span = tracing::debug_span!("outbound", tag = tracing::field::Empty, strategy);
        let future = span.in_scope(|| {
            let priority = request.priority().name();
            match &request {
                SendRequest::Forward { frame, .. } => {
                    tracing::debug!(bytes = frame.len(), priority, "forwarding");
                }
                SendRequest::Message { params, payload } => tracing::debug!(
                    bytes = payload.len(),
                    priority,
                    kind = params.message_type.name(),
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

impl<F, E> Future for LogRequestFuture<F>
where
    F: Future<Output = Result<SendMessageResponse, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let result = ready!(this.future.poll(cx));
        let outcome = result.as_ref().map_or("error", SendMessageResponse::name);
        metrics::request(this.strategy, outcome);
        tracing::debug!(outcome, "answered");
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
    use crate::{MessageSendStates, SendParams};

    #[tokio::test]
    async fn logging_changes_nothing_and_hides_no_pressure() {
        let (mut service, mut inner) =
            mock::spawn_layer::<SendRequest, SendMessageResponse, _>(LogRequestLayer);
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let params = SendParams::builder().with_debug_info("note").finish();
        let request = SendRequest::new(params.clone(), crate::Payload::Part("hi".into()));
        let mut call = task::spawn(service.call(request));
        assert_pending!(call.poll());
        let (seen, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
        assert!(matches!(seen, SendRequest::Message { params: seen, .. } if *seen == params));
        send.send_response(SendMessageResponse::Queued(MessageSendStates::default()));
        assert_eq!(assert_ready_ok!(call.poll()).name(), "nobody");
    }
}
