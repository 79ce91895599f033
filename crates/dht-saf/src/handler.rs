//! The layer that serves requests and accepts answers: sections 6 and 8. Never calls the next layer for its own
//! kinds of messages.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use dht_core::{Content, Disposition, DropReason, InTransit, MessageType};
use dht_stack::BoxError;
use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::saf::Saf;

/// Serves requests for stored mail and accepts answers; passes everything else on.
#[derive(Clone, Debug)]
pub struct SafLayer {
    saf: Saf,
}

/// Service produced by [`SafLayer`].
#[derive(Clone, Debug)]
pub struct SafHandler<S> {
    saf: Saf,
    inner: S,
}

pin_project! {
    /// Response future of [`SafHandler`].
    #[project = SafFutureProj]
    #[allow(missing_docs, missing_debug_implementations, reason = "opaque")]
    pub enum SafFuture<F> {
        Passed { #[pin] inner: F },
        // Store-and-forward's own messages are rare, and wait for files and for many deliveries.
        Handled { work: BoxFuture<'static, Disposition> },
    }
}

impl SafLayer {
    pub(crate) const fn new(saf: Saf) -> Self {
        Self { saf }
    }
}

impl<S> Layer<S> for SafLayer {
    type Service = SafHandler<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SafHandler {
            saf: self.saf.clone(),
            inner,
        }
    }
}

impl<M, S> Service<M> for SafHandler<S>
where
    M: InTransit + Sync,
    S: Service<M, Response = Disposition, Error: Into<BoxError> + Send, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = SafFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: M) -> Self::Future {
        let kind = message.opened().header.message_type;
        let readable = matches!(message.opened().content, Content::Readable { .. });
        if !kind.is_saf() {
            if readable {
                self.saf.note(&message);
            }
            return SafFuture::Passed {
                inner: self.inner.call(message),
            };
        }
        if message.occurrences() > 1 || !readable {
            let reason = if readable {
                DropReason::Duplicate
            } else {
                DropReason::NotForUs
            };
            let work = Box::pin(async move { Disposition::Dropped(reason) });
            return SafFuture::Handled { work };
        }
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unready);
        let saf = self.saf.clone();
        let work: BoxFuture<'static, Disposition> = if kind == MessageType::SafRequestMessages {
            Box::pin(async move {
                let part = message.opened().parts().and_then(<[_]>::first);
                saf.serve(message.source(), part).await
            })
        } else {
            Box::pin(async move { saf.receive(message, inner).await })
        };
        SafFuture::Handled { work }
    }
}

impl<F, E> Future for SafFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Disposition, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            SafFutureProj::Passed { inner } => inner.poll(cx).map_err(Into::into),
            SafFutureProj::Handled { work } => work.as_mut().poll(cx).map(Ok),
        }
    }
}
