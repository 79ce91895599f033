//! A backend of which a sync has failed or not.

use std::{
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

use crate::folder::{open_private, remove};

/// Whether a sync of a file has failed. Linux then keeps what was written since the last sync in memory, as if it were on the
/// disk: every read finds it, no later sync writes it, and a power failure loses it.
#[derive(Debug, Default)]
pub(crate) struct SyncFailure {
    has_failed: AtomicBool,
    /// A file that says so to the next process; what lies in memory outlives this one.
    marker: Option<PathBuf>,
}

impl SyncFailure {
    pub(crate) fn marked_by(marker: PathBuf) -> Self {
        Self {
            has_failed: AtomicBool::new(false),
            marker: Some(marker),
        }
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
            || self.marker.as_ref().is_some_and(|marker| marker.exists())
    }

    fn note(&self) {
        self.has_failed.store(true, Ordering::Release);
        if let Some(marker) = &self.marker {
            // It need not be durable: a power failure leaves what the disk has.
            let _ = open_private(marker);
        }
    }

    /// Another file has taken the name.
    pub(crate) fn clear(&self) -> io::Result<()> {
        if let Some(marker) = &self.marker {
            remove(marker)?;
        }
        self.has_failed.store(false, Ordering::Release);
        Ok(())
    }
}

/// Notes failed syncs.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) backend: Box<dyn StorageBackend>,
    pub(crate) failure: Arc<SyncFailure>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.backend
            .sync_data()
            .inspect_err(|_| self.failure.note())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }
    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
