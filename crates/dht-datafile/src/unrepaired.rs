//! A damaged file as it is, for reading.

use std::{io, ops::Bound};

use redb::{BackendError, StorageBackend};

/// Redb reads nothing of a file that was not closed in order before it is repaired, and repairs nothing of one that is damaged;
/// so this hides the flag.
#[derive(Debug)]
pub(crate) struct Unrepaired(pub(crate) Box<dyn StorageBackend>);

/// Place of redb's flags in the file, behind its magic number (redb's `docs/design.md`).
const FLAGS_OFFSET: u64 = 9;
/// The flag of a file that was not closed in order.
const RECOVERY_REQUIRED: u8 = 2;

impl StorageBackend for Unrepaired {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)?;
        let flags = FLAGS_OFFSET.checked_sub(offset);
        let flags = flags.and_then(|flags| out.get_mut(usize::try_from(flags).ok()?));
        if let Some(flags) = flags {
            *flags &= !RECOVERY_REQUIRED;
        }
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    // The name of the file is locked.
    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
