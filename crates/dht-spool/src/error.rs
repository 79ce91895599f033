//! Errors of an inbox or outbox.

use std::{io, path::PathBuf};

use dht_core::is_disk_full;
#[cfg(feature = "redb")]
use dht_datafile::FileError;

/// Why the inbox or outbox did not do what it was asked.
///
/// Cloneable, because one failed commit answers every request that waited for it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The configured rows or bytes are in use. Nothing was stored and nothing was dropped.
    #[error("no room: the configured rows or bytes are in use")]
    Full,
    /// The outbox is more than half full, and a quarter of its rows or bytes are of this recipient. Nothing was stored.
    #[error("no room: too many messages wait for this recipient")]
    RecipientFull,
    /// The deliverer or the origin of a message has its share of the rows or bytes. Nothing was stored and nothing was
    /// dropped.
    #[error("no room for this sender: its share of the configured rows or bytes is in use")]
    ShareFull,
    /// The queue of the writer thread has no room, and the caller chose not to wait.
    #[error("the writer's queue is full")]
    Busy,
    /// The content is larger than one row may be.
    #[error("{bytes} bytes are more than the {limit} one row may hold")]
    TooLarge {
        /// Size of the content in bytes.
        bytes: usize,
        /// Largest size in bytes.
        limit: usize,
    },
    /// No space is left on the device. Nothing was stored; the next request tries again.
    #[error("no space is left on the device")]
    DiskFull,
    /// The device failed. Nothing was stored; the next request tries again.
    #[error("storage failed: {0}")]
    Io(io::ErrorKind),
    /// The database refused. Nothing was stored; the next request tries again.
    #[error("database failed: {0}")]
    Database(String),
    /// A page of the file is damaged. This handle is closed; opening the file again sets it aside.
    #[error("the file is damaged")]
    Damaged,
    /// The handle was closed, or the writer thread ended.
    #[error("closed")]
    Closed,
    /// Another handle or process has the file open.
    #[error("in use by another process")]
    Locked,
    /// A later version of this program wrote the file.
    #[error("format {found} of the file is newer than {known}, the newest this version reads")]
    NewerFormat {
        /// Format the file says it has.
        found: u64,
        /// Newest format this version reads.
        known: u64,
    },
    /// The file is an inbox where an outbox was expected, or the reverse.
    #[error("the file has another purpose")]
    WrongFile,
    /// An interrupted rescue has left a file that cannot be used; it may be the only copy. Moved away, a new one is made.
    #[error("{} is left of an interrupted rescue and cannot be used", path.display())]
    Leftover {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        source: Box<Self>,
    },
    /// No consumer has this name.
    #[error("no such consumer")]
    UnknownConsumer,
    /// A consumer's name is empty, longer than the configured bytes, or not printable ASCII.
    #[error("not a valid consumer name")]
    InvalidName,
    /// As many consumers exist as are configured.
    #[error("too many consumers")]
    TooManyConsumers,
    /// The last consumer cannot be removed: every row would leave unread.
    #[error("the last consumer cannot be removed")]
    LastConsumer,
    /// The consumer acked as many rows out of order as are remembered; it must ack older rows first.
    #[error("too many acks out of order")]
    TooManyAcks,
    /// No row or entry has had this id.
    #[error("no such id")]
    UnknownId,
    /// The idempotency key belongs to an entry with other content.
    #[error("the idempotency key was used for another message")]
    KeyReused,
    /// The idempotency key is empty or longer than the configured bytes.
    #[error("not a valid idempotency key")]
    InvalidKey,
    /// The entry has ended; it only accepts the recipient's receipt.
    #[error("the entry has ended")]
    Ended,
}

impl SpoolError {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::RecipientFull => "recipient_full",
            Self::ShareFull => "share_full",
            Self::Busy => "busy",
            Self::TooLarge { .. } => "too_large",
            Self::DiskFull => "disk_full",
            Self::Io(_) => "io",
            Self::Database(_) => "database",
            Self::Damaged => "damaged",
            Self::Closed => "closed",
            Self::Locked => "locked",
            Self::NewerFormat { .. } => "newer_format",
            Self::WrongFile => "wrong_file",
            Self::Leftover { .. } => "leftover",
            Self::UnknownConsumer => "unknown_consumer",
            Self::InvalidName => "invalid_name",
            Self::TooManyConsumers => "too_many_consumers",
            Self::LastConsumer => "last_consumer",
            Self::TooManyAcks => "too_many_acks",
            Self::UnknownId => "unknown_id",
            Self::KeyReused => "key_reused",
            Self::InvalidKey => "invalid_key",
            Self::Ended => "ended",
        }
    }
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        if is_disk_full(&error) {
            return Self::DiskFull;
        }
        Self::Io(error.kind())
    }
}

#[cfg(feature = "redb")]
impl From<FileError> for SpoolError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Locked => Self::Locked,
            FileError::Closed => Self::Closed,
            FileError::Io(error) => error.into(),
            FileError::Damaged(_) => Self::Damaged,
            error => Self::Database(error.to_string()),
        }
    }
}

/// Redb has one error type for each operation; all convert to `redb::Error`.
#[cfg(feature = "redb")]
macro_rules! from_redb {
    ($($error:ty),+) => {$(
        impl From<$error> for SpoolError {
            fn from(error: $error) -> Self {
                FileError::from(error).into()
            }
        }
    )+};
}
#[cfg(feature = "redb")]
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// [`dht_datafile::contain`] with an error of this crate.
#[cfg(feature = "redb")]
pub(crate) fn contain<T>(access: impl FnOnce() -> Result<T, SpoolError>) -> Result<T, SpoolError> {
    dht_datafile::contain(access)
}
