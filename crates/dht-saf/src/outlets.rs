//! What store-and-forward needs of the node around it.

use bytes::Bytes;
use dht_core::{
    DedupHash, MessageType, Payload, Priority, RemotePeer, SendParams, SendRequest, UnixSeconds,
};

/// A request to send `part` to one peer, which is dialled if it is not connected: as part 0 of a clear, unsigned message
/// without destination.
pub(crate) fn send_request(
    to: &RemotePeer,
    message_type: MessageType,
    priority: Priority,
    part: Bytes,
) -> SendRequest {
    let params = SendParams::builder()
        .direct_public_key(to.public_key)
        .with_dht_message_type(message_type)
        .with_priority(priority);
    SendRequest::new(params.finish(), Payload::Part(part))
}

/// The duplicate table of the inbound stack.
pub trait Duplicates: Send + Sync + 'static {
    /// Counts a sighting and answers how many there were, this one included; 0 if it could not be counted.
    fn record(
        &self,
        key: &DedupHash,
        signed: bool,
        expires: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> u32;
}
