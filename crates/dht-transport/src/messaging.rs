//! The messaging protocol `t/msg/0.1`: one-way streams of length-delimited messages.
//! docs/protocol/02-transport-and-connectivity.md sections 6 and 7.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::RemotePeer;
use dht_stack::BytePermit;

pub use codec::{FrameAssembler, FrameTooLong, Step};
pub use delivery::Delivery;
pub(crate) use delivery::Reply;
pub(crate) use inbound::{End, InboundSlot, Receiver};
pub(crate) use outbox::{Limits, SharedBytes};
pub(crate) use session::{Connect, Outboxes, PeerSession, Pushed};

mod codec;
mod delivery;
mod inbound;
mod outbox;
mod pump;
mod session;

/// The id under which the messaging protocol is negotiated.
pub const MESSAGING_PROTOCOL: Bytes = Bytes::from_static(b"t/msg/0.1");

/// A message as it came from a neighbour.
#[derive(Debug)]
pub struct InboundMessage {
    /// The neighbour, authenticated.
    pub peer: Arc<RemotePeer>,
    /// The message: a `DhtEnvelope` as far as anybody knows yet.
    pub body: Bytes,
    /// The body's share of the node's byte budget; keep it as long as the body.
    pub permit: BytePermit,
}
