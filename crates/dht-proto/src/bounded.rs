//! Decoding that knows what it will cost before it allocates.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{comms, dht, dht_rpc, envelope, identity, limits, message_header, rpc, store_forward};

/// A message with a bound on its bytes and on the fields it may expand to.
pub trait Bounded: Message + Default {
    /// Longest encoding that is looked at.
    const MAX_BYTES: usize;
    /// Most fields, those of nested messages included.
    const MAX_ITEMS: usize = limits::MAX_DECODE_ITEMS;
    /// Which fields are messages themselves, so that their fields count too.
    const NESTED: &'static [Nested] = &[];
}

/// A field that holds a message.
#[derive(Clone, Copy, Debug)]
pub struct Nested {
    /// Number of the field that holds the message.
    pub field: u32,
    /// Fields of that message which hold messages.
    pub inner: &'static [Self],
}

/// Why bytes do not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes where a message must have some.
    #[error("message is empty")]
    Empty,
    /// More bytes than this kind of message may have.
    #[error("message of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Length of the message in bytes.
        bytes: usize,
        /// Bytes there may be.
        limit: usize,
    },
    /// More fields than this kind of message may have.
    #[error("message holds more than {limit} items")]
    TooManyItems {
        /// Fields there may be.
        limit: usize,
    },
    /// Not protobuf, or not this message.
    #[error("message is malformed")]
    Malformed(#[from] prost::DecodeError),
}

/// Decodes `buf` after checking its length and counting its fields. Byte fields are slices of `buf`.
///
/// # Errors
/// [`DecodeError`]. An empty envelope is [`DecodeError::Empty`]; other messages may be empty.
pub fn decode<M: Bounded>(buf: Bytes) -> Result<M, DecodeError> {
    if buf.len() > M::MAX_BYTES {
        return Err(DecodeError::TooLong {
            bytes: buf.len(),
            limit: M::MAX_BYTES,
        });
    }
    let mut left = M::MAX_ITEMS;
    count(&buf, M::NESTED, &mut left)?
        .then_some(())
        .ok_or(DecodeError::TooManyItems {
            limit: M::MAX_ITEMS,
        })?;
    M::decode(buf).map_err(DecodeError::from)
}

/// Encodes a message canonically: fields in order, defaults left out.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

/// Takes one from `left` for every field; false once there is none left.
fn count(mut buf: &[u8], nested: &[Nested], left: &mut usize) -> Result<bool, prost::DecodeError> {
    while buf.has_remaining() {
        let Some(fewer) = left.checked_sub(1) else {
            return Ok(false);
        };
        *left = fewer;
        let (field, wire_type) = decode_key(&mut buf)?;
        let inner = nested.iter().find(|nested| nested.field == field);
        match inner {
            Some(inner) if wire_type == WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut buf)?).unwrap_or(usize::MAX);
                // A length past the end is left for the decoder to report.
                let Some((message, rest)) = buf.split_at_checked(length) else {
                    return Ok(true);
                };
                if !count(message, inner.inner, left)? {
                    return Ok(false);
                }
                buf = rest;
            }
            _ => skip_field(wire_type, field, &mut buf, DecodeContext::default())?,
        }
    }
    Ok(true)
}

const fn leaf(field: u32) -> Nested {
    Nested { field, inner: &[] }
}

impl Bounded for envelope::DhtEnvelope {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    const NESTED: &'static [Nested] = &[leaf(1)];
}

impl Bounded for comms::EnvelopeBody {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    const MAX_ITEMS: usize = limits::MAX_ENVELOPE_PARTS;
}

impl Bounded for message_header::MessageHeader {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
}

impl Bounded for identity::PeerIdentityMsg {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
    const NESTED: &'static [Nested] = &[leaf(5)];
}

/// Join, discovery and its response share one layout.
macro_rules! peer_message {
    ($($message:ident),+) => {$(
        impl Bounded for dht::$message {
            const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
            const NESTED: &'static [Nested] = &[leaf(5)];
        }
    )+};
}
peer_message!(JoinMessage, DiscoveryMessage, DiscoveryResponseMessage);

impl Bounded for store_forward::StoredMessagesRequest {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
}

impl Bounded for store_forward::StoredMessagesResponse {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    // Each message has up to four fields and a header of up to eight.
    const MAX_ITEMS: usize = limits::MAX_STORED_MESSAGES * 13;
    const NESTED: &'static [Nested] = &[Nested {
        field: 1,
        inner: &[leaf(3)],
    }];
}

impl Bounded for rpc::RpcRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
}

impl Bounded for rpc::RpcResponse {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
}

impl Bounded for rpc::RpcSession {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
}

impl Bounded for rpc::RpcSessionReply {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
}

impl Bounded for dht_rpc::GetCloserPeersRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const MAX_ITEMS: usize = limits::MAX_EXCLUDED_PEERS + 16;
}

impl Bounded for dht_rpc::GetPeersRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
}

impl Bounded for dht_rpc::GetPeersResponse {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const NESTED: &'static [Nested] = &[Nested {
        field: 1,
        inner: &[Nested {
            field: 2,
            inner: &[leaf(3)],
        }],
    }];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of many empty parts costs no allocation: the count is refused before decoding.
    #[test]
    fn empty_parts_are_refused_before_decoding() {
        let bomb = Bytes::from([0x0a, 0x00].repeat(1 << 20));
        let limit = limits::MAX_ENVELOPE_PARTS;
        assert_eq!(
            decode::<comms::EnvelopeBody>(bomb),
            Err(DecodeError::TooManyItems { limit })
        );
    }

    #[test]
    fn nested_items_count() {
        let header = [0x08, 0x02].repeat(2_000);
        let mut bytes = vec![0x0a];
        prost::encoding::encode_varint(header.len() as u64, &mut bytes);
        bytes.extend(header);
        let result = decode::<envelope::DhtEnvelope>(bytes.into());
        assert!(matches!(result, Err(DecodeError::TooManyItems { .. })));
    }

    #[test]
    fn length_is_bounded() {
        let long = Bytes::from(vec![0; limits::MAX_IDENTITY_BYTES + 1]);
        assert!(matches!(
            decode::<identity::PeerIdentityMsg>(long),
            Err(DecodeError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = Bytes::from(bytes);
            let _ = decode::<envelope::DhtEnvelope>(bytes.clone());
            let _ = decode::<comms::EnvelopeBody>(bytes.clone());
            let _ = decode::<dht::JoinMessage>(bytes.clone());
            let _ = decode::<store_forward::StoredMessagesResponse>(bytes.clone());
            let _ = decode::<identity::PeerIdentityMsg>(bytes.clone());
            let _ = decode::<rpc::RpcSession>(bytes.clone());
            let _ = decode::<dht_rpc::GetPeersResponse>(bytes);
        }

        /// Within its limits, the bounded decoder takes what the plain decoder takes.
        #[test]
        fn agrees_with_prost_within_limits(parts in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..64), 0..=16))
        {
            let body = comms::EnvelopeBody { parts: parts.into_iter().map(Bytes::from).collect() };
            prop_assert_eq!(decode::<comms::EnvelopeBody>(encode(&body)), Ok(body));
        }
    }
}
