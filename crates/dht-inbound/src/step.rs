//! The future of layers that wait for work done elsewhere before they call the next service.

use std::{
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use dht_core::Disposition;
use dht_stack::BoxError;
use pin_project_lite::pin_project;

/// What to do with the outcome of the work: call the next service, or end the message's way.
pub trait Next<T> {
    /// The next service's future.
    type Future;

    /// Decides.
    ///
    /// # Errors
    /// If a part of this node does not work; the message is lost.
    fn next(self, outcome: T) -> Result<ControlFlow<Disposition, Self::Future>, BoxError>;
}

pin_project! {
    /// Response future of a layer that waits first. Holds the next service, already made ready, meanwhile.
    #[derive(Debug)]
    pub struct Step<W, N, F> {
        #[pin]
        state: State<W, N, F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<W, N, F> {
        Working { #[pin] work: W, next: Option<N> },
        Inner { #[pin] inner: F },
        Ended { disposition: Disposition },
        Failed { error: Option<BoxError> },
    }
}

impl<W, N, F> Step<W, N, F> {
    /// Waits for `work`, then asks `next`.
    pub const fn new(work: W, next: N) -> Self {
        Self {
            state: State::Working {
                work,
                next: Some(next),
            },
        }
    }

    /// There is nothing to wait for.
    pub const fn passed(inner: F) -> Self {
        Self {
            state: State::Inner { inner },
        }
    }

    /// There is nothing more to do.
    #[must_use]
    pub const fn ended(disposition: Disposition) -> Self {
        Self {
            state: State::Ended { disposition },
        }
    }

    /// A part of this node does not work.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self {
            state: State::Failed {
                error: Some(error.into()),
            },
        }
    }
}

impl<W, T, WE, N, F, FE> Future for Step<W, N, F>
where
    W: Future<Output = Result<T, WE>>,
    WE: Into<BoxError>,
    N: Next<T, Future = F>,
    F: Future<Output = Result<Disposition, FE>>,
    FE: Into<BoxError>,
{
    type Output = Result<Disposition, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let then = match state.as_mut().project() {
                StateProj::Working { work, next } => {
                    let outcome = ready!(work.poll(cx)).map_err(Into::into)?;
                    match next.take().map(|next| next.next(outcome)).transpose()? {
                        Some(ControlFlow::Continue(inner)) => State::Inner { inner },
                        Some(ControlFlow::Break(disposition)) => State::Ended { disposition },
                        // Unreachable: `next` is taken once, and the state replaced right below.
                        None => return Poll::Pending,
                    }
                }
                StateProj::Inner { inner } => return inner.poll(cx).map_err(Into::into),
                StateProj::Failed { error } => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
                StateProj::Ended { disposition } => return Poll::Ready(Ok(*disposition)),
            };
            state.set(then);
        }
    }
}
