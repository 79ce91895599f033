//! Requests to send, and the trait through which parts of the node hand them over.

use std::{io, sync::Arc};

use bytes::Bytes;

pub use params::{SendBuilder, SendParams};

use crate::{
    keys::PublicKey,
    message::{MessageTag, MessageType},
    priority::Priority,
    remote_peer::Deliverer,
    strategy::Strategy,
};

mod announce;
mod params;

/// Takes what a node sends. Never waits: a request that finds no room is refused.
///
/// An inbound stack that waited for an outbound queue, which waits for a peer, which waits for its own outbound queue,
/// would let all parts wait for each other (law 2). The caller sheds and counts a refused request.
///
/// `dht_outbound::Outbound` is one. A test records the requests:
///
/// ```
/// use std::sync::Mutex;
/// use dht_core::{OnDelivery, SendQueue, SendQueueError, SendRequest, Strategy, MessageTag};
///
/// #[derive(Default)]
/// struct Recorder(Mutex<Vec<SendRequest>>);
///
/// impl SendQueue for Recorder {
///     fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
///         self.0.lock().map_err(|_| SendQueueError::Closed)?.push(request);
///         Ok(())
///     }
///
///     fn try_send_reporting(&self, request: SendRequest, done: OnDelivery) -> Result<(), SendQueueError> {
///         self.try_send(request)?;
///         done(true);
///         Ok(())
///     }
/// }
///
/// let queue = Recorder::default();
/// queue.try_send(SendRequest::sealed("envelope".into(), Strategy::default(), MessageTag(1)))?;
/// # Ok::<(), SendQueueError>(())
/// ```
pub trait SendQueue: Send + Sync + 'static {
    /// Sends a request if there is room for one of its [priority](SendRequest::priority) and
    /// [cause](SendRequest::cause).
    ///
    /// # Errors
    /// [`SendQueueError`].
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError>;

    /// As [`try_send`](Self::try_send), and calls `done` once with the outcome of the delivery.
    ///
    /// # Errors
    /// [`SendQueueError`]; `done` is dropped.
    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), SendQueueError>;
}

/// Sends nothing: refuses each request as if there were no room.
impl SendQueue for () {
    fn try_send(&self, _: SendRequest) -> Result<(), SendQueueError> {
        Err(SendQueueError::Full)
    }

    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), SendQueueError> {
        Err(SendQueueError::Full)
    }
}

/// Called once with whether every copy of a message, at least one, left for its peer's socket. Dropped uncalled when the
/// node stops.
pub type OnDelivery = Box<dyn FnOnce(bool) + Send>;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendQueueError {
    /// No room for a request of this priority and cause.
    #[error("outbound queue is full")]
    Full,
    /// The node does not send any more.
    #[error("outbound queue is closed")]
    Closed,
}

/// Why one copy of a message was not sent to its peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The peer could not be dialled.
    #[error("peer could not be dialled: {0}")]
    DialFailed(DialFailure),
    /// The connection ended before the peer had accepted this node, or this node the peer.
    #[error(
        "the connection ended before both nodes accepted it: one bans the other, or a clock is wrong by more than a day"
    )]
    Refused,
    /// The peer is connected, but did not take the messaging protocol.
    #[error("messaging stream could not be opened")]
    OpenFailed,
    /// The stream broke each time the message was written.
    #[error("message could not be written")]
    WriteFailed,
    /// The message was shed or refused, or the node is stopping.
    #[error("message was dropped")]
    Dropped,
    /// The message waited for its peer longer than it may.
    #[error("message is too old")]
    Expired,
}

