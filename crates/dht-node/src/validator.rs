//! Validation of gossip by the application.

use std::future::ready;

use bytes::Bytes;
use dht_core::{DomainHeader, NodeId, PublicKey};
use dht_inbound::{Acceptance, GossipValidator, OpenedMessage, ValidationFuture};

use crate::{Message, Received};

/// A function of the application that validates gossip.
pub(crate) struct AppValidator<V>(pub(crate) V);

impl<V, F> GossipValidator for AppValidator<V>
where
    V: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Acceptance> + Send + 'static,
{
    fn validate(&self, message: &OpenedMessage) -> ValidationFuture {
        let parts = message.opened.parts().unwrap_or_default();
        let origin = message.opened.origin().copied();
        match received(parts, origin, message.source.node_id) {
            Some(message) => Box::pin(self.0(message)),
            // Without any part it is refused further on, whatever the application says.
            None => Box::pin(ready(Acceptance::Ignore)),
        }
    }
}

/// A message as the application gets it: by convention the first part is a header, unless the sender left it out.
pub(crate) fn received(
    parts: &[Bytes],
    sender: Option<PublicKey>,
    via: NodeId,
) -> Option<Received> {
    let first = parts.first()?;
    let header = DomainHeader::decode(first).unwrap_or_default();
    let payload = parts.get(1).unwrap_or(first).clone();
    Some(Received {
        sender,
        via,
        message: Message {
            message_type: header.message_type,
            payload,
        },
    })
}
