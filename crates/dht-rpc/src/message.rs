//! The messages of a session: specification 02, sections 8.1 and 8.2.

use bytes::Bytes;
use dht_proto::{
    decode, limits,
    rpc::{RpcRequest, RpcResponse, RpcSession, RpcSessionReply, rpc_session_reply::SessionResult},
};

use crate::{
    error::{HandshakeError, ProtocolError, RejectReason},
    status::{Status, StatusCode},
};

/// The only version of the protocol.
pub const VERSION: u32 = 0;
/// Payload of a response: what one frame holds beside the other fields.
pub const MAX_PAYLOAD_BYTES: usize = limits::MAX_RPC_FRAME_BYTES - 24;

/// Flag of the last response to a call, and of a request that cancels one.
pub(crate) const FIN: u32 = 1;
/// Flag of a ping and of its answer.
pub(crate) const ACK: u32 = 2;

/// A request as the server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    /// A call. Its deadline, in seconds, is at least 1.
    Call {
        id: u16,
        method: u32,
        deadline: u64,
        payload: Bytes,
    },
    /// The end of the streaming call with this id.
    Cancel { id: u16 },
    /// A ping.
    Ping { id: u16 },
    /// Any of these with a deadline under 1 s, to be answered with [`StatusCode::BadRequest`].
    NoDeadline { id: u16 },
}

impl ClientMessage {
    pub(crate) fn decode(frame: Bytes) -> Result<Self, ProtocolError> {
        let request: RpcRequest = decode(frame)?;
        let id = u16::try_from(request.request_id)
            .map_err(|_| ProtocolError::RequestId(request.request_id))?;
        // The deadline comes before the flags: a cancellation and a ping need it, too.
        if request.deadline == 0 {
            return Ok(Self::NoDeadline { id });
        }
        match request.flags {
            0 => Ok(Self::Call {
                id,
                method: request.method,
                deadline: request.deadline,
                payload: request.payload,
            }),
            flags if flags & !(FIN | ACK) != 0 => Err(ProtocolError::UnknownFlags(flags)),
            flags if flags & FIN != 0 => Ok(Self::Cancel { id }),
            _ => Ok(Self::Ping { id }),
        }
    }
}

pub(crate) fn decode_response(frame: Bytes) -> Result<RpcResponse, ProtocolError> {
    let response: RpcResponse = decode(frame)?;
    if response.flags & !(FIN | ACK) != 0 {
        return Err(ProtocolError::UnknownFlags(response.flags));
    }
    Ok(response)
}

/// One item of a stream.
pub(crate) fn item(id: u16, payload: Bytes) -> RpcResponse {
    RpcResponse {
        request_id: id.into(),
        payload,
        ..RpcResponse::default()
    }
}

/// The last response to a call: its payload, or nothing after the items of a stream.
pub(crate) fn last(id: u16, payload: Bytes) -> RpcResponse {
    RpcResponse {
        flags: FIN,
        ..item(id, payload)
    }
}

/// A failure, which is the last response to a call.
pub(crate) fn failure(id: u16, status: &Status) -> RpcResponse {
    // "ok" would make the text an answer.
    let code = match status.code {
        StatusCode::Ok => StatusCode::General,
        code => code,
    };
    RpcResponse {
        status: code.number(),
        ..last(id, Bytes::copy_from_slice(status.text.as_bytes()))
    }
}

pub(crate) fn pong(id: u16) -> RpcResponse {
    RpcResponse {
        flags: ACK,
        ..item(id, Bytes::new())
    }
}

pub(crate) fn session() -> RpcSession {
    RpcSession {
        supported_versions: vec![VERSION],
    }
}

pub(crate) fn accepted() -> RpcSessionReply {
    RpcSessionReply {
        session_result: Some(SessionResult::AcceptedVersion(VERSION)),
        reject_reason: 0,
    }
}

pub(crate) fn rejected(reason: RejectReason) -> RpcSessionReply {
    RpcSessionReply {
        session_result: Some(SessionResult::Rejected(true)),
        reject_reason: reason.to_wire(),
    }
}

