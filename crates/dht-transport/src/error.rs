//! Errors, one enum for each operation.

use std::io;

use dht_core::{ClaimError, DialFailure};
use dht_peers::policy::Offence;

use crate::{connection::IdentityError, noise::NoiseError};

/// Why a socket did not become a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The steps together took longer than the limit.
    #[error("upgrade took too long")]
    Timeout,
    /// The socket failed before Noise.
    #[error("socket failed: {0}")]
    Io(io::ErrorKind),
    /// The first byte did not come in time.
    #[error("no network byte within the time limit")]
    WireByteTimeout,
    /// The first byte names another network, or nothing.
    #[error("network byte {0:#04x} is not ours")]
    WireByte(u8),
    /// The Noise handshake failed.
    #[error("noise handshake failed")]
    Noise(#[source] NoiseError),
    /// Another key answers at the dialled address.
    #[error("the peer at this address has another key")]
    WrongKey,
    /// The other side is this node itself.
    #[error("connected to ourselves")]
    OwnKey,
    /// The key is banned.
    #[error("peer is banned")]
    Banned,
    /// The identity was refused.
    #[error("identity exchange failed")]
    Identity(#[source] IdentityError),
}

/// Why a dial gave no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The directory does not know the peer.
    #[error("peer is not known")]
    UnknownPeer,
    /// The peer is this node.
    #[error("cannot dial ourselves")]
    OwnKey,
    /// The peer is banned.
    #[error("peer is banned")]
    Banned,
    /// No address, or none that this node can dial. Through a proxy it dials no names that strangers chose.
    #[error("no address that can be dialled")]
    NoAddresses,
    /// No address answered; the name of the last one has no address.
    #[error("the name of the host was not found (DNS)")]
    Lookup,
    /// No address answered; the last one failed with this error.
    #[error("connecting failed: {0}")]
    Connect(io::ErrorKind),
    /// No address answered; the last one took longer than [`Config::connect_timeout`](crate::Config::connect_timeout).
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The proxy through which the last address was dialled failed, or was not reached.
    #[error("the proxy failed: {0}")]
    Proxy(io::ErrorKind),
    /// The last address that was tried answered, but the upgrade failed.
    #[error("upgrade failed")]
    Upgrade(#[source] UpgradeError),
    /// The limit of connections is reached, in all, for the cause of the dial, or for the source group of the target.
    #[error("too many connections")]
    TooManyConnections,
    /// The limit of dials is reached, for the cause of the dial or for its target.
    #[error("too many dials")]
    TooManyDials,
    /// This node is on a public network, and an address that strangers chose leads into a private one.
    #[error("the address leads into a private network")]
    PrivateTarget,
    /// The dial was given up: on request, or because the transport shuts down.
    #[error("dial cancelled")]
    Cancelled,
}

/// Why a stream could not be opened, or has no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// There is no connection to the peer.
    #[error("not connected")]
    NotConnected,
    /// The connection has ended.
    #[error("connection closed")]
    Closed,
    /// The connection ended before the peer sent anything over it, as when it refuses the identity of this node.
    #[error(
        "the peer ended the connection before it accepted this node: it bans this node, or a clock is wrong by more than a day"
    )]
    Refused,
    /// [`MAX_OUTBOUND_STREAMS`](crate::limits::MAX_OUTBOUND_STREAMS) are open already.
    #[error("too many streams")]
    TooManyStreams,
    /// The stream broke.
    #[error("stream failed during protocol negotiation: {0}")]
    Io(io::ErrorKind),
    /// The negotiation took longer than [`NEGOTIATION_TIMEOUT`](crate::limits::NEGOTIATION_TIMEOUT).
    #[error("protocol negotiation took too long")]
    Timeout,
    /// The remote does not speak the protocol.
    #[error("remote does not support the protocol")]
    NotSupported,
    /// The opener proposed nothing (more) that we speak.
    #[error("remote proposed no protocol we support")]
    NothingSupported,
    /// Unknown flags: an offence.
    #[error("negotiation frame has unknown flags {0:#04x}")]
    Flags(u8),
    /// An answer that makes no sense.
    #[error("negotiation answer is for another protocol")]
    WrongAnswer,
    /// Ids are at most 255 bytes.
    #[error("protocol id of {0} bytes is too long")]
    IdTooLong(usize),
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// Over the frame limit of the messaging protocol.
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// The queue of this peer, or of all peers, is full and holds nothing less important.
    #[error("send queue is full")]
    QueueFull,
    /// Messages are not sent to oneself.
    #[error("cannot send to ourselves")]
    OwnNodeId,
    /// The transport is shutting down.
    #[error("transport is shutting down")]
    ShutDown,
}

