//! Messages in the stack, one type for each state of knowledge.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Content, DedupHash, Destination, Disposition, Fingerprint, Header, InTransit, MessageTag,
    Opened, PublicKey, RemotePeer, StoreOutcome, Verified,
};
use dht_dedup::Reservation;
use dht_stack::BytePermit;

/// An envelope on its way through the stack; `E` says how far it has come: `RawEnvelope`, `Sealed`, `Verified`,
/// [`Deduped`].
#[derive(Debug)]
pub struct InboundEnvelope<E> {
    /// The deliverer it came from.
    pub source: Arc<RemotePeer>,
    /// The bytes of the node's budget it occupies.
    pub permit: BytePermit,
    /// Recognises exact copies; set by the layer that looks for them.
    pub fingerprint: Option<Fingerprint>,
    /// The envelope, in its present state of checks.
    pub envelope: E,
}

/// A verified envelope and how often its message came.
#[derive(Debug)]
pub struct Deduped {
    /// The envelope, in its present state of checks.
    pub verified: Verified,
    /// Hash that identifies the message, equal for all copies of it.
    pub hash: DedupHash,
    /// Occurrences, this one included; 1 for a copy of a message for which the store had no place before.
    pub occurrences: u32,
    /// Whether it is such a copy: an earlier one was passed on.
    pub already_forwarded: bool,
    /// Held for the first copy of an application's message that may be for this node, until the application has it; taken by
    /// [`Commit`](crate::Commit).
    pub reservation: Option<Reservation>,
}

/// An opened message, as the layers behind the open layer see it. Store-and-forward makes these itself for messages
/// it hands over.
///
/// Specification 03, section 2.
#[derive(Debug)]
pub struct OpenedMessage {
    /// The deliverer it came from.
    pub source: Arc<RemotePeer>,
    /// Header, content, and the bytes as received.
    pub opened: Opened,
    /// Hash that identifies the message, equal for all copies of it.
    pub hash: DedupHash,
    /// Occurrences, this one included; 0 and 1 are new.
    pub occurrences: u32,
    /// Whether it was unpacked from an answer of store-and-forward.
    pub is_saf: bool,
    /// Whether it was kept for its recipient; `None` if no store layer saw it.
    pub stored: Option<bool>,
    /// Whether a copy of it was passed on before.
    pub already_forwarded: bool,
    /// Treatment of a message that this node cannot read; it becomes the disposition.
    pub outcome: Option<Disposition>,
    /// The bytes of the node's budget it occupies.
    pub permit: BytePermit,
}

/// A readable application message, as the application gets it.
#[derive(Debug)]
pub struct Delivered {
    /// The parts of the envelope body.
    pub parts: Vec<Bytes>,
    /// The authenticated sender; `None` if anonymous.
    pub origin: Option<PublicKey>,
    /// The connected peer that handed it over; not always its origin.
    pub source: Arc<RemotePeer>,
    /// Hash that identifies the message.
    pub hash: DedupHash,
    /// The header as received.
    pub header: Header,
    /// The whole envelope as received, to pass it on unchanged. Empty if it was encrypted for this node.
    pub frame: Bytes,
    /// Occurrences, this one included.
    pub occurrences: u32,
    /// Whether the deliverer had stored it for this node.
    pub is_saf: bool,
    /// The bytes of the node's budget the message occupies; keep it as long as the bytes.
    pub permit: BytePermit,
}

impl<E> InboundEnvelope<E> {
    /// The same message with its envelope one step further.
    pub fn map<T>(self, next: impl FnOnce(E) -> T) -> InboundEnvelope<T> {
        let Self {
            source,
            permit,
            fingerprint,
            envelope,
        } = self;
        InboundEnvelope {
            source,
            permit,
            fingerprint,
            envelope: next(envelope),
        }
    }

    /// Takes the envelope out, to work on it elsewhere.
    pub(crate) fn split(self) -> (E, InboundEnvelope<()>) {
        let Self {
            source,
            permit,
            fingerprint,
            envelope,
        } = self;
        (
            envelope,
            InboundEnvelope {
                source,
                permit,
                fingerprint,
                envelope: (),
            },
        )
    }
}

impl OpenedMessage {
    /// Seen before, and let through because the limit allows more than one occurrence.
    #[must_use]
    pub const fn is_repeat(&self) -> bool {
        self.occurrences > 1
    }

    /// An application's message that names no recipient.
    #[must_use]
    pub fn is_undirected(&self) -> bool {
        self.opened.header.message_type.is_domain()
            && self.opened.header.destination == Destination::Unknown
    }

    /// A readable application message that names no recipient: the kind that spreads from node to node.
    #[must_use]
    pub fn is_gossip(&self) -> bool {
        // An encrypted message names its recipient or is refused before it gets here.
        self.is_undirected() && self.is_readable()
    }

    /// Whether anything of the content is visible here.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        matches!(self.opened.content, Content::Readable { .. })
    }
}

impl InTransit for OpenedMessage {
    fn source(&self) -> &Arc<RemotePeer> {
        &self.source
    }

    fn opened(&self) -> &Opened {
        &self.opened
    }

    fn hash(&self) -> DedupHash {
        self.hash
    }

    fn occurrences(&self) -> u32 {
        self.occurrences
    }

    fn set_store_outcome(&mut self, kept: StoreOutcome) {
        self.stored = Some(kept != StoreOutcome::NotStored);
        self.already_forwarded |= kept == StoreOutcome::AlreadyStored;
    }

    fn unpack(&mut self, opened: Opened, hash: DedupHash, bytes: usize) -> Self {
        Self {
            source: Arc::clone(&self.source),
            opened,
            hash,
            occurrences: 0,
            is_saf: true,
            stored: None,
            already_forwarded: false,
            outcome: None,
            permit: self.permit.split(bytes),
        }
    }
}

impl Delivered {
    /// Follows the message through logs. Not signed.
    #[must_use]
    pub const fn tag(&self) -> MessageTag {
        self.header.tag
    }

    /// The payload behind the domain header.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        self.parts.get(1)
    }
}
