//! Joins, discoveries and their answers as requests to send (06 sections 2 and 3).

use bytes::Bytes;
use dht_proto::dht::{DiscoveryMessage, DiscoveryResponseMessage, JoinMessage};

use super::{Payload, SendParams, SendRequest};
use crate::{
    address::Address,
    identity::NodeIdentity,
    keys::PublicKey,
    message::{Destination, Encryption, MessageType},
    remote_peer::Deliverer,
};

impl SendRequest {
    /// A join: clear, signed and addressed to this node itself, to the nodes closest to it, some of which may have to be
    /// dialled. A recipient learns where this node is and passes the join on towards the node's neighbourhood; nobody
    /// answers. The `nonce` makes each join another message.
    ///
    /// Specification 06, section 3.
    #[must_use]
    pub fn join(me: &NodeIdentity, nonce: u64) -> Self {
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
        Self::new(params, Payload::Part(dht_proto::encode(&join)))
    }

    /// A discovery: encrypted for the key that is sought, to a few connected nodes, which pass it on. Its holder answers
    /// with the same `nonce`, over a connection to this node.
    ///
    /// Every node on the way refuses an encrypted message that names no recipient, so the destination is the key itself;
    /// that tells relays who is sought, not who seeks.
    ///
    /// Specification 06, section 2.1.
    #[must_use]
    pub fn discovery(me: &NodeIdentity, sought: &PublicKey, nonce: u64) -> Self {
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
            .with_destination(Destination::PublicKey(*sought))
            .with_encryption(Encryption::EncryptFor(*sought))
            .with_dht_message_type(MessageType::Discovery)
            .with_debug_info("discovery")
            .finish();
        Self::new(params, Payload::Part(dht_proto::encode(&discovery)))
    }

    /// The answer to a discovery with this `nonce`: clear and signed, destination unknown, directly to the key that
    /// asked, without another discovery to find it. `deliverer` handed the discovery to this node.
    ///
    /// Specification 06, section 2.2.
    #[must_use]
    pub fn discovery_response(
        me: &NodeIdentity,
        to: PublicKey,
        nonce: u64,
        deliverer: Deliverer,
    ) -> Self {
        let claim = me.claim();
        let response = DiscoveryResponseMessage {
            public_key: Bytes::copy_from_slice(me.public_key().as_bytes()),
            addresses: wire_addresses(&claim.addresses),
            peer_features: claim.features.bits(),
            nonce,
            identity_signature: Some((&claim.signature).into()),
        };
        let params = SendParams::builder()
            .direct_public_key(to)
            .with_dht_message_type(MessageType::DiscoveryResponse)
            .force_origin()
            .requester(deliverer)
            .finish();
        Self::new(params, Payload::Part(dht_proto::encode(&response)))
    }
}

fn wire_addresses(addresses: &[Address]) -> Vec<Bytes> {
    let copy = |address: &Address| Bytes::copy_from_slice(address.as_bytes());
    addresses.iter().map(copy).collect()
}
