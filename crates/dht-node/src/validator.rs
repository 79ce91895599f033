//! Validation of gossip by the application.

use std::future::ready;

use dht_inbound::{Acceptance, GossipValidator, OpenedMessage, ValidationFuture};

use crate::received::Received;

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
        match Received::from_parts(parts, origin, message.source.node_id) {
            Some(message) => Box::pin(self.0(message)),
            // Without any part it is refused further on, whatever the application says.
            None => Box::pin(ready(Acceptance::Ignore)),
        }
    }
}
