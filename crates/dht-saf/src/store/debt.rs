//! The index file, with a sync that may be owed for a while.
//!
//! A commit of the index need not be on the device when it returns: everything since the last one that is can be
//! read again from the log. What must hold is order. Redb overwrites, after a commit, pages that only the state
//! before it used; so no byte may be written to the file while the sync of a commit is owed. A write that comes
//! too early pays the debt first. Pages of commits without durability stay in memory, so in practice nothing is
//! written between two checkpoints and the sync runs beside the writer.

use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::disk::DiskFile;

/// The index file.
#[derive(Debug)]
pub(super) struct IndexFile {
    inner: DiskFile,
    debt: Mutex<Debt>,
}

/// Hands an [`IndexFile`] to redb while the store keeps hold of it.
#[derive(Debug)]
pub(super) struct IndexHandle(pub(super) std::sync::Arc<IndexFile>);

#[derive(Debug, Default)]
struct Debt {
    /// Whether a sync may be owed at present.
    lenient: bool,
    owed: bool,
    /// Whether the length changed: redb counts on its being durable before the next header is.
    resized: bool,
    /// The file is given up: whoever still holds it must not touch it.
    retired: bool,
}

impl IndexFile {
    pub(super) fn new(inner: DiskFile) -> Self {
        Self {
            inner,
            debt: Mutex::new(Debt::default()),
        }
    }

    /// Whether syncs are owed from now on instead of done.
    pub(super) fn set_lenient(&self, lenient: bool) {
        self.debt.lock().lenient = lenient;
    }

    /// Does the sync that is owed, if one is.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.debt.lock().settle(&self.inner)
    }

    /// Refuses every change from now on.
    pub(super) fn retire(&self) {
        self.debt.lock().retired = true;
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl Debt {
    fn settle(&mut self, file: &DiskFile) -> io::Result<()> {
        if self.retired {
            return Err(io::Error::other("index file was given up"));
        }
        if self.owed {
            file.sync_data()?;
            (self.owed, self.resized) = (false, false);
        }
        Ok(())
    }
}

impl StorageBackend for IndexHandle {
    fn len(&self) -> io::Result<u64> {
        self.0.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut debt = self.0.debt.lock();
        debt.settle(&self.0.inner)?;
        debt.resized = true;
        self.0.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut debt = self.0.debt.lock();
        debt.owed = true;
        if debt.lenient && !debt.resized {
            Ok(())
        } else {
            debt.settle(&self.0.inner)
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // Correctness: held across the write, so that a sync in between cannot miss it.
        let mut debt = self.0.debt.lock();
        debt.settle(&self.0.inner)?;
        self.0.inner.write(offset, data)
    }
}
