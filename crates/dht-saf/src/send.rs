//! Messages that store-and-forward sends to one peer.

use bytes::Bytes;
use dht_core::{MessageType, Payload, Priority, RemotePeer, SendParams, SendRequest};

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
