//! Errors of the store.

use std::io;

use dht_core::is_disk_full;

/// Why the store did not do what it was asked.
///
/// Cloneable, because one failed commit answers every insertion that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The message was not admitted; nothing is wrong with the store.
    #[error("message not admitted")]
    Refused(#[from] Refusal),
    /// No space is left on the device. Nothing was stored; the next insertion tries again.
    #[error("no space left for stored messages")]
    DiskFull,
    /// The device failed. Nothing was stored; the next insertion tries again.
    #[error("storage failed: {0}")]
    Io(io::ErrorKind),
    /// More work is waiting than the queue holds.
    #[error("store queue is full")]
    Busy,
    /// The store is closed.
    #[error("store is closed")]
    Closed,
    /// A later version of this program wrote the files.
    #[error(
        "format {found} of the stored messages is newer than {known}, the newest this version reads"
    )]
    NewerFormat {
        /// Format number in the files.
        found: u64,
        /// Newest format number that this version reads.
        known: u64,
    },
    /// Another process has the directory open.
    #[error("stored messages are in use by another process")]
    Locked,
    /// A thread of the store could not be started.
    #[error("store thread did not start: {0:?}")]
    Thread(io::ErrorKind),
    /// The writer thread has ended by itself, which is a defect of this program. Every acknowledged message is there
    /// when the store is opened again.
    #[error("the thread that writes stored messages has ended")]
    WriterDied,
}

/// Why a message was not admitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The body is larger than one message may be.
    #[error("body is too large")]
    TooLarge,
    /// The sender's time limit has passed already.
    #[error("message has expired")]
    Expired,
    /// This mailbox holds as much as one mailbox may, and no other deliverer has more in it.
    #[error("mailbox is at its quota")]
    RecipientQuota,
    /// This deliverer delivered as much as one deliverer may.
    #[error("deliverer is at its quota")]
    DelivererQuota,
    /// The store is full, and nothing in it goes before this message.
    #[error("store is full")]
    Full,
}

impl Refusal {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::RecipientQuota => "recipient_quota",
            Self::DelivererQuota => "deliverer_quota",
            Self::Full => "full",
        }
    }
}

impl StoreError {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.name(),
            Self::DiskFull => "disk_full",
            Self::Io(_) => "io",
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::NewerFormat { .. } => "newer_format",
            Self::Locked => "locked",
            Self::Thread(_) => "thread",
            Self::WriterDied => "writer_died",
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        if is_disk_full(&error) {
            return Self::DiskFull;
        }
        Self::Io(error.kind())
    }
}
