//! Synchronous steps of a stack: a [`Check`] decides at once whether a request goes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A rule that looks at a request and decides at once.
///
/// ```
/// use dht_stack::{Check, FilterLayer};
/// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
///
/// #[derive(Clone)]
/// struct AtMost(u32);
///
/// impl Check<u32> for AtMost {
///     type Out = u32;
///     type Reject = &'static str;
///
///     fn check(&self, n: u32) -> Result<u32, &'static str> {
///         if n <= self.0 { Ok(n) } else { Err("too large") }
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(FilterLayer::new(AtMost(9)))
///     .service(service_fn(|_: u32| async { Ok::<_, std::convert::Infallible>("taken") }));
/// assert_eq!(service.clone().oneshot(9).await, Ok("taken"));
/// assert_eq!(service.oneshot(10).await, Ok("too large"));
/// # });
/// ```
pub trait Check<In> {
    /// Request of the next service; may be another type than `In`.
    type Out;
    /// Why a request ends here; becomes the response of the [`Filter`].
    type Reject;

    /// Decides.
    ///
    /// # Errors
    /// If the request ends here.
    fn check(&self, request: In) -> Result<Self::Out, Self::Reject>;
}

impl<In, C: Check<In> + ?Sized> Check<In> for Arc<C> {
    type Out = C::Out;
    type Reject = C::Reject;

    fn check(&self, request: In) -> Result<C::Out, C::Reject> {
        C::check(self, request)
    }
}

/// Check that calls a function; see [`check_fn`].
#[derive(Clone, Copy, Debug)]
pub struct CheckFn<F>(F);

/// Turns a function into a [`Check`], as `tower::service_fn` turns one into a service.
///
/// ```
/// use dht_stack::{Check as _, check_fn};
///
/// let at_most_nine = check_fn(|n: u32| if n <= 9 { Ok(n) } else { Err("too large") });
/// assert_eq!(at_most_nine.check(10), Err("too large"));
/// ```
pub const fn check_fn<F>(check: F) -> CheckFn<F> {
    CheckFn(check)
}

impl<F, In, Out, Reject> Check<In> for CheckFn<F>
where
    F: Fn(In) -> Result<Out, Reject>,
{
    type Out = Out;
    type Reject = Reject;

    fn check(&self, request: In) -> Result<Out, Reject> {
        (self.0)(request)
    }
}

/// Puts a [`Check`] in front of a service.
#[derive(Clone, Copy, Debug)]
pub struct FilterLayer<C> {
    check: C,
}

/// Service produced by [`FilterLayer`]: passes on what its [`Check`] lets through, and answers the rest itself.
#[derive(Clone, Copy, Debug)]
pub struct Filter<C, S> {
    check: C,
    inner: S,
}

pin_project! {
    /// Response future of [`Filter`].
    #[derive(Debug)]
    pub struct FilterFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F, R> {
        Passed { #[pin] inner: F },
        Rejected { response: Option<R> },
    }
}

impl<C> FilterLayer<C> {
    /// A layer that asks `check` about each request.
    pub const fn new(check: C) -> Self {
        Self { check }
    }
}

impl<C: Clone, S> Layer<S> for FilterLayer<C> {
    type Service = Filter<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Filter {
            check: self.check.clone(),
            inner,
        }
    }
}

impl<In, C, S> Service<In> for Filter<C, S>
where
    C: Check<In>,
    S: Service<C::Out>,
    S::Response: From<C::Reject>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FilterFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: In) -> Self::Future {
        let state = match self.check.check(request) {
            Ok(request) => State::Passed {
                inner: self.inner.call(request),
            },
            Err(reject) => State::Rejected {
                response: Some(reject.into()),
            },
        };
        FilterFuture { state }
    }
}

impl<F, R, E> Future for FilterFuture<F, R>
where
    F: Future<Output = Result<R, E>>,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Passed { inner } => inner.poll(cx),
            // Taken once: a future is not polled again after it is ready.
            StateProj::Rejected { response } => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready_ok};
    use tower_test::mock;

    use super::*;

    #[derive(Clone)]
    struct Even;

    impl Check<u32> for Even {
        type Out = u32;
        type Reject = &'static str;

        fn check(&self, n: u32) -> Result<u32, &'static str> {
            if n.is_multiple_of(2) {
                Ok(n)
            } else {
                Err("odd")
            }
        }
    }

    /// No room inside is felt outside, and so is room; a rejected request never gets inside.
    #[tokio::test]
    async fn readiness_is_that_of_inner_service() {
        let (mut service, mut inner) = mock::spawn_layer::<u32, &str, _>(FilterLayer::new(Even));
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert!(service.is_woken());
        assert_ready_ok!(service.poll_ready());
        let passed = service.call(4);
        let (request, reply) = inner.next_request().await.unwrap();
        assert_eq!(request, 4);
        reply.send_response("even");
        assert_eq!(passed.await.unwrap(), "even");
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        assert_eq!(service.call(5).await.unwrap(), "odd");
    }
}
