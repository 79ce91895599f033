//! The typed header (01 section 6.1).

use bytes::Bytes;
use dht_proto::envelope::{DhtHeader, dht_header};

use crate::{
    error::{HeaderError, ParseError},
    keys::PublicKey,
    message::{Destination, MessageTag, MessageType},
    schnorr::MessageSignature,
    time::UnixSeconds,
};

/// Header of an envelope with every field converted. Equality ignores the tag, which is not signed.
#[derive(Clone, Debug)]
pub struct Header {
    /// Protocol version; both behave the same except for the hashed number.
    pub version: ProtocolVersion,
    /// Recipient of the message, as relays see it.
    pub destination: Destination,
    /// Purpose of the message.
    pub message_type: MessageType,
    /// Flag bits of the message.
    pub flags: Flags,
    /// Encoded message signature; empty for an unsigned message.
    pub signature: Bytes,
    /// One-time key of the sender; `None` for a clear message.
    pub ephemeral_key: Option<PublicKey>,
    /// Number that identifies the message in logs; not signed.
    pub tag: MessageTag,
    /// Time after which nodes drop the message; `None` for never.
    pub expires: Option<UnixSeconds>,
}

/// Version of the DHT protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ProtocolVersion {
    /// The older version, accepted and not sent.
    V1,
    /// The version that is sent.
    #[default]
    V2,
}

bitflags::bitflags! {
    /// Flag bits of a header.
    ///
    /// `from_bits` refuses bits that the protocol does not know.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Flags: u32 {
        /// The body is encrypted.
        const ENCRYPTED = 1;
    }
}

impl Flags {
    /// No flag is set.
    pub const NONE: Self = Self::empty();
}

impl Header {
    /// Converts the fields of the message.
    ///
    /// # Errors
    /// [`HeaderError`], the first in the order of its variants.
    pub fn from_proto(proto: &DhtHeader) -> Result<Self, HeaderError> {
        Self::from_proto_with(proto, PublicKey::from_bytes)
    }

    /// Converts the fields, the destination's key by `decode`.
    pub(super) fn from_proto_with(
        proto: &DhtHeader,
        decode: impl FnOnce(&[u8]) -> Result<PublicKey, ParseError>,
    ) -> Result<Self, HeaderError> {
        let destination = match &proto.destination {
            None => return Err(HeaderError::Destination),
            Some(dht_header::Destination::Unknown(_)) => Destination::Unknown,
            Some(dht_header::Destination::PublicKey(bytes)) => {
                Destination::PublicKey(decode(bytes).map_err(|_| HeaderError::Destination)?)
            }
        };
        let ephemeral_key = match &proto.ephemeral_public_key[..] {
            [] => None,
            bytes => Some(PublicKey::from_bytes(bytes).map_err(|_| HeaderError::EphemeralKey)?),
        };
        let version = match proto.major {
            1 => ProtocolVersion::V1,
            2 => ProtocolVersion::V2,
            other => return Err(HeaderError::Version(other)),
        };
        let message_type = MessageType::from_wire(proto.message_type)
            .ok_or(HeaderError::MessageType(proto.message_type))?;
        let flags = Flags::from_bits(proto.flags).ok_or(HeaderError::Flags(proto.flags))?;
        Ok(Self {
            version,
            destination,
            message_type,
            flags,
            signature: detached(&proto.message_signature),
            ephemeral_key,
            tag: MessageTag(proto.message_tag),
            expires: (proto.expires != 0).then_some(UnixSeconds(proto.expires)),
        })
    }

    /// The fields as sent. An unknown destination is written as `unknown = true`.
    #[must_use]
    pub fn to_proto(&self) -> DhtHeader {
        let copy = |key: &PublicKey| Bytes::copy_from_slice(key.as_bytes());
        DhtHeader {
            major: self.version.to_wire(),
            destination: Some(match &self.destination {
                Destination::Unknown => dht_header::Destination::Unknown(true),
                Destination::PublicKey(key) => dht_header::Destination::PublicKey(copy(key)),
            }),
            message_signature: self.signature.clone(),
            ephemeral_public_key: self.ephemeral_key.as_ref().map(copy).unwrap_or_default(),
            message_type: self.message_type.to_wire(),
            flags: self.flags.bits(),
            message_tag: self.tag.0,
            expires: self.expires.map_or(0, |at| at.0),
        }
    }

    /// Whether the header lies in the past: strictly before `now`, in whole seconds.
    #[must_use]
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires.is_some_and(|at| at < now)
    }

    /// Whether the encrypted flag is set. Says nothing about success.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.flags.contains(Flags::ENCRYPTED)
    }
}

/// A signature that does not hold on to the frame, for a shared frame is not opened in place. One that is too long to
/// be canonical belongs to a message that no node opens; copying it would take memory outside the budget.
fn detached(signature: &Bytes) -> Bytes {
    match signature.len() {
        0..=MessageSignature::CANONICAL_LENGTH => Bytes::copy_from_slice(signature),
        _ => signature.clone(),
    }
}

impl PartialEq for Header {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.destination == other.destination
            && self.message_type == other.message_type
            && self.flags == other.flags
            && self.signature == other.signature
            && self.ephemeral_key == other.ephemeral_key
            && self.expires == other.expires
    }
}

impl Eq for Header {}

impl ProtocolVersion {
    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RawEnvelope, Signing, encode_envelope, test_util};

    /// Law 2: a frame is accounted for once, so nothing of its size may be made of it.
    #[test]
    fn only_canonical_length_signatures_are_copied() {
        let frame = test_util::clear(&test_util::identity(1), Signing::Origin, b"x", 1);
        let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
        let within = |frame: &Bytes, part: &Bytes| frame.as_ptr_range().contains(&part.as_ptr());
        assert!(!within(sealed.frame(), &sealed.header().signature));

        let mut header = sealed.header().clone();
        header.signature = vec![0x22; 1 << 20].into();
        let frame = encode_envelope(&header, sealed.body());
        let sealed = RawEnvelope::parse(frame).unwrap().into_sealed().unwrap();
        assert_eq!(sealed.header().signature.len(), 1 << 20);
        assert!(within(sealed.frame(), &sealed.header().signature));
    }
}
