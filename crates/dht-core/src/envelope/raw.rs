//! The structure of a received frame, before any arithmetic.

use bytes::Bytes;
use dht_proto::{
    DecodeError,
    envelope::{DhtEnvelope, DhtHeader},
};
use prost::Message;

use super::{Fingerprint, FingerprintKey, Header, Sealed};
use crate::{
    error::{HeaderError, ParseError},
    key_cache::KeyCache,
    keys::PublicKey,
};

/// A frame that is an envelope in structure. No point of a curve has been touched yet, so that a duplicate
/// costs only a hash.
///
/// ```
/// use bytes::Bytes;
/// use dht_core::RawEnvelope;
///
/// assert!(RawEnvelope::parse(Bytes::from_static(b"\xff\xff")).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct RawEnvelope {
    frame: Bytes,
    header: Option<DhtHeader>,
    body: Bytes,
}

impl RawEnvelope {
    /// Decodes the protobuf structure. The frame is kept; header fields and body are slices of it.
    ///
    /// # Errors
    /// [`DecodeError::Empty`] for no bytes at all, otherwise what the decoder found.
    pub fn parse(frame: Bytes) -> Result<Self, DecodeError> {
        if frame.is_empty() {
            return Err(DecodeError::Empty);
        }
        let DhtEnvelope { header, body } = dht_proto::decode(frame.clone())?;
        Ok(Self {
            frame,
            header,
            body,
        })
    }

    /// The header as decoded; `None` if there is none.
    #[must_use]
    pub const fn header(&self) -> Option<&DhtHeader> {
        self.header.as_ref()
    }

    /// The body as transmitted.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The whole frame as received.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Whether the frame equals its own deterministic re-encoding: fields in order, each once, defaults left
    /// out, nothing unknown.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let mut expected = Vec::with_capacity(256);
        if let Some(header) = &self.header {
            put_field(1, header.encoded_len(), &mut expected);
            if header.encode(&mut expected).is_err() {
                return false;
            }
        }
        if !self.body.is_empty() {
            put_field(2, self.body.len(), &mut expected);
        }
        // The rest is the body itself if, and only if, the lengths agree.
        self.frame.len() == expected.len() + self.body.len() && self.frame.starts_with(&expected)
    }

    /// Recognises an exact copy; see [`Fingerprint`].
    #[must_use]
    pub fn fingerprint(&self, key: &FingerprintKey) -> Fingerprint {
        let header = self.header.as_ref().map(|header| DhtHeader {
            message_tag: 0,
            ..header.clone()
        });
        let header = header
            .map(|header| header.encode_to_vec())
            .unwrap_or_default();
        key.fingerprint(&header, &self.body)
    }

    /// Converts the header, checking every key.
    ///
    /// # Errors
    /// [`HeaderError`], the first in the order of its variants.
    pub fn into_sealed(self) -> Result<Sealed, HeaderError> {
        self.seal_header(PublicKey::from_bytes)
    }

    /// As [`RawEnvelope::into_sealed`]; destinations decoded before are looked up in `keys`, which saves a square
    /// root each.
    ///
    /// # Errors
    /// [`HeaderError`], the first in the order of its variants.
    pub fn into_sealed_with(self, keys: &KeyCache) -> Result<Sealed, HeaderError> {
        self.seal_header(|bytes| keys.decode(bytes))
    }

    fn seal_header(
        self,
        destination: impl FnOnce(&[u8]) -> Result<PublicKey, ParseError>,
    ) -> Result<Sealed, HeaderError> {
        let proto = self.header.as_ref().ok_or(HeaderError::Missing)?;
        let header = Header::from_proto_with(proto, destination)?;
        let Self { frame, body, .. } = self;
        Ok(Sealed::new(header, body, frame))
    }
}

/// Key and length of a length-delimited field with a number below 16.
fn put_field(number: u8, length: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    prost::encoding::encode_varint(length as u64, out);
}
