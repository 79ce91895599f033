//! Where the files of a store lie.
//!
//! The seam for tests and simulations: everything the store keeps goes through a [`Disk`], so that one double can
//! fail, tear and forget writes.

mod file;
mod memory;

use std::{fmt, io, sync::Arc};

pub use file::FileDisk;
pub use memory::MemoryDisk;

/// A file: bytes by offset, with an explicit sync.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// When the device refuses.
    fn size(&self) -> io::Result<u64>;
    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file is shorter; otherwise when the device refuses.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `offset`; a longer file results if it reaches beyond the end.
    ///
    /// # Errors
    /// When the device refuses; a part may be written then.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts the file off, or fills it up with zeros.
    ///
    /// # Errors
    /// When the device refuses.
    fn set_size(&self, bytes: u64) -> io::Result<()>;
    /// Makes everything written before survive a power failure.
    ///
    /// # Errors
    /// When the device refuses.
    fn sync(&self) -> io::Result<()>;
}

/// A flat directory of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, and makes it if it is not there.
    ///
    /// # Errors
    /// When the device refuses.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file; open handles stay readable.
    ///
    /// # Errors
    /// When the device refuses; a file that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in one step; a file of that name is replaced.
    ///
    /// # Errors
    /// When the device refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// The names of all files.
    ///
    /// # Errors
    /// When the device refuses.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes creations, removals and renames survive a power failure.
    ///
    /// # Errors
    /// When the device refuses.
    fn sync_names(&self) -> io::Result<()>;
    /// Whether calls may wait for a device. Defaults to true; otherwise a store has no threads, and its callers do the work.
    fn blocks(&self) -> bool {
        true
    }
}
