//! The tower layer that answers requests for stored messages and takes responses: 05 sections 6 and 8.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use dht_core::{Content, DedupHash, Deliverer, Disposition, DropReason, InTransit, MessageType};
use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{fetch::Fetcher, metrics, serve::Server};

/// Serves requests for stored messages and takes responses to this node's own; passes all other messages on.
#[derive(Clone, Debug)]
pub struct SafLayer {
    /// `None` on a node that stores nothing.
    server: Option<Arc<Server>>,
    fetcher: Arc<Fetcher>,
}

/// Service produced by [`SafLayer`].
#[derive(Clone, Debug)]
pub struct SafService<S> {
    layer: SafLayer,
    inner: S,
}

pin_project! {
    /// Response future of [`SafService`].
    #[project = SafFutureProj]
    #[allow(missing_docs, missing_debug_implementations, reason = "opaque")]
    pub enum SafFuture<F> {
        Passed { #[pin] inner: F, arrival: Option<Arrival> },
        // Boxed: messages of this protocol are rare, and await files and many deliveries.
        Own { work: BoxFuture<'static, Disposition> },
    }
}

/// A message for the application on its way there. Its outcome is recorded once that is known: only for a
/// delivered message is a receipt given and the ledger written.
#[derive(Debug)]
struct Arrival {
    fetcher: Arc<Fetcher>,
    hash: DedupHash,
    /// Deliverer of the message, if other nodes may store it too.
    relayed_by: Option<Deliverer>,
    decided: bool,
}

/// Whether a message came through other nodes, which may store it; not if its origin delivered it itself.
fn is_relayed(message: &impl InTransit) -> bool {
    let opened = message.opened();
    opened.header.is_encrypted() && opened.origin() != Some(&message.source().public_key)
}

impl Arrival {
    fn ended(&mut self, disposition: Disposition) {
        // A duplicate that got this far is one of the application's own inbox.
        let duplicate = Disposition::Dropped(DropReason::Duplicate);
        if disposition == Disposition::Delivered || disposition == duplicate {
            self.decided = true;
            self.fetcher.delivered(self.hash, self.relayed_by);
        }
    }
}

impl Drop for Arrival {
    /// Neither delivered nor going to be: those that wait for a receipt are told.
    fn drop(&mut self) {
        if !self.decided {
            self.fetcher.not_delivered(&self.hash);
        }
    }
}

impl SafLayer {
    pub(crate) const fn new(server: Option<Arc<Server>>, fetcher: Arc<Fetcher>) -> Self {
        Self { server, fetcher }
    }
}

impl<S> Layer<S> for SafLayer {
    type Service = SafService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SafService {
            layer: self.clone(),
            inner,
        }
    }
}

impl<M, S> Service<M> for SafService<S>
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
            let arrival = (readable && kind.is_domain()).then(|| Arrival {
                fetcher: Arc::clone(&self.layer.fetcher),
                hash: message.hash(),
                relayed_by: is_relayed(&message).then(|| Deliverer::from(&**message.source())),
                decided: false,
            });
            return SafFuture::Passed {
                inner: self.inner.call(message),
                arrival,
            };
        }
        if !readable {
            return SafFuture::dropped(DropReason::NotForUs);
        }
        if message.occurrences() > 1 {
            return SafFuture::dropped(DropReason::Duplicate);
        }
        let work: BoxFuture<'static, Disposition> = if kind == MessageType::SafRequestMessages {
            let Some(server) = self.layer.server.clone() else {
                metrics::request("not_a_store");
                return SafFuture::dropped(DropReason::RoleFilter);
            };
            Box::pin(async move {
                let part = message.opened().parts().and_then(<[_]>::first);
                server.serve(message.source(), part).await
            })
        } else {
            // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
            let unready = self.inner.clone();
            let inner = mem::replace(&mut self.inner, unready);
            let fetcher = Arc::clone(&self.layer.fetcher);
            Box::pin(async move { fetcher.receive(message, inner).await })
        };
        SafFuture::Own { work }
    }
}

impl<F> SafFuture<F> {
    fn dropped(reason: DropReason) -> Self {
        let work = Box::pin(async move { Disposition::Dropped(reason) });
        Self::Own { work }
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
            SafFutureProj::Passed { inner, arrival } => {
                let outcome = ready!(inner.poll(cx)).map_err(Into::into);
                if let (Some(arrival), Ok(disposition)) = (arrival, &outcome) {
                    arrival.ended(*disposition);
                }
                Poll::Ready(outcome)
            }
            SafFutureProj::Own { work } => work.as_mut().poll(cx).map(Ok),
        }
    }
}
