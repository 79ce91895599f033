//! The tower layer that stores messages for offline peers: 05 section 2.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason, InTransit};
use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::keeper::Keeper;

/// Stores messages for offline peers of this node's region, marks them as stored or not, and passes every message on.
///
/// A message is passed on after its commit. A message that the store refuses, for whatever reason, is passed on as
/// not stored: a node with a full or broken disk goes on relaying.
#[derive(Clone, Debug)]
pub struct StoreLayer {
    keeper: Arc<Keeper>,
}

/// Service produced by [`StoreLayer`].
#[derive(Clone, Debug)]
pub struct StoreService<S> {
    keeper: Arc<Keeper>,
    inner: S,
}

pin_project! {
    /// Response future of [`StoreService`].
    #[project = StoreFutureProj]
    #[allow(missing_docs, missing_debug_implementations, reason = "opaque")]
    pub enum StoreFuture<F> {
        Passed { #[pin] inner: F },
        // Boxed, as it awaits the commit before it calls the inner service.
        Storing { work: BoxFuture<'static, Result<Disposition, BoxError>> },
    }
}

impl StoreLayer {
    pub(crate) const fn new(keeper: Arc<Keeper>) -> Self {
        Self { keeper }
    }
}

impl<S> Layer<S> for StoreLayer {
    type Service = StoreService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StoreService {
            keeper: Arc::clone(&self.keeper),
            inner,
        }
    }
}

impl<M, S> Service<M> for StoreService<S>
where
    M: InTransit,
    S: Service<M, Response = Disposition, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = StoreFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut message: M) -> Self::Future {
        let Some(record) = self.keeper.accept(&mut message) else {
            return StoreFuture::Passed {
                inner: self.inner.call(message),
            };
        };
        let keeper = Arc::clone(&self.keeper);
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, unready);
        let work = Box::pin(async move {
            let stored = keeper.insert(record, &mut message).await;
            let disposition = inner.call(message).await.map_err(Into::into)?;
            Ok(match disposition {
                // No inner layer could use the message, but it is stored here.
                Disposition::Dropped(DropReason::NotForUs | DropReason::Overload) if stored => {
                    Disposition::Stored
                }
                disposition => disposition,
            })
        });
        StoreFuture::Storing { work }
    }
}

impl<F, E> Future for StoreFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Disposition, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            StoreFutureProj::Passed { inner } => inner.poll(cx).map_err(Into::into),
            StoreFutureProj::Storing { work } => work.as_mut().poll(cx),
        }
    }
}
