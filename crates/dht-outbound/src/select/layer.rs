//! Selection as a layer: requests without recipients end here.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{MessageTag, NodeId, SendRequest, SharedClock, SharedEntropy};
use dht_peers::{Connections, Directory};
use futures::future::Either;
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{Candidates, select};
use crate::{config::SelectConfig, deliver::Deliveries, error::SendError};

/// Turns a [`SendRequest`] into a [`Selected`] one. Requests that select no peer, or this node alone, are refused.
///
/// Specification 04, sections 3 and 5.1.
#[derive(Clone)]
pub struct SelectLayer(Arc<SelectParts>);

/// Service produced by [`SelectLayer`].
#[derive(Clone)]
pub struct Select<S> {
    shared: Arc<SelectParts>,
    inner: S,
}

struct SelectParts {
    connections: Connections,
    directory: Directory,
    config: SelectConfig,
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// A request and its recipients.
#[derive(Debug)]
pub struct Selected {
    /// Request whose recipients were selected.
    pub request: SendRequest,
    /// Nodes that receive a copy; at least one.
    pub recipients: Vec<NodeId>,
    /// Whether copies may come back from others.
    pub is_broadcast: bool,
    /// Number that identifies the message in logs.
    pub tag: MessageTag,
    /// Randomness of this message.
    pub rng: ChaCha12Rng,
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
        Self(Arc::new(SelectParts {
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
    S: Service<Selected, Response = Deliveries, Error = BoxError>,
{
    type Response = Deliveries;
    type Error = BoxError;
    type Future = Either<Ready<Result<Deliveries, BoxError>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: SendRequest) -> Self::Future {
        let SelectParts {
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
            let error = match selection.only_ourselves() {
                true => SendError::ToOurselves,
                false => SendError::NobodySelected,
            };
            return Either::Left(ready(Err(error.into())));
        }
        Either::Right(self.inner.call(Selected {
            recipients: selection.ids(),
            is_broadcast: selection.is_broadcast(),
            request,
            tag,
            rng,
        }))
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

#[cfg(test)]
mod tests {
    use dht_core::{
        Features, ManualClock, Message, Payload, SeededEntropy, SendBuilder, SendParams,
    };
    use dht_peers::{
        Direction,
        test_util::{peer, public_key},
    };
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
    use tower_test::mock;

    use super::*;

    type Mock = mock::Mock<Selected, Deliveries>;

    fn spawn() -> (
        mock::Spawn<Select<Mock>>,
        mock::Handle<Selected, Deliveries>,
    ) {
        let connections = Connections::new();
        connections.insert(Arc::new(peer(1, Features::NODE)), Direction::Inbound);
        mock::spawn_layer(SelectLayer::new(
            connections,
            Directory::new(public_key(0).node_id()),
            SelectConfig::default(),
            Arc::new(ManualClock::new(dht_core::UnixSeconds(1_700_000_000))),
            Arc::new(SeededEntropy::new(1)),
        ))
    }

    fn request(params: SendBuilder) -> SendRequest {
        SendRequest::new(params.finish(), Payload::Domain(Message::new(1, "hi")))
    }

    #[tokio::test]
    async fn selected_requests_wait_for_room() {
        let (mut service, mut inner) = spawn();
        inner.allow(0);
        assert_pending!(service.poll_ready());
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let params = SendParams::builder().with_tag(MessageTag(7));
        let mut call = task::spawn(service.call(request(params)));
        assert_pending!(call.poll());
        let (selected, send) = assert_ready!(task::spawn(inner.next_request()).poll()).unwrap();
        assert_eq!(selected.recipients, [public_key(1).node_id()]);
        assert!(selected.is_broadcast);
        assert_eq!(selected.tag, MessageTag(7));
        send.send_response(Deliveries::default());
        assert_ready_ok!(call.poll());
    }

    #[tokio::test]
    async fn a_request_without_recipients_ends() {
        let (mut service, mut inner) = spawn();
        inner.allow(2);
        for (seed, outcome) in [(9, "nobody"), (0, "send_to_ourselves")] {
            assert_ready_ok!(service.poll_ready());
            let params = SendParams::builder().direct_public_key(public_key(seed));
            let mut call = task::spawn(service.call(request(params)));
            let error = assert_ready!(call.poll()).unwrap_err();
            assert_eq!(error.downcast::<SendError>().unwrap().name(), outcome);
            assert_pending!(task::spawn(inner.next_request()).poll());
        }
    }
}
