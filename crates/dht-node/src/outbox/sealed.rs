//! A sealed message: the same bytes for every attempt.

use bytes::Bytes;
use dht_core::{
    DedupHash, Destination, DomainHeader, Encryption, Entropy as _, Message, MessageTag,
    MessageType, ProtocolVersion, PublicKey, RawEnvelope, SealError, SealRequest, SealSecrets,
    Signing, UnixSeconds, domain_parts, encode_envelope, encode_parts, seal,
};
use dht_dedup::DedupMeta;
use rand_core::Rng as _;

use crate::{context::NodeContext, received::Received};

/// The frame of a message and what the node knows of it.
#[derive(Clone, Debug)]
pub(super) struct SealedFrame {
    pub(super) frame: Bytes,
    /// By which nodes recognise the message.
    pub(super) hash: DedupHash,
    pub(super) meta: DedupMeta,
    pub(super) tag: MessageTag,
    /// Bytes of the sealed body, which holders limit.
    pub(super) body_bytes: usize,
}

impl SealedFrame {
    /// Seals a message that only `to` can read.
    pub(super) fn seal(
        node: &NodeContext,
        to: &PublicKey,
        message: Message,
        expires: UnixSeconds,
    ) -> Result<Self, SealError> {
        let mut rng = node.entropy.rng();
        let header = DomainHeader {
            message_type: message.message_type,
            // 0 would make equal payloads the same message.
            nonce: rng.next_u64().max(1),
        };
        let tag = MessageTag(rng.next_u64());
        let request = SealRequest {
            body: encode_parts(&domain_parts(header, message.payload)),
            message_type: MessageType::None,
            destination: Destination::PublicKey(*to),
            encryption: Encryption::EncryptFor(*to),
            sender: node.identity.secret_key(),
            signing: Signing::Origin,
            expires: Some(expires),
            tag,
            version: ProtocolVersion::default(),
        };
        let sealed = seal(request, SealSecrets::random(&mut rng))?;
        // A signed message always has a key.
        let hash = sealed.dedup_key().map_err(|_| SealError::TooLong)?;
        Ok(Self {
            frame: encode_envelope(&sealed.header, &sealed.body),
            hash,
            meta: DedupMeta::of(&sealed.header),
            tag,
            body_bytes: sealed.body.len(),
        })
    }

    /// Opens a message of this node to itself; `None` if it is for another.
    pub(super) fn open(self, node: &NodeContext) -> Option<Received> {
        let sealed = RawEnvelope::parse(self.frame).ok()?.into_sealed().ok()?;
        let opened = sealed.verify().ok()?.open(&node.identity).ok()?;
        let me = node.identity.public_key().node_id();
        Received::from_parts(opened.parts()?, opened.origin().copied(), me)
    }

    /// A frame that was sealed in an earlier life of the node.
    pub(super) fn read(frame: Bytes) -> Option<Self> {
        let raw = RawEnvelope::parse(frame.clone()).ok()?;
        let header = dht_core::Header::from_proto(raw.header()?).ok()?;
        let hash = dht_core::dedup_key_of(&header, raw.body()).ok()?;
        Some(Self {
            frame,
            hash,
            meta: DedupMeta::of(&header),
            tag: header.tag,
            body_bytes: raw.body().len(),
        })
    }
}