/// Why a peer could not be dialled, in as much detail as its sender can use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// The directory does not know the peer.
    #[error("it is not known")]
    UnknownPeer,
    /// This node bans the peer.
    #[error("it is banned")]
    Banned,
    /// No address is known, or none that this node may dial.
    #[error("no address that can be dialled")]
    NoAddresses,
    /// The name of the host has no address.
    #[error("the name of the host was not found (DNS)")]
    Lookup,
    /// No connection to the address that was tried last.
    #[error("{0}")]
    Connect(io::ErrorKind),
    /// The proxy through which the address is dialled failed, or was not reached.
    #[error("the proxy failed: {0}")]
    Proxy(io::ErrorKind),
    /// Another key answers at the address.
    #[error("the peer at this address has another key")]
    WrongKey,
    /// A node of another network, or no node at all, answers at the address.
    #[error("what answers at this address is not of this network")]
    WrongNetwork,
    /// The peer signed its claim more than a day ahead of this node's clock.
    #[error("the clock of the peer is more than a day ahead of the clock of this node")]
    ClockAhead,
    /// The peer connected, and did not complete the handshake in time.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// The connection ended before the keys were exchanged.
    #[error("the other side ended the handshake: it may be of another network")]
    HandshakeEnded,
    /// The connection ended after the keys were exchanged, before the peer had shown its identity.
    #[error(
        "the peer does not accept the identity of this node: it bans this node, or a clock is wrong by more than a day"
    )]
    NotAccepted,
    /// The peer sent something during the handshake that this node refuses.
    #[error("what the peer sent during the handshake is not acceptable")]
    HandshakeRefused,
    /// This node has too many dials or connections.
    #[error("too many dials or connections")]
    Limit,
    /// The dial was given up.
    #[error("dial cancelled")]
    Cancelled,
}

/// Part of the node on whose behalf a message is sent. Each has a share of the room, so that none keeps the others out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// A message of the application.
    Application,
    /// This node announces itself or searches for a peer.
    Overlay,
    /// A peer's discovery, which is answered.
    Reply,
    /// This node asks a peer for the messages stored for it.
    StoredRequest,
    /// A peer's request for the messages stored for it, which is answered.
    StoredAnswer,
    /// A message of another node, which is passed on.
    Forward,
}

/// One message to be sent, to the peers that its strategy selects.
///
/// Specification 04, section 2.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "forwarding is the hot path; a box would be an allocation per message"
)]
pub enum SendRequest {
    /// A message of this node.
    Message {
        /// How it is sent, recipients included.
        params: Box<SendParams>,
        /// Type and content of the message.
        payload: Payload,
    },
    /// A sealed message, sent byte for byte: one of another node that is passed on, or one of this node.
    Forward {
        /// The whole envelope as received.
        frame: Bytes,
        /// Rule that selects the recipients.
        strategy: Strategy,
        /// Trace id, usually the one in the frame.
        tag: MessageTag,
        /// [`Priority::Gossip`] for a message of another node, [`Priority::Direct`] for one of this node.
        priority: Priority,
        /// [`Cause::Forward`] for a message of another node, [`Cause::Application`] for one of this node.
        cause: Cause,
        /// Deliverer of a message of another node.
        deliverer: Option<Deliverer>,
    },
}

/// The inside of a message, at different stages of preparation.
///
/// Specification 04, section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An application's message: a header with its type becomes part 0, the payload part 1.
    Domain(Message),
    /// Part 0 of an envelope body, for the protocol's own messages.
    Part(Bytes),
    /// A complete encoded envelope body, without padding or length prefix.
    Body(Bytes),
}

/// A message of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type number, which the application chooses.
    pub message_type: i32,
    /// Content in the application's own encoding.
    pub payload: Bytes,
}

// === impl DeliveryError ===

impl DeliveryError {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DialFailed(_) => "dial_failed",
            Self::Refused => "refused",
            Self::OpenFailed => "open_failed",
            Self::WriteFailed => "max_retries",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
        }
    }
}

// === impl Cause ===

impl Cause {
    /// Every cause of a request.
    pub const ALL: [Self; 6] = [
        Self::Application,
        Self::Overlay,
        Self::Reply,
        Self::StoredRequest,
        Self::StoredAnswer,
        Self::Forward,
    ];

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Overlay => "overlay",
            Self::Reply => "reply",
            Self::StoredRequest => "stored_request",
            Self::StoredAnswer => "stored_answer",
            Self::Forward => "forward",
        }
    }
}

