//! Composes layers from the inside out.

use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

/// A service with the layers pushed so far around it.
#[derive(Clone, Debug)]
pub struct Stack<S>(S);

/// Starts a stack with its innermost service.
pub const fn stack<S>(inner: S) -> Stack<S> {
    Stack(inner)
}

impl<S> Stack<S> {
    /// Puts `layer` around everything pushed so far: a message meets it first.
    pub fn push<L: Layer<S>>(self, layer: L) -> Stack<L::Service> {
        Stack(layer.layer(self.0))
    }

    /// Puts `layer` around if there is one.
    pub fn push_option<L: Layer<S>>(self, layer: Option<L>) -> Stack<Either<L::Service, S>> {
        Stack(match layer {
            Some(layer) => Either::Left(layer.layer(self.0)),
            None => Either::Right(self.0),
        })
    }

    /// The identity, with a bound that puts a type error where the request type changes.
    #[must_use]
    pub fn check_service<Request>(self) -> Self
    where
        S: Service<Request>,
    {
        self
    }

    /// The composed service.
    pub fn into_inner(self) -> S {
        self.0
    }
}

/// One of two services with the same answer and the same error.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "left and right say it")]
pub enum Either<L, R> {
    Left(L),
    Right(R),
}

impl<Request, L, R> Service<Request> for Either<L, R>
where
    L: Service<Request>,
    R: Service<Request, Response = L::Response, Error = L::Error>,
{
    type Response = L::Response;
    type Error = L::Error;
    type Future = EitherFuture<L::Future, R::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Left(service) => service.poll_ready(cx),
            Self::Right(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self {
            Self::Left(service) => EitherFuture::Left {
                future: service.call(request),
            },
            Self::Right(service) => EitherFuture::Right {
                future: service.call(request),
            },
        }
    }
}

pin_project_lite::pin_project! {
    /// Response future of [`Either`].
    #[derive(Debug)]
    #[project = EitherFutureProj]
    #[allow(missing_docs, reason = "left and right say it")]
    pub enum EitherFuture<L, R> {
        Left { #[pin] future: L },
        Right { #[pin] future: R },
    }
}

impl<L, R> Future for EitherFuture<L, R>
where
    L: Future,
    R: Future<Output = L::Output>,
{
    type Output = L::Output;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            EitherFutureProj::Left { future } => future.poll(cx),
            EitherFutureProj::Right { future } => future.poll(cx),
        }
    }
}
