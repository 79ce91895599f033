//! One debug line per message: specification 03, section 3.8.

use dht_core::{Content, Destination, DropReason, NodeId};
use dht_stack::Check;
use tracing::{debug, enabled, field};

use crate::message::OpenedMessage;

/// Writes a debug line about each opened message, and passes it on.
///
/// Specification 03, section 3.8.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// This node; named in each line, so that the lines of several nodes in one process can be told apart.
    pub node: NodeId,
}

impl Check<OpenedMessage> for Log {
    type Out = OpenedMessage;
    type Reject = DropReason;

    fn check(&self, message: OpenedMessage) -> Result<OpenedMessage, DropReason> {
        if enabled!(tracing::Level::DEBUG) {
            self.log(&message);
        }
        Ok(message)
    }
}

impl Log {
    fn log(&self, message: &OpenedMessage) {
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
            occurrences = message.occurrences,
            "opened"
        );
    }
}
