//! Decoding that knows what it will cost before it allocates.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{comms, dht, dht_rpc, envelope, identity, limits, message_header, rpc, store_forward};

/// A message with a bound on its bytes and on what it may expand to.
pub trait Bounded: Message + Default {
    /// Longest encoding that is looked at.
    const MAX_BYTES: usize;
    /// Most fields that are known, those of nested messages included.
    const MAX_ITEMS: usize = limits::MAX_DECODE_ITEMS;
    /// Which fields are known.
    const LAYOUT: Layout;
}

/// The fields of a message that are known. Others, of a later version perhaps, are skipped.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Their numbers.
    pub known: &'static [u32],
    /// Those of them that are messages themselves, so that their fields count too.
    pub nested: &'static [(u32, Self)],
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
    /// More known fields than this kind of message may have.
    #[error("message holds more than {limit} items")]
    TooManyItems {
        /// Fields there may be.
        limit: usize,
    },
    /// More bytes in unknown fields than any message may have.
    #[error("message holds more than {limit} bytes in unknown fields")]
    TooMuchUnknown {
        /// Bytes there may be.
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
    let mut room = Room {
        items: M::MAX_ITEMS,
        unknown: limits::MAX_UNKNOWN_BYTES,
    };
    room.take(&buf, &M::LAYOUT).map_err(|spent| match spent {
        Spent::Items => DecodeError::TooManyItems {
            limit: M::MAX_ITEMS,
        },
        Spent::Unknown => DecodeError::TooMuchUnknown {
            limit: limits::MAX_UNKNOWN_BYTES,
        },
        Spent::Malformed(error) => error.into(),
    })?;
    M::decode(buf).map_err(DecodeError::from)
}

/// Encodes a message canonically: fields in order, defaults left out.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

/// Budget that a message has left.
struct Room {
    /// Known fields.
    items: usize,
    /// Bytes of unknown fields.
    unknown: usize,
}

/// Why a message has no room.
enum Spent {
    Items,
    Unknown,
    Malformed(prost::DecodeError),
}

impl Room {
    /// Takes the room that the fields of a message need.
    fn take(&mut self, mut buf: &[u8], layout: &Layout) -> Result<(), Spent> {
        while buf.has_remaining() {
            let before = buf.len();
            let (field, wire_type) = decode_key(&mut buf)?;
            if !layout.known.contains(&field) {
                skip_field(wire_type, field, &mut buf, DecodeContext::default())?;
                let bytes = before.saturating_sub(buf.len());
                self.unknown = self.unknown.checked_sub(bytes).ok_or(Spent::Unknown)?;
                continue;
            }
            self.items = self.items.checked_sub(1).ok_or(Spent::Items)?;
            let inner = layout.nested.iter().find(|(number, _)| *number == field);
            match inner {
                Some((_, inner)) if wire_type == WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut buf)?).unwrap_or(usize::MAX);
                    // A length past the end is left for the decoder to report.
                    let Some((message, rest)) = buf.split_at_checked(length) else {
                        return Ok(());
                    };
                    self.take(message, inner)?;
                    buf = rest;
                }
                _ => skip_field(wire_type, field, &mut buf, DecodeContext::default())?,
            }
        }
        Ok(())
    }
}

impl From<prost::DecodeError> for Spent {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error)
    }
}

const fn flat(known: &'static [u32]) -> Layout {
    Layout { known, nested: &[] }
}

const IDENTITY_SIGNATURE: Layout = flat(&[1, 2, 3, 4]);
const HEADER: Layout = flat(&[1, 3, 4, 6, 7, 8, 10, 11, 12]);
const IDENTITY: Layout = Layout {
    known: &[1, 2, 3, 4, 5],
    nested: &[(5, IDENTITY_SIGNATURE)],
};

impl Bounded for envelope::DhtEnvelope {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    const LAYOUT: Layout = Layout {
        known: &[1, 2],
        nested: &[(1, HEADER)],
    };
}

impl Bounded for comms::EnvelopeBody {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    const MAX_ITEMS: usize = limits::MAX_ENVELOPE_PARTS;
    const LAYOUT: Layout = flat(&[1]);
}

impl Bounded for message_header::MessageHeader {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
    const LAYOUT: Layout = flat(&[1, 2]);
}

impl Bounded for identity::PeerIdentityMsg {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
    const LAYOUT: Layout = IDENTITY;
}

/// Join, discovery and its response share one layout, and its numbers with the identity of a handshake.
macro_rules! peer_message {
    ($($message:ident),+) => {$(
        impl Bounded for dht::$message {
            const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
            const LAYOUT: Layout = IDENTITY;
        }
    )+};
}
peer_message!(JoinMessage, DiscoveryMessage, DiscoveryResponseMessage);

impl Bounded for store_forward::StoredMessagesRequest {
    const MAX_BYTES: usize = limits::MAX_IDENTITY_BYTES;
    const LAYOUT: Layout = flat(&[1, 2, 3, 4]);
}

impl Bounded for store_forward::StoredMessagesResponse {
    const MAX_BYTES: usize = limits::MAX_MESSAGING_FRAME_BYTES;
    // Each message has up to four fields and a header of up to eight.
    const MAX_ITEMS: usize = limits::MAX_STORED_MESSAGES * 13;
    const LAYOUT: Layout = Layout {
        known: &[1, 2, 3],
        nested: &[(
            1,
            Layout {
                known: &[1, 2, 3, 4],
                nested: &[(3, HEADER)],
            },
        )],
    };
}

impl Bounded for rpc::RpcRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const LAYOUT: Layout = flat(&[1, 2, 3, 4, 10]);
}

impl Bounded for rpc::RpcResponse {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const LAYOUT: Layout = flat(&[1, 2, 3, 10]);
}

impl Bounded for rpc::RpcSession {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
    const LAYOUT: Layout = flat(&[1]);
}

impl Bounded for rpc::RpcSessionReply {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
    const LAYOUT: Layout = flat(&[1, 2, 3]);
}

impl Bounded for dht_rpc::GetCloserPeersRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const MAX_ITEMS: usize = limits::MAX_EXCLUDED_PEERS + 16;
    const LAYOUT: Layout = flat(&[1, 2, 3, 4, 5, 6]);
}

impl Bounded for dht_rpc::GetPeersRequest {
    const MAX_BYTES: usize = limits::MAX_RPC_SESSION_BYTES;
    const LAYOUT: Layout = flat(&[1, 2, 3, 4]);
}

impl Bounded for dht_rpc::GetPeersResponse {
    const MAX_BYTES: usize = limits::MAX_RPC_FRAME_BYTES;
    const LAYOUT: Layout = Layout {
        known: &[1],
        nested: &[(
            1,
            Layout {
                known: &[1, 2],
                nested: &[(
                    2,
                    Layout {
                        known: &[1, 2, 3],
                        nested: &[(3, IDENTITY_SIGNATURE)],
                    },
                )],
            },
        )],
    };
}

#[cfg(test)]
mod tests;
