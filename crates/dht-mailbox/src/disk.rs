//! Where the files of a store lie.
//!
//! The seam for tests and simulations: everything the store keeps goes through a [`Disk`], down to the pages of
//! the index, so that one double can fail, tear and forget writes.

mod directory;
#[cfg(any(test, feature = "test-util"))]
pub(crate) mod faulty;
mod memory;

use std::{fmt, io, sync::Arc};

pub use directory::Directory;
pub use memory::MemoryDisk;
use redb::StorageBackend;

/// A file: bytes by offset, with an explicit sync. Redb's trait, as the index is one of the files.
pub type DiskFile = Arc<dyn StorageBackend>;

/// A flat directory of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, and makes it if it is not there.
    ///
    /// # Errors
    /// When the device refuses.
    fn open(&self, name: &str) -> io::Result<DiskFile>;
    /// Removes a file; open handles stay readable.
    ///
    /// # Errors
    /// When the device refuses; a file that is not there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files.
    ///
    /// # Errors
    /// When the device refuses.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes creations and removals survive a power failure.
    ///
    /// # Errors
    /// When the device refuses.
    fn sync_names(&self) -> io::Result<()>;
}
