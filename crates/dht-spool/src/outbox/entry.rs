//! Entries of an outbox.

use bytes::Bytes;
use dht_core::{PublicKey, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::config::{DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS};

/// Id of an entry: grows strictly, is never 0 and never used again, also after a restart.
pub type EntryId = u64;

/// A message for [`Outbox::put`](crate::Outbox::put).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEntry {
    /// The client's name for this message, at most [`MAX_KEY_BYTES`](crate::config::MAX_KEY_BYTES): putting the same
    /// message with the same key again answers the same entry.
    pub key: Option<String>,
    /// Key of the node the message is for.
    pub recipient: PublicKey,
    /// The application's message type.
    pub message_type: i32,
    /// The application's bytes, at most [`MAX_CONTENT_BYTES`](crate::config::MAX_CONTENT_BYTES).
    pub payload: Bytes,
    /// Options the client gave.
    pub options: EntryOptions,
    /// When the client asked for it.
    pub created_at: UnixSeconds,
    /// The sealed frame, if it is made already; otherwise see [`Outbox::set_frame`](crate::Outbox::set_frame).
    pub frame: Option<Bytes>,
}

/// How a message is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntryOptions {
    /// Seconds for which it is tried, at most [`MAX_TTL_SECONDS`]. Defaults to [`DEFAULT_TTL_SECONDS`].
    pub ttl_seconds: u64,
    /// Whether it goes to the recipient only, never to mailbox holders. Defaults to false.
    pub direct_only: bool,
    /// Mailbox holders that should keep a copy; `None` leaves it to the node's settings.
    pub replicas: Option<u8>,
}

/// State of an outgoing message, in the order in which states can follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendState {
    /// No copy was sent yet.
    Queued,
    /// A copy was handed to a connection, and not confirmed. Ended if no further attempt is planned.
    Sent,
    /// Mailbox holders confirmed a copy. Ended if no further attempt is planned.
    Stored {
        /// Number of holders that confirmed a copy.
        holders: u32,
    },
    /// It could not be sent, or was withdrawn. Ended.
    Failed {
        /// Reason given with the transition, at most [`MAX_TEXT_BYTES`](crate::config::MAX_TEXT_BYTES).
        reason: String,
    },
    /// Its time to live passed while it was still being tried. Ended.
    Expired,
    /// The recipient's node confirmed it: its inbox holds the message or, on a node without a home, its application has
    /// taken it. Ended.
    Received,
}

/// The states of [`SendState`] without what they carry, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StateKind {
    /// Counterpart of [`SendState::Queued`].
    Queued,
    /// Counterpart of [`SendState::Sent`].
    Sent,
    /// Counterpart of [`SendState::Stored`].
    Stored,
    /// Counterpart of [`SendState::Failed`].
    Failed,
    /// Counterpart of [`SendState::Expired`].
    Expired,
    /// Counterpart of [`SendState::Received`].
    Received,
}

/// An outgoing message and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Id of the entry.
    pub id: EntryId,
    /// Idempotency key the client gave.
    pub key: Option<String>,
    /// Key of the recipient node.
    pub recipient: PublicKey,
    /// The application's message type.
    pub message_type: i32,
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
    /// Options the client gave.
    pub options: EntryOptions,
    /// When the client asked for it.
    pub created_at: UnixSeconds,
    /// Last second in which it is tried.
    pub expires_at: UnixSeconds,
    /// State the entry is in.
    pub state: SendState,
    /// Attempts that ended before the recipient confirmed the message: 0 if it confirmed the first at once.
    pub attempts: u32,
    /// Time of the next attempt; `None` if none is planned, and the entry has ended.
    pub next_attempt: Option<UnixSeconds>,
    /// Error text of the last failed attempt, at most [`MAX_TEXT_BYTES`](crate::config::MAX_TEXT_BYTES).
    pub last_error: Option<String>,
    /// Time at which the entry ended; `None` while it has not.
    pub ended_at: Option<UnixSeconds>,
}

/// The bytes of an entry; they leave when the entry ends. Only the frame is kept once there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryContent {
    /// Bytes of the application, of which no frame is sealed yet.
    Payload(Bytes),
    /// The sealed frame: sent again unchanged, so that every attempt is the same message.
    Frame(Bytes),
}

/// Outcome of a call of [`Outbox::put`](crate::Outbox::put).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The entry is durable.
    New(EntryId),
    /// The idempotency key belongs to this entry, which has the same content.
    Existing(EntryId),
}

/// Which entries [`Outbox::list`](crate::Outbox::list) brings; the default brings all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EntryFilter {
    /// Only those in this state.
    pub state: Option<StateKind>,
    /// Only those for this node. Every entry is read for it.
    pub recipient: Option<PublicKey>,
}

/// Counts of the entries that [`Outbox::expire`](crate::Outbox::expire) changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OutboxExpiry {
    /// Entries that ended as [`SendState::Expired`].
    pub expired: u64,
    /// Entries whose time to live ended while more holders were looked for: they ended as [`SendState::Stored`].
    pub stored: u64,
    /// Entries that had ended and left.
    pub removed: u64,
}

/// Counts of an outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutboxStats {
    /// Entries that have not ended.
    pub rows: u64,
    /// Bytes of their payloads and frames.
    pub bytes: u64,
    /// Entries that have ended and can be asked for.
    pub ended: u64,
    /// Entries that wait for an attempt.
    pub waiting: u64,
    /// Whether a put was refused as [`Full`](crate::SpoolError::Full) and there is still no room for it.
    pub full: bool,
    /// Puts refused as full since the outbox was opened.
    pub refused: u64,
    /// Files that were set aside as damaged and still lie beside this one.
    pub damaged_files: u64,
    /// The last commit to the file failed, as on a full disk.
    pub last_commit_failed: bool,
}

impl Entry {
    /// The entry of a message that was put just now.
    #[must_use]
    pub fn new(id: EntryId, message: &NewEntry) -> Self {
        Self {
            id,
            key: message.key.clone(),
            recipient: message.recipient,
            message_type: message.message_type,
            payload_bytes: message.payload.len() as u64,
            options: message.options,
            created_at: message.created_at,
            expires_at: message.options.expires_at(message.created_at),
            state: SendState::Queued,
            attempts: 0,
            next_attempt: Some(message.created_at),
            last_error: None,
            ended_at: None,
        }
    }
}

impl EntryContent {
    /// Content that is kept of a message: its frame, or else its payload.
    #[must_use]
    pub fn of(message: &NewEntry) -> Self {
        match &message.frame {
            Some(frame) => Self::Frame(frame.clone()),
            None => Self::Payload(message.payload.clone()),
        }
    }
}

impl Put {
    /// The entry, new or not.
    #[must_use]
    pub const fn id(self) -> EntryId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }
}

impl Default for EntryOptions {
    fn default() -> Self {
        Self {
            ttl_seconds: DEFAULT_TTL_SECONDS,
            direct_only: false,
            replicas: None,
        }
    }
}

impl EntryOptions {
    /// Last second in which a message created at `created_at` is tried.
    #[must_use]
    pub fn expires_at(&self, created_at: UnixSeconds) -> UnixSeconds {
        created_at.saturating_add(self.ttl_seconds.min(MAX_TTL_SECONDS))
    }
}

impl SendState {
    /// The state without what it carries.
    #[must_use]
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Queued => StateKind::Queued,
            Self::Sent => StateKind::Sent,
            Self::Stored { .. } => StateKind::Stored,
            Self::Failed { .. } => StateKind::Failed,
            Self::Expired => StateKind::Expired,
            Self::Received => StateKind::Received,
        }
    }
}