impl<O: SendQueue + ?Sized> SendQueue for Arc<O> {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        (**self).try_send(request)
    }

    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), SendQueueError> {
        (**self).try_send_reporting(request, done)
    }
}

// === impl SendRequest ===

impl SendRequest {
    /// A request to send a message.
    #[must_use]
    pub fn new(params: SendParams, payload: Payload) -> Self {
        Self::Message {
            params: Box::new(params),
            payload,
        }
    }

    /// A request to pass on a received frame, as gossip.
    #[must_use]
    pub const fn forward(
        frame: Bytes,
        strategy: Strategy,
        tag: MessageTag,
        deliverer: Deliverer,
    ) -> Self {
        Self::Forward {
            frame,
            strategy,
            tag,
            priority: Priority::Gossip,
            cause: Cause::Forward,
            deliverer: Some(deliverer),
        }
    }

    /// A request to send a message of this node that is sealed already.
    #[must_use]
    pub const fn sealed(frame: Bytes, strategy: Strategy, tag: MessageTag) -> Self {
        Self::Forward {
            frame,
            strategy,
            tag,
            priority: Priority::Direct,
            cause: Cause::Application,
            deliverer: None,
        }
    }

    /// Bytes of the frame or payload.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Message { payload, .. } => payload.len(),
            Self::Forward { frame, .. } => frame.len(),
        }
    }

    /// Rule that selects the recipients.
    #[must_use]
    pub fn strategy(&self) -> &Strategy {
        match self {
            Self::Message { params, .. } => &params.strategy,
            Self::Forward { strategy, .. } => strategy,
        }
    }

    /// Part of the node that asks; for a message that is not sealed yet told from its type.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let params = match self {
            Self::Message { params, .. } => params,
            Self::Forward { cause, .. } => return *cause,
        };
        match params.message_type {
            MessageType::None => Cause::Application,
            MessageType::Join | MessageType::Discovery => Cause::Overlay,
            MessageType::DiscoveryResponse => Cause::Reply,
            MessageType::SafRequestMessages => Cause::StoredRequest,
            MessageType::SafStoredMessages => Cause::StoredAnswer,
        }
    }

    /// Whose request this message answers; see [`SendParams::requester`].
    #[must_use]
    pub fn requester(&self) -> Option<&Deliverer> {
        match self {
            Self::Message { params, .. } => params.requester.as_ref(),
            Self::Forward { .. } => None,
        }
    }

    /// Deliverer of the message that this one answers or passes on; peers are dialled for it within the share of that deliverer.
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<Deliverer> {
        match self {
            Self::Message { params, .. } => params.requester,
            Self::Forward { deliverer, .. } => *deliverer,
        }
    }

    /// When it is shed.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match self {
            Self::Message { params, .. } => params.priority(),
            Self::Forward { priority, .. } => *priority,
        }
    }

    /// Key of the recipient, if this is a direct send that may search for it.
    #[must_use]
    pub fn discoverable(&self) -> Option<&PublicKey> {
        match self {
            Self::Message { params, .. } if params.discovery => params.strategy.direct_public_key(),
            _ => None,
        }
    }
}

impl Payload {
    /// Bytes of what the caller handed over.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Domain(message) => message.payload.len(),
            Self::Part(bytes) | Self::Body(bytes) => bytes.len(),
        }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Message {
    /// A message of the given type.
    #[must_use]
    pub fn new(message_type: impl Into<i32>, payload: impl Into<Bytes>) -> Self {
        Self {
            message_type: message_type.into(),
            payload: payload.into(),
        }
    }

    /// Returns the encoded message.
    #[must_use]
    pub fn into_inner(self) -> Bytes {
        self.payload
    }
}
