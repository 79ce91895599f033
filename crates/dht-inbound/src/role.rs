//! Drops requests this node has no role for: specification 03, section 3.3.

use std::task::{Context, Poll};

use dht_core::{Disposition, DropReason, Features, MessageType, RawEnvelope};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Filtered, Inbound};

/// Drops requests for stored messages on a node that stores none. Answers with stored messages pass: a client must
/// be able to receive its own mail.
///
/// Specification 03, section 3.3.
#[derive(Clone, Copy, Debug)]
pub struct RoleLayer {
    features: Features,
}

/// Service produced by [`RoleLayer`].
#[derive(Clone, Debug)]
pub struct RoleFilter<S> {
    features: Features,
    inner: S,
}

impl RoleLayer {
    /// For a node with these features.
    #[must_use]
    pub const fn new(features: Features) -> Self {
        Self { features }
    }
}

impl<S> Layer<S> for RoleLayer {
    type Service = RoleFilter<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RoleFilter {
            features: self.features,
            inner,
        }
    }
}

impl<S> Service<Inbound<RawEnvelope>> for RoleFilter<S>
where
    S: Service<Inbound<RawEnvelope>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Inbound<RawEnvelope>) -> Self::Future {
        let wanted = MessageType::SafRequestMessages.to_wire();
        let asks = message
            .envelope
            .header()
            .is_some_and(|header| header.message_type == wanted);
        if asks && !self.features.contains(Features::DHT_STORE_FORWARD) {
            return Filtered::dropped(DropReason::RoleFilter);
        }
        Filtered::passed(self.inner.call(message))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::test_support as support;

    async fn pass(features: Features, kind: MessageType) -> Disposition {
        support::run_filter(RoleLayer::new(features), support::raw_of_type(kind)).await
    }

    #[tokio::test]
    async fn only_requests_to_a_node_that_stores_nothing_are_dropped() {
        let dropped = Disposition::Dropped(DropReason::RoleFilter);
        let (request, answer) = (
            MessageType::SafRequestMessages,
            MessageType::SafStoredMessages,
        );
        assert_eq!(pass(Features::CLIENT, request).await, dropped);
        assert_eq!(pass(Features::MESSAGE_PROPAGATION, request).await, dropped);
        assert_eq!(pass(Features::NODE, request).await, Disposition::Delivered);
        assert_eq!(pass(Features::CLIENT, answer).await, Disposition::Delivered);
        assert_eq!(
            pass(Features::CLIENT, MessageType::None).await,
            Disposition::Delivered
        );
    }

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        support::assert_readiness_is_inner::<Inbound<RawEnvelope>, Inbound<RawEnvelope>, _>(
            RoleLayer::new(Features::NODE),
        );
    }
}
