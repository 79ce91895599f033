//! One debug line per message: specification 03, section 3.8.

use std::task::{Context, Poll};

use dht_core::{Content, Destination, NodeId};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{debug, enabled, field};

use crate::Message;

/// Writes a debug line about each message that got as far as being opened.
///
/// Specification 03, section 3.8.
#[derive(Clone, Copy, Debug)]
pub struct LogLayer {
    node: NodeId,
}

/// Service produced by [`LogLayer`].
#[derive(Clone, Debug)]
pub struct Log<S> {
    node: NodeId,
    inner: S,
}

impl LogLayer {
    /// Names this node in each line, so that the lines of several in one process can be told apart.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self { node }
    }
}

impl<S> Layer<S> for LogLayer {
    type Service = Log<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Log {
            node: self.node,
            inner,
        }
    }
}

impl<S> Service<Message> for Log<S>
where
    S: Service<Message>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        if enabled!(tracing::Level::DEBUG) {
            self.log(&message);
        }
        self.inner.call(message)
    }
}

impl<S> Log<S> {
    fn log(&self, message: &Message) {
        let header = &message.opened.header;
        let bytes = match &message.opened.content {
            Content::Readable { parts, .. } => parts
                .iter()
                .fold(0, |sum: usize, part| sum.saturating_add(part.len())),
            Content::Unreadable => message.opened.body.len(),
        };
        let to = match &header.destination {
            Destination::Unknown => None,
            Destination::PublicKey(key) => Some(field::display(key)),
        };
        debug!(
            node = %self.node.short(),
            kind = header.message_type.name(),
            to,
            origin = message.opened.origin().map(field::display),
            bytes,
            encrypted = header.is_encrypted(),
            readable = message.is_readable(),
            hits = message.hits,
            "opened"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support as support;

    #[test]
    fn readiness_is_that_of_the_inner_service() {
        let layer = LogLayer::new(NodeId::default());
        support::assert_readiness_is_inner::<Message, Message, _>(layer);
    }
}
