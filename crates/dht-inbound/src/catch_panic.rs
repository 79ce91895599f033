//! A panic costs the message on which it happened, and no other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Layer that produces [`CatchPanic`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanicLayer;

/// Ends a message as [`DropReason::Panicked`] on which the inner service panics, in its call or in its future. Without it,
/// the panic would end the worker, and with it every message under way there.
///
/// A panic in `poll_ready` belongs to no message and is not caught.
#[derive(Clone, Debug)]
pub struct CatchPanic<S>(S);

pin_project! {
    /// Response future of [`CatchPanic`].
    #[derive(Debug)]
    pub struct CatchPanicFuture<F> {
        // None once it panicked.
        #[pin]
        inner: Option<F>,
    }
}

// === impl CatchPanic ===

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CatchPanic(inner)
    }
}

impl<S, Message> Service<Message> for CatchPanic<S>
where
    S: Service<Message, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        // Unwind safe: services hold handles of shared tables, whose locks are not poisoned and which are valid between two
        // of their methods; what else the call has begun goes with the message.
        let call = AssertUnwindSafe(|| self.0.call(message));
        CatchPanicFuture {
            inner: catch_unwind(call).ok(),
        }
    }
}

impl<F, E> Future for CatchPanicFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.project().inner;
        if let Some(running) = inner.as_mut().as_pin_mut() {
            // Unwind safe: the future is not polled again.
            if let Ok(polled) = catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
                return polled;
            }
            inner.set(None);
        }
        Poll::Ready(Ok(DropReason::Panicked.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    /// Where the service panics, if it does.
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Call,
        Poll,
        Never,
    }

    #[tokio::test]
    async fn panics_cost_their_message_only() {
        let mut service = CatchPanicLayer.layer(service_fn(|at: At| {
            assert!(at != At::Call, "a test");
            async move {
                tokio::task::yield_now().await;
                assert!(at != At::Poll, "a test");
                Ok::<_, Infallible>(Disposition::Delivered)
            }
        }));
        let panicked = Disposition::Dropped(DropReason::Panicked);
        for (at, ended) in [
            (At::Call, panicked),
            (At::Poll, panicked),
            (At::Never, Disposition::Delivered),
        ] {
            let service = service.ready().await.unwrap_or_else(|never| match never {});
            assert_eq!(service.call(at).await, Ok(ended));
        }
    }

    #[test]
    fn readiness_is_that_of_inner_service() {
        crate::test_support::assert_readiness_is_inner::<u8, u8, _>(CatchPanicLayer);
    }
}
