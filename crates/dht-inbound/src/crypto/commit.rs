//! Remembers a message for this node once its application has it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use dht_core::Disposition;
use dht_dedup::Reservation;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::message::{Deduped, InboundEnvelope};

/// Layer that produces [`Commit`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitLayer;

/// Commits or drops the [`Reservation`] of a message by its disposition. A message that no part of this node took - no application
/// listens, its inbox is full, a part of the node failed, the future was dropped - is forgotten, so that another copy is
/// delivered. Every other one is remembered. A copy that comes in between is a duplicate.
#[derive(Clone, Debug)]
pub struct Commit<S> {
    inner: S,
}

pin_project! {
    /// Response future of [`Commit`].
    #[derive(Debug)]
    pub struct CommitFuture<F> {
        #[pin]
        inner: F,
        reservation: Option<Reservation>,
    }
}

impl<S> Layer<S> for CommitLayer {
    type Service = Commit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Commit { inner }
    }
}

impl<S> Service<InboundEnvelope<Deduped>> for Commit<S>
where
    S: Service<InboundEnvelope<Deduped>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = CommitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut message: InboundEnvelope<Deduped>) -> Self::Future {
        let reservation = message.envelope.reservation.take();
        CommitFuture {
            inner: self.inner.call(message),
            reservation,
        }
    }
}

impl<F, E> Future for CommitFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        let reservation = this.reservation.take();
        if let (Some(reservation), Ok(disposition)) = (reservation, &outcome)
            && !matches!(disposition, Disposition::Dropped(reason) if reason.is_temporary())
        {
            reservation.commit();
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests;
