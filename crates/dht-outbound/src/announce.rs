//! What a node sends to be found, and to find: specification 06, sections 2.1 and 3.

use bytes::Bytes;
use dht_core::{Address, Destination, Encryption, MessageType, NodeIdentity, PublicKey};
use dht_proto::dht::{DiscoveryMessage, JoinMessage};

use crate::{MessageSendStates, OutboundError, Payload, Requester, SendParams, SendRequest};

/// A join: clear, signed and addressed to this node itself, to the nodes closest to it, some of which may have to be
/// dialled. Whoever gets it learns where this node is and passes it on towards the node's neighbourhood; nobody
/// answers. The `nonce` makes each join another message.
///
/// Specification 06, section 3.
#[must_use]
pub fn join_request(me: &NodeIdentity, nonce: u64) -> SendRequest {
    let claim = me.claim();
    let join = JoinMessage {
        public_key: Bytes::copy_from_slice(me.public_key().as_bytes()),
        addresses: wire_addresses(&claim.addresses),
        peer_features: claim.features.bits(),
        nonce,
        identity_signature: Some((&claim.signature).into()),
    };
    let params = SendParams::builder()
        .closest(*me.node_id(), Vec::new())
        .with_destination(Destination::PublicKey(*me.public_key()))
        .with_dht_message_type(MessageType::Join)
        .force_origin()
        .with_debug_info("join")
        .finish();
    SendRequest::new(params, Payload::Part(dht_proto::encode(&join)))
}

/// A discovery: encrypted for the key that is sought, to a few connected nodes, which pass it on. Its holder answers
/// with the same `nonce`, over a connection to this node.
///
/// Every node on the way refuses an encrypted message that names no recipient, so `destination` can only be the key
/// itself for now; that tells relays who is sought, not who seeks.
///
/// Specification 06, section 2.1.
#[must_use]
pub fn discovery_request(
    me: &NodeIdentity,
    sought: &PublicKey,
    destination: Destination,
    nonce: u64,
) -> SendRequest {
    let claim = me.claim();
    let discovery = DiscoveryMessage {
        public_key: Bytes::copy_from_slice(me.public_key().as_bytes()),
        addresses: wire_addresses(&claim.addresses),
        peer_features: claim.features.bits(),
        nonce,
        identity_signature: Some((&claim.signature).into()),
    };
    let params = SendParams::builder()
        .broadcast(Vec::new())
        .with_destination(destination)
        .with_encryption(Encryption::EncryptFor(*sought))
        .with_dht_message_type(MessageType::Discovery)
        .with_debug_info("discovery")
        .finish();
    SendRequest::new(params, Payload::Part(dht_proto::encode(&discovery)))
}

impl Requester {
    /// Announces this node to its neighbourhood with a [join](join_request). Returns how it is sent; empty, with
    /// nothing sent, if every address of this node is in `excluded`: others would only learn where not to dial.
    ///
    /// # Errors
    /// [`OutboundError`]; [`OutboundError::NoMessagesQueued`] if no node is connected or known.
    pub async fn send_join(
        &self,
        me: &NodeIdentity,
        excluded: &[Address],
        nonce: u64,
    ) -> Result<MessageSendStates, OutboundError> {
        // Its own addresses as it signed them, not as somebody's peer list has them.
        let all_excluded = me
            .claim()
            .addresses
            .iter()
            .all(|own| excluded.contains(own));
        if !excluded.is_empty() && all_excluded {
            tracing::debug!("no join: every address of this node is excluded");
            return Ok(MessageSendStates::default());
        }
        Ok(self.send(join_request(me, nonce)).await?.resolve().await?)
    }
}

fn wire_addresses(addresses: &[Address]) -> Vec<Bytes> {
    let copy = |address: &Address| Bytes::copy_from_slice(address.as_bytes());
    addresses.iter().map(copy).collect()
}
