//! Rows of an inbox.

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, PublicKey, UnixSeconds};

/// Id of a row: grows strictly, is never 0 and never used again, also after a restart.
pub type RowId = u64;

/// Path on which a message reached this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Over a connection, from its origin or a forwarding node.
    Live,
    /// In a mailbox holder's answer.
    Stored,
}

/// A message for [`Inbox::insert`](crate::Inbox::insert).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRow {
    /// Time at which this node received the message.
    pub received_at: UnixSeconds,
    /// Authenticated sender; `None` if the message is anonymous.
    pub origin: Option<PublicKey>,
    /// Whether this node has authenticated the sender on a connection of its own, or was configured with it. The others of one
    /// deliverer share a part of the inbox.
    pub origin_is_proven: bool,
    /// The application's message type.
    pub message_type: i32,
    /// The application's bytes, at most [`MAX_CONTENT_BYTES`](crate::config::MAX_CONTENT_BYTES).
    pub payload: Bytes,
    /// Connected peer that handed the message to this node.
    pub via: NodeId,
    /// Deliverer whose share of the inbox the row is counted in: the group of this peer's connection, or its key.
    pub deliverer: Deliverer,
    /// Path on which the message came.
    pub arrival: Arrival,
    /// Name of the message in duplicate tables. A second row with it is not inserted.
    pub hash: DedupHash,
}

/// A message an application has not acked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Id of the row, used to ack it.
    pub id: RowId,
    /// Message as it was inserted.
    pub message: NewRow,
}

/// Outcome of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The row is durable.
    New(RowId),
    /// A row with this hash is held, or left within the remembered time.
    AlreadyPresent,
}

/// Where a new consumer begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the oldest row held.
    Oldest,
    /// With the next row inserted.
    Newest,
}

/// Counts of what [`Inbox::expire`](crate::Inbox::expire) removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InboxExpiry {
    /// Rows past retention that not every consumer had acked.
    pub expired: u64,
    /// Hashes that are no longer remembered.
    pub forgotten: u64,
}

/// Messages that a damaged inbox no longer has. Whoever notes that they were received must forget it, so that they are taken
/// again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Their hashes, as far as they are known.
    pub hashes: Vec<DedupHash>,
    /// Whether there may be others: any hash that [`Inbox::contains`](crate::Inbox::contains) does not know.
    pub others: bool,
}

/// Counts of an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboxStats {
    /// Rows not acked by every consumer.
    pub rows: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Whether an insertion was refused as [`Full`](crate::SpoolError::Full) and there is still no room for it, whoever
    /// brings it.
    pub full: bool,
    /// Insertions refused since the inbox was opened, as [`Full`](crate::SpoolError::Full) or
    /// [`ShareFull`](crate::SpoolError::ShareFull).
    pub refused: u64,
    /// Those of them refused as [`ShareFull`](crate::SpoolError::ShareFull).
    pub over_share: u64,
    /// Rows that left unread by retention since the inbox was opened.
    pub expired: u64,
    /// Rows whose payload was damaged since the inbox was opened.
    pub damaged: u64,
    /// Files that were set aside as damaged and still lie beside this one.
    pub damaged_files: u64,
    /// The last commit to the file failed, as on a full disk.
    pub last_commit_failed: bool,
    /// Newest durable row; 0 if there was none.
    pub newest: RowId,
    /// Hashes remembered of rows that left.
    pub remembered: usize,
    /// Counts of each consumer, ordered by name.
    pub consumers: Vec<ConsumerStats>,
}

/// Counts of one consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerStats {
    /// Name of the consumer.
    pub name: String,
    /// Every row up to this id is acked, or left.
    pub cursor: RowId,
    /// Number of rows the consumer has not acked.
    pub pending: u64,
}

impl Lost {
    /// Whether nothing was lost.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.hashes.is_empty() && !self.others
    }
}
