//! Errors of a session.

use std::io;

use dht_proto::{DecodeError, rpc::rpc_session_reply::HandshakeRejectReason};

use crate::status::Status;

/// A frame that the remote side must not send. It ends the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame announces more bytes than its kind may have. None of them was read.
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    FrameTooLong {
        /// Bytes that the frame announces.
        bytes: usize,
        /// Most bytes there may be.
        limit: usize,
    },
    /// A frame does not decode.
    #[error("frame does not decode")]
    Undecodable(#[from] DecodeError),
    /// A frame has flags that do not exist.
    #[error("flags {0:#x} do not exist")]
    UnknownFlags(u32),
    /// A request has an id over 65 535.
    #[error("request id {0} is over 65535")]
    RequestId(u32),
    /// The client sent something other than FIN while it was answered.
    #[error("request during a response")]
    Pipelined,
    /// The server answered a request that is not under way.
    #[error("response to request {received} instead of {expected}")]
    WrongResponse {
        /// Id of the request under way.
        expected: u16,
        /// Id in the response.
        received: u32,
    },
    /// The server answered a ping that is not under way, or a ping with something else.
    #[error("ping and answer do not match")]
    UnexpectedAck,
    /// The server sent more bytes of responses to the call before than [`MAX_LATE_BYTES`](crate::MAX_LATE_BYTES).
    #[error("too many responses to the call before")]
    TooMuchLate,
    /// The session reply neither accepts nor rejects.
    #[error("session reply neither accepts nor rejects")]
    NoSessionResult,
    /// The server accepted a version that was not offered.
    #[error("version {0} was not offered")]
    Version(u32),
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a server rejects a session (specification 02, section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The server gave no reason, or one that this version does not know.
    #[error("unknown reason")]
    Unknown,
    /// The server speaks none of the versions.
    #[error("unsupported version")]
    UnsupportedVersion,
    /// The server has no session left, in all or for this peer.
    #[error("no server sessions available")]
    NoServerSessions,
    /// The server says that this peer has too many sessions.
    #[error("no client sessions available")]
    NoClientSessions,
    /// The server does not offer this service.
    #[error("protocol not supported")]
    ProtocolNotSupported,
}

/// Why a client got no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server rejected the session.
    #[error("server rejected the session")]
    Rejected(#[source] RejectReason),
    /// The server did not reply within [`handshake_wait`](crate::ClientConfig::handshake_wait).
    #[error("server did not reply in time")]
    TimedOut,
    /// The server closed the stream.
    #[error("server closed the stream")]
    Closed,
    /// The reply breaks the protocol.
    #[error("server broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The stream failed.
    #[error("stream failed")]
    Io(#[from] io::Error),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server answered with a status other than ok. The session goes on.
    #[error("server answered with a failure")]
    Status(#[from] Status),
    /// The request is too long to be sent. The session goes on.
    #[error("request of {bytes} bytes is over the limit of {limit}")]
    RequestTooLong {
        /// Bytes of the request.
        bytes: usize,
        /// Most bytes there may be.
        limit: usize,
    },
    /// The payload of a response does not decode. The session goes on.
    #[error("response does not decode")]
    Undecodable(#[source] DecodeError),
    /// The server did not answer within deadline and grace, or did not end its stream in time. It ends the session.
    #[error("server did not answer in time")]
    TimedOut,
    /// The server closed the stream, or an earlier error ended the session.
    #[error("session is closed")]
    Closed,
    /// The server broke the protocol. It ends the session.
    #[error("server broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The stream failed. It ends the session.
    #[error("stream failed")]
    Io(#[from] io::Error),
}

// === impl CallError ===

impl CallError {
    /// Whether the next call needs a new session.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        !matches!(
            self,
            Self::Status(_) | Self::RequestTooLong { .. } | Self::Undecodable(_)
        )
    }

    /// Whether only the server's own software can be the cause: it broke the protocol, or what it sent does not decode.
    /// Silence and closed streams are not: the network may be the cause.
    #[must_use]
    pub const fn is_server_fault(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Undecodable(_))
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::RequestTooLong { .. } => "request_too_long",
            Self::Undecodable(_) => "undecodable",
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }
}

impl From<ReadError> for CallError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Protocol(error) => Self::Protocol(error),
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

// === impl HandshakeError ===

impl HandshakeError {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }
}

impl From<ReadError> for HandshakeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Protocol(error) => Self::Protocol(error),
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

// === impl RejectReason ===

impl RejectReason {
    pub(crate) fn from_wire(reason: i32) -> Self {
        match HandshakeRejectReason::try_from(reason) {
            Ok(HandshakeRejectReason::UnsupportedVersion) => Self::UnsupportedVersion,
            Ok(HandshakeRejectReason::NoServerSessionsAvailable) => Self::NoServerSessions,
            Ok(HandshakeRejectReason::NoClientSessionsAvailable) => Self::NoClientSessions,
            Ok(HandshakeRejectReason::ProtocolNotSupported) => Self::ProtocolNotSupported,
            Ok(HandshakeRejectReason::Unknown) | Err(_) => Self::Unknown,
        }
    }

    pub(crate) const fn to_wire(self) -> i32 {
        match self {
            Self::Unknown => HandshakeRejectReason::Unknown as i32,
            Self::UnsupportedVersion => HandshakeRejectReason::UnsupportedVersion as i32,
            Self::NoServerSessions => HandshakeRejectReason::NoServerSessionsAvailable as i32,
            Self::NoClientSessions => HandshakeRejectReason::NoClientSessionsAvailable as i32,
            Self::ProtocolNotSupported => HandshakeRejectReason::ProtocolNotSupported as i32,
        }
    }
}
