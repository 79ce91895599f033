//! Why a file cannot be used.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Another handle or process has it open.
    #[error("another process has it open")]
    Locked,
    /// The handle was closed.
    #[error("closed")]
    Closed,
    /// The operating system refused.
    #[error(transparent)]
    Io(io::Error),
    /// No attempt can read it; with what is wrong.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Redb refused, as for a file of a later version.
    #[error(transparent)]
    Database(redb::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // No database, or one that ends too early.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Io(error),
        }
    }
}

impl From<redb::Error> for FileError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            redb::Error::Corrupted(_) | redb::Error::RepairAborted => {
                Self::Damaged(error.to_string())
            }
            error => Self::Database(error),
        }
    }
}

/// Redb has one error type for each operation; all convert to `redb::Error`.
macro_rules! from_redb {
    ($($error:ty),+) => {$(
        impl From<$error> for FileError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )+};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// Runs something that reads or writes pages: redb panics on some damaged ones.
///
/// # Errors
/// Those of `access`; [`FileError::Damaged`] if it panics: then what it was given must not be used again.
pub fn contain<T, E: From<FileError>>(access: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // Correctness: see above.
    catch_unwind(AssertUnwindSafe(access))
        .unwrap_or_else(|_| Err(FileError::Damaged("redb panicked on a page".to_owned()).into()))
}
