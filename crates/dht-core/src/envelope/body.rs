//! The parts inside an envelope (01 section 6.1).

use bytes::Bytes;
use dht_proto::{comms::EnvelopeBody, message_header::MessageHeader};
use prost::Message;

use crate::error::OpenError;

/// First part of an application's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DomainHeader {
    /// The application's own type number.
    pub message_type: i32,
    /// 0 for messages to many, so that every relay passes on the same bytes; random otherwise.
    pub nonce: u64,
}

/// Decodes an `EnvelopeBody` into its parts, slices of `bytes`.
///
/// # Errors
/// [`OpenError::UndecodableBody`] if it does not decode or holds more than
/// [`MAX_ENVELOPE_PARTS`](dht_proto::limits::MAX_ENVELOPE_PARTS) parts.
pub fn decode_parts(bytes: Bytes) -> Result<Vec<Bytes>, OpenError> {
    let body: EnvelopeBody = dht_proto::decode(bytes).map_err(|_| OpenError::UndecodableBody)?;
    Ok(body.parts)
}

/// Encodes parts as an `EnvelopeBody`, canonically.
///
/// # Byte layout
/// For each part: the byte 0x0a, the length as a varint, the part.
///
/// ```
/// use bytes::Bytes;
/// use dht_core::{decode_parts, encode_parts};
///
/// let body = encode_parts(&[Bytes::from_static(b"hi")]);
/// assert_eq!(body, &b"\x0a\x02hi"[..]);
/// assert_eq!(decode_parts(body)?, [&b"hi"[..]]);
/// # Ok::<(), dht_core::OpenError>(())
/// ```
#[must_use]
pub fn encode_parts(parts: &[Bytes]) -> Bytes {
    // `Bytes` clones share the buffers; only the encoding itself copies.
    EnvelopeBody {
        parts: parts.to_vec(),
    }
    .encode_to_vec()
    .into()
}

/// The two parts of an application's message: its header, then the payload.
#[must_use]
pub fn domain_parts(header: DomainHeader, payload: Bytes) -> Vec<Bytes> {
    let header = MessageHeader {
        message_type: header.message_type,
        nonce: header.nonce,
    };
    vec![header.encode_to_vec().into(), payload]
}

impl DomainHeader {
    /// Decodes part 0 of an application's message.
    ///
    /// # Errors
    /// [`OpenError::UndecodableBody`] if it is not a message header.
    pub fn decode(part: &[u8]) -> Result<Self, OpenError> {
        let header = MessageHeader::decode(part).map_err(|_| OpenError::UndecodableBody)?;
        Ok(Self {
            message_type: header.message_type,
            nonce: header.nonce,
        })
    }
}
