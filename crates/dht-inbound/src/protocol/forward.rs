//! Passes on what this node cannot read: specification 03, section 3.10.

use std::{fmt, sync::Arc};

use dht_core::{
    Clock as _, Disposition, DropReason, SendQueue, SendRequest, SharedClock, Strategy,
};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::Check;

use crate::{message::OpenedMessage, sent::count_sent};

/// Hands unreadable messages to the [`SendQueue`], byte for byte as received, and passes every message on.
///
/// Only for a node that forwards: its features contain `DHT_STORE_FORWARD`, and the setting allows it (03 F-16).
///
/// Specification 03, section 3.10.
#[derive(Clone)]
pub struct Forward {
    /// Takes what is forwarded.
    pub send_queue: Arc<dyn SendQueue>,
    /// Bans peers for the offences found here.
    pub bans: BanPolicy,
    /// Clock of this node.
    pub clock: SharedClock,
}

impl Check<OpenedMessage> for Forward {
    type Out = OpenedMessage;
    type Reject = DropReason;

    fn check(&self, mut message: OpenedMessage) -> Result<OpenedMessage, DropReason> {
        let stored = message.stored == Some(true);
        if message.already_forwarded && !stored {
            // It came for the store alone, which has no place for it yet.
            return Err(DropReason::Duplicate);
        }
        let forwarded = self.forward(&message)?;
        message.outcome = forwarded.or_else(|| stored.then_some(Disposition::Stored));
        Ok(message)
    }
}

impl Forward {
    /// Outcome of the message, if it is one to forward.
    fn forward(&self, message: &OpenedMessage) -> Result<Option<Disposition>, DropReason> {
        let header = &message.opened.header;
        if message.is_readable() || !header.message_type.is_forwardable() {
            return Ok(None);
        }
        let source = &message.source;
        let destination = header.destination.public_key();
        if destination == Some(&source.public_key) {
            let deliverer = Parties::deliverer(source.node_id);
            self.bans.report(Offence::OwnMessage, deliverer);
            return Ok(None);
        }
        if message.already_forwarded || header.is_expired(self.clock.now()) {
            return Ok(None);
        }
        let exclude = vec![source.node_id];
        let strategy = match destination {
            Some(key) if message.stored == Some(true) => Strategy::DirectOrClosestNodes {
                target: key.node_id(),
                exclude,
                connected_only: true,
            },
            _ => Strategy::Propagate {
                destination: header.destination,
                exclude,
            },
        };
        let frame = message.opened.frame.clone();
        let request = SendRequest::forward(frame, strategy, header.tag, (&**source).into());
        let taken = count_sent("forward", self.send_queue.try_send(request))?;
        Ok(Some(match taken {
            true => Disposition::Forwarded,
            false => Disposition::Dropped(DropReason::Overload),
        }))
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forward")
    }
}

#[cfg(test)]
mod tests;
