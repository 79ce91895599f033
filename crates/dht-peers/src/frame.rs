//! A frame from a connected peer: what the transport hands to the inbound stack.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::RemotePeer;
use dht_stack::BytePermit;

/// A frame that a connected peer sent.
#[derive(Debug)]
pub struct InboundFrame {
    /// Peer that sent the frame, authenticated by the transport.
    pub source: Arc<RemotePeer>,
    /// Content of the frame, not yet decoded: one envelope, if the peer follows the protocol.
    pub frame: Bytes,
    /// Share of the node's byte budget that the frame takes. Keep it as long as the bytes.
    pub permit: BytePermit,
}

impl InboundFrame {
    /// A frame that takes nothing of a budget.
    #[must_use]
    pub fn new(source: impl Into<Arc<RemotePeer>>, frame: Bytes) -> Self {
        Self {
            source: source.into(),
            frame,
            permit: BytePermit::none(),
        }
    }
}
