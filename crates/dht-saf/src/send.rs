//! Messages that store-and-forward sends to one peer.

use bytes::Bytes;
use dht_core::{MessageType, Payload, Priority, RemotePeer, SendBuilder, SendParams, SendRequest};

/// A request to send `part`, a request for stored messages.
pub(crate) fn ask(to: &RemotePeer, part: Bytes) -> SendRequest {
    let params = to_peer(to, MessageType::SafRequestMessages);
    SendRequest::new(params.finish(), Payload::Part(part))
}

/// A request to send `part`, a page of stored messages, to the peer that asked for it.
pub(crate) fn answer(to: &RemotePeer, part: Bytes) -> SendRequest {
    let params = to_peer(to, MessageType::SafStoredMessages)
        .with_priority(Priority::Stored)
        .requester(to.into());
    SendRequest::new(params.finish(), Payload::Part(part))
}

/// To one peer, which is dialled if it is not connected: a clear, unsigned message without destination.
fn to_peer(to: &RemotePeer, message_type: MessageType) -> SendBuilder {
    SendParams::builder()
        .direct_public_key(to.public_key)
        .with_dht_message_type(message_type)
}
