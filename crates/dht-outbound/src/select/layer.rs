//! Selection as a layer: what has nobody to go to ends here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{MessageTag, NodeId, SharedClock, SharedEntropy};
use dht_peers::{Connections, Directory};
use pin_project_lite::pin_project;
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tower_layer::Layer;
use tower_service::Service;

use super::{Candidates, select};
use crate::{MessageSendStates, SelectConfig, SendFailure, SendMessageResponse, SendRequest};

/// Turns a [`SendRequest`] into a [`Selected`] one. Requests for nobody are answered with no states, and requests
/// for this node alone are refused; neither goes further.
#[derive(Clone)]
pub struct SelectLayer(Arc<Shared>);

/// Service produced by [`SelectLayer`].
#[derive(Clone)]
pub struct Select<S> {
    shared: Arc<Shared>,
    inner: S,
}

struct Shared {
    connections: Connections,
    directory: Directory,
    config: SelectConfig,
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// A request and its recipients.
#[derive(Debug)]
pub struct Selected {
    /// The request.
    pub request: SendRequest,
    /// To whom; at least one.
    pub recipients: Vec<NodeId>,
    /// Whether copies may come back from others.
    pub is_broadcast: bool,
    /// Trace id.
    pub tag: MessageTag,
    /// Randomness of this message.
    pub rng: ChaCha12Rng,
}

pin_project! {
    /// Response future of [`Select`].
    #[derive(Debug)]
    pub struct SelectFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] future: F },
        Answered { response: Option<SendMessageResponse> },
    }
}

// === impl SelectLayer ===

impl SelectLayer {
    /// Selects among these peers.
    #[must_use]
    pub fn new(
        connections: Connections,
        directory: Directory,
        config: SelectConfig,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        Self(Arc::new(Shared {
            connections,
            directory,
            config,
            clock,
            entropy,
        }))
    }
}

impl<S> Layer<S> for SelectLayer {
    type Service = Select<S>;

    fn layer(&self, inner: S) -> Select<S> {
        Select {
            shared: Arc::clone(&self.0),
            inner,
        }
    }
}

// === impl Select ===

impl<S> Service<SendRequest> for Select<S>
where
    S: Service<Selected, Response = SendMessageResponse>,
{
    type Response = SendMessageResponse;
    type Error = S::Error;
    type Future = SelectFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let Shared {
            connections,
            directory,
            config,
            clock,
            entropy,
        } = &*self.shared;
        let mut rng = entropy.rng();
        let tag = match &request {
            SendRequest::Message { params, .. } => params.tag,
            SendRequest::Forward { tag, .. } => Some(*tag),
        };
        let tag = tag.unwrap_or_else(|| MessageTag(rng.next_u64()));
        tracing::Span::current().record("tag", tracing::field::display(tag));

        let connected = connections.snapshot();
        let candidates = Candidates {
            me: directory.me(),
            connected: &connected,
            directory,
            now: clock.now(),
        };
        let selection = select(request.strategy(), candidates, config, &mut rng);
        tracing::debug!(
            peers = selection.len(),
            broadcast = selection.is_broadcast(),
            "selected"
        );
        tracing::trace!(%selection, "selection explained");
        if selection.is_empty() {
            let response = if selection.only_ourselves() {
                SendFailure::SendToOurselves.into()
            } else {
                SendMessageResponse::Queued(MessageSendStates::default())
            };
            return SelectFuture {
                state: State::Answered {
                    response: Some(response),
                },
            };
        }
        let future = self.inner.call(Selected {
            recipients: selection.ids(),
            is_broadcast: selection.is_broadcast(),
            request,
            tag,
            rng,
        });
        SelectFuture {
            state: State::Inner { future },
        }
    }
}

impl<F, E> Future for SelectFuture<F>
where
    F: Future<Output = Result<SendMessageResponse, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => future.poll(cx),
            StateProj::Answered { response } => {
                // A future polled after it is ready may answer anything.
                Poll::Ready(Ok(response
                    .take()
                    .unwrap_or_else(|| SendFailure::SenderCancelled.into())))
            }
        }
    }
}

impl std::fmt::Debug for SelectLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelectLayer")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for Select<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Select")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
