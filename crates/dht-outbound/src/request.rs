//! What the application, or another part of the node, asks to be sent.

use bytes::Bytes;
use dht_core::{MessageTag, Priority, Strategy};

pub use params::{SendBuilder, SendParams};

mod params;

/// One message to be sent, to whomever its strategy selects.
///
/// Specification 04, section 2.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "forwarding is the hot path; a box would be an allocation per message"
)]
pub enum SendRequest {
    /// A message of this node.
    Message {
        /// To whom and how.
        params: Box<SendParams>,
        /// What.
        payload: Payload,
    },
    /// A message of somebody else, passed on byte for byte.
    Forward {
        /// The whole envelope as received.
        frame: Bytes,
        /// To whom.
        strategy: Strategy,
        /// Trace id, usually the one in the frame.
        tag: MessageTag,
        /// [`Priority::Gossip`], or [`Priority::Stored`] for mail from the store.
        priority: Priority,
    },
}

/// The inside of a message, at different stages of preparation.
///
/// Specification 04, section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An application's message: a header with its type becomes part 0, the payload part 1.
    Domain(DomainMessage),
    /// Part 0 of an envelope body, for the protocol's own messages.
    Part(Bytes),
    /// A complete encoded envelope body, without padding or length prefix.
    Body(Bytes),
}

/// An application's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainMessage {
    /// The application's own type number.
    pub message_type: i32,
    /// The encoded message.
    pub payload: Bytes,
}

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
    pub const fn forward(frame: Bytes, strategy: Strategy, tag: MessageTag) -> Self {
        Self::Forward {
            frame,
            strategy,
            tag,
            priority: Priority::Gossip,
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

    /// To whom it goes.
    #[must_use]
    pub fn strategy(&self) -> &Strategy {
        match self {
            Self::Message { params, .. } => &params.strategy,
            Self::Forward { strategy, .. } => strategy,
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

    /// Whether an unknown recipient may be searched for.
    #[must_use]
    pub(crate) fn may_discover(&self) -> bool {
        match self {
            Self::Message { params, .. } => {
                params.discovery && params.strategy.direct_public_key().is_some()
            }
            Self::Forward { .. } => false,
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

impl DomainMessage {
    /// A message of the given type.
    #[must_use]
    pub fn new(message_type: impl Into<i32>, payload: impl Into<Bytes>) -> Self {
        Self {
            message_type: message_type.into(),
            payload: payload.into(),
        }
    }

    /// The encoded message.
    #[must_use]
    pub fn into_inner(self) -> Bytes {
        self.payload
    }
}
