//! What can go wrong, by operation.

use std::io;

use dht_peers::policy::Offence;

use crate::{IdentityError, negotiate::NegotiationError, noise::NoiseError};

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
    /// Somebody else answers at the dialled address.
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

/// Why one address of a peer could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// The name of the host has no address.
    #[error("the name of the host was not found (DNS)")]
    Lookup,
    /// Nobody could be reached.
    #[error("connecting failed: {0}")]
    Connect(io::ErrorKind),
    /// Connecting took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// Somebody answered, but it came to nothing.
    #[error("upgrade failed")]
    Upgrade(#[source] UpgradeError),
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
    /// No address, or none that this node can dial.
    #[error("no address that can be dialled")]
    NoAddresses,
    /// Every address failed; this is the last failure.
    #[error("every address failed")]
    Failed(#[source] DialFailure),
    /// The limit of connections is reached.
    #[error("too many connections")]
    TooManyConnections,
    /// The dial was given up: on request, or because the transport shuts down.
    #[error("dial cancelled")]
    Cancelled,
}

/// Why a stream could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no connection to the peer.
    #[error("not connected")]
    NotConnected,
    /// The connection ended.
    #[error("connection closed")]
    Closed,
    /// [`MAX_OUTBOUND_STREAMS`](crate::limits::MAX_OUTBOUND_STREAMS) are open already.
    #[error("too many streams")]
    TooManyStreams,
    /// The protocol was not agreed on.
    #[error("protocol negotiation failed")]
    Negotiation(#[source] NegotiationError),
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

/// Why a queued message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The peer could not be dialled.
    #[error("peer could not be dialled")]
    DialFailed,
    /// Connected, but the messaging stream could not be opened.
    #[error("messaging stream could not be opened")]
    SubstreamOpenFailed,
    /// The stream broke while the message was written.
    #[error("messaging stream broke")]
    SubstreamSendFailed,
    /// Made room for something more important, or the transport shut down.
    #[error("message was dropped")]
    Dropped,
    /// Waited longer than a message may.
    #[error("message is too old")]
    Expired,
    /// The stream broke each time the message was written.
    #[error("message failed after {0} resends")]
    MaxRetriesReached(u8),
}

impl UpgradeError {
    /// The offence, if an authenticated peer is to blame. `we_dialled` is true on the side that dialled.
    #[must_use]
    pub const fn offence(&self, we_dialled: bool) -> Option<Offence> {
        match self {
            Self::Identity(error) => error.offence(we_dialled),
            _ => None,
        }
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