/// Meaning of a server's reply for the client.
pub(crate) fn check_reply(frame: Bytes) -> Result<(), HandshakeError> {
    let reply: RpcSessionReply = decode(frame).map_err(ProtocolError::from)?;
    match reply.session_result {
        Some(SessionResult::AcceptedVersion(VERSION)) => Ok(()),
        Some(SessionResult::AcceptedVersion(version)) => {
            Err(ProtocolError::Version(version).into())
        }
        Some(SessionResult::Rejected(true)) => Err(HandshakeError::Rejected(
            RejectReason::from_wire(reply.reject_reason),
        )),
        Some(SessionResult::Rejected(false)) | None => Err(ProtocolError::NoSessionResult.into()),
    }
}

/// Whether a client that sends this frame can be served.
pub(crate) fn offers_version(frame: Bytes) -> Result<bool, ProtocolError> {
    let session: RpcSession = decode(frame)?;
    Ok(session.supported_versions.contains(&VERSION))
}

#[cfg(test)]
mod tests {
    use dht_proto::encode;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_section_18() {
        assert_eq!(encode(&session()), [0x0a, 1, 0].as_slice());
        assert_eq!(encode(&accepted()), [8, 0].as_slice());
        let version = rejected(RejectReason::UnsupportedVersion);
        assert_eq!(encode(&version), [0x10, 1, 0x18, 1].as_slice());
        assert_eq!(encode(&pong(0)), [0x18, 2].as_slice());
        assert_eq!(encode(&last(1, Bytes::new())), [8, 1, 0x18, 1].as_slice());
        let ping = Bytes::from_static(&[0x18, 2, 0x20, 0x78]);
        assert_eq!(
            ClientMessage::decode(ping).unwrap(),
            ClientMessage::Ping { id: 0 }
        );
    }

    #[test]
    fn largest_payload_fits_a_frame() {
        let largest = RpcResponse {
            request_id: u16::MAX.into(),
            status: u32::MAX,
            flags: FIN,
            payload: vec![0; MAX_PAYLOAD_BYTES].into(),
        };
        assert!(encode(&largest).len() <= limits::MAX_RPC_FRAME_BYTES);
    }

    #[test]
    fn replies_without_a_result_are_refused() {
        for (reply, accepted) in [
            (&[8, 0][..], true),
            (&[8, 1], false),
            (&[], false),
            (&[0x10, 0], false),
            (&[0x10, 1, 0x18, 99], false),
        ] {
            let found = check_reply(Bytes::copy_from_slice(reply));
            assert_eq!(found.is_ok(), accepted, "{reply:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            id in any::<u16>(), method in any::<u32>(), flags in 0_u32..6, deadline in 0_u64..3,
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let payload = Bytes::from(payload);
            let request = RpcRequest {
                request_id: id.into(), method, flags, deadline, payload: payload.clone(),
            };
            let expected = match (deadline, flags) {
                (0, _) => Ok(ClientMessage::NoDeadline { id }),
                (_, 0) => Ok(ClientMessage::Call { id, method, deadline, payload }),
                (_, FIN) | (_, 3) => Ok(ClientMessage::Cancel { id }),
                (_, ACK) => Ok(ClientMessage::Ping { id }),
                _ => Err(ProtocolError::UnknownFlags(flags)),
            };
            prop_assert_eq!(ClientMessage::decode(encode(&request)), expected);
        }

        #[test]
        fn failures_round_trip(id in any::<u16>(), number in 1_u32..20, text in ".{0,40}") {
            let status = Status::new(StatusCode::from_number(number), text);
            let response = decode_response(encode(&failure(id, &status))).unwrap();
            prop_assert_eq!((response.request_id, response.flags), (id.into(), FIN));
            prop_assert_eq!(Status::from_response(response.status, &response.payload), status);
        }

        #[test]
        fn arbitrary_frames_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let frame = Bytes::from(frame);
            let _ = ClientMessage::decode(frame.clone());
            let _ = decode_response(frame.clone());
            let _ = check_reply(frame.clone());
            let _ = offers_version(frame);
        }
    }
}
