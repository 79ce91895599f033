//! Drops requests this node has no role for: specification 03, section 3.3.

use dht_core::{DropReason, Features, MessageType, RawEnvelope};
use dht_stack::Check;

use crate::message::InboundEnvelope;

/// Drops requests for stored messages on a node that stores none. Answers with stored messages pass: a client must
/// be able to receive them.
///
/// Specification 03, section 3.3.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Features of this node.
    pub features: Features,
}

impl Check<InboundEnvelope<RawEnvelope>> for Role {
    type Out = InboundEnvelope<RawEnvelope>;
    type Reject = DropReason;

    fn check(&self, message: Self::Out) -> Result<Self::Out, DropReason> {
        let request = MessageType::SafRequestMessages.to_wire();
        let header = message.envelope.header();
        let asks = header.is_some_and(|header| header.message_type == request);
        if asks && !self.features.contains(Features::DHT_STORE_FORWARD) {
            return Err(DropReason::RoleFilter);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use dht_core::Disposition;

    use super::*;
    use crate::test_support as support;

    async fn pass(features: Features, kind: MessageType) -> Disposition {
        support::run_check(Role { features }, support::raw_of_type(kind)).await
    }

    /// Only requests to a node that stores nothing are dropped.
    #[tokio::test]
    async fn requests_are_dropped_without_a_store() {
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
}
