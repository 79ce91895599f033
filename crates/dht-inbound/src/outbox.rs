//! Where the stack puts what leaves the node.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{MessageTag, MessageType, Priority, PublicKey, Strategy};
use dht_proto::dht::DiscoveryResponseMessage;

use crate::metrics;

/// Takes what the stack sends. Never waits.
///
/// An inbound stack that waited for an outbound queue, which waits for a peer, which waits for its own outbound
/// queue, would let everybody wait for everybody (law 2). So a full outbox refuses, and what was refused is shed and
/// counted.
pub trait Outbox: Send + Sync + 'static {
    /// Sends an envelope on as it was received, without waiting for the result.
    ///
    /// # Errors
    /// [`HandoverError`].
    fn forward(&self, request: ForwardRequest) -> Result<(), HandoverError>;

    /// Answers a discovery: a [`DiscoveryResponse`](MessageType::DiscoveryResponse), clear and signed, destination
    /// unknown, directly to the key, without another discovery to find it, without waiting for the result.
    ///
    /// # Errors
    /// [`HandoverError`].
    fn reply(&self, reply: DiscoveryReply) -> Result<(), HandoverError>;
}

/// An envelope to be passed on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRequest {
    /// The frame as received; shares the receive buffer.
    pub frame: Bytes,
    /// To whom.
    pub strategy: Strategy,
    /// How soon to shed it.
    pub priority: Priority,
    /// Follows the message through logs.
    pub tag: MessageTag,
    /// What kind of message it is.
    pub message_type: MessageType,
}

/// An answer to a discovery.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryReply {
    /// Who asked.
    pub to: PublicKey,
    /// Part 0 of the body.
    pub message: DiscoveryResponseMessage,
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// No room: shed.
    #[error("queue is full")]
    Full,
    /// The other side has gone, for good.
    #[error("queue is closed")]
    Closed,
}

impl<O: Outbox + ?Sized> Outbox for Arc<O> {
    fn forward(&self, request: ForwardRequest) -> Result<(), HandoverError> {
        (**self).forward(request)
    }

    fn reply(&self, reply: DiscoveryReply) -> Result<(), HandoverError> {
        (**self).reply(reply)
    }
}

/// Counts what became of something handed over. `Ok(false)` if it was shed.
pub(crate) fn settle(
    kind: &'static str,
    outcome: Result<(), HandoverError>,
) -> Result<bool, HandoverError> {
    match outcome {
        Ok(()) => {
            metrics::sent(kind, "sent");
            Ok(true)
        }
        Err(HandoverError::Full) => {
            metrics::sent(kind, "shed");
            Ok(false)
        }
        Err(HandoverError::Closed) => Err(HandoverError::Closed),
    }
}