impl DialError {
    /// Whether every known address failed, so that newer addresses could help.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        matches!(
            self,
            Self::NoAddresses
                | Self::Lookup
                | Self::PrivateTarget
                | Self::Connect(_)
                | Self::ConnectTimeout
                | Self::Upgrade(_)
        )
    }

    /// The failure of a medium to open a socket.
    pub(crate) fn of_socket(error: &io::Error) -> Self {
        #[cfg(feature = "socks")]
        if crate::medium::ProxyFailure::is_in(error) {
            return Self::Proxy(error.kind());
        }
        Self::Connect(error.kind())
    }

    /// Failure that the sender of a message for the peer is told.
    pub(crate) const fn failure(&self) -> DialFailure {
        match self {
            Self::UnknownPeer => DialFailure::UnknownPeer,
            Self::Banned => DialFailure::Banned,
            Self::NoAddresses | Self::PrivateTarget => DialFailure::NoAddresses,
            Self::Lookup => DialFailure::Lookup,
            Self::Connect(kind) => DialFailure::Connect(*kind),
            Self::Proxy(kind) => DialFailure::Proxy(*kind),
            Self::ConnectTimeout => DialFailure::Connect(io::ErrorKind::TimedOut),
            // This node, whose key is another one, answers at the address of the peer.
            Self::OwnKey => DialFailure::WrongKey,
            Self::Upgrade(error) => error.failure(),
            Self::TooManyConnections | Self::TooManyDials => DialFailure::Limit,
            Self::Cancelled => DialFailure::Cancelled,
        }
    }
}

impl UpgradeError {
    const fn failure(&self) -> DialFailure {
        match self {
            Self::Timeout
            | Self::WireByteTimeout
            | Self::Noise(NoiseError::Timeout)
            | Self::Identity(IdentityError::Timeout) => DialFailure::HandshakeTimeout,
            Self::Io(_) | Self::Noise(NoiseError::Io(_)) => DialFailure::HandshakeEnded,
            Self::Identity(IdentityError::Io(_)) => DialFailure::NotAccepted,
            Self::Identity(IdentityError::Claim(ClaimError::FromTheFuture)) => {
                DialFailure::ClockAhead
            }
            Self::Noise(_) | Self::Identity(_) => DialFailure::HandshakeRefused,
            Self::WireByte(_) => DialFailure::WrongNetwork,
            Self::WrongKey | Self::OwnKey => DialFailure::WrongKey,
            Self::Banned => DialFailure::Banned,
        }
    }

    /// The offence, if an authenticated peer is to blame. `we_dialled` is true on the side that dialled.
    #[must_use]
    pub const fn offence(&self, we_dialled: bool) -> Option<Offence> {
        match self {
            Self::Identity(error) => error.offence(we_dialled),
            _ => None,
        }
    }
}

impl StreamError {
    /// True if no honest peer does this: 02 section 5 orders a ban.
    #[must_use]
    pub const fn is_offence(&self) -> bool {
        matches!(self, Self::Flags(_))
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<NoiseError> for UpgradeError {
    fn from(error: NoiseError) -> Self {
        Self::Noise(error)
    }
}

impl From<IdentityError> for UpgradeError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}
