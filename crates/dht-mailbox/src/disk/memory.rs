//! A disk that ends with the process.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::Mutex;
use redb::{StorageBackend, backends::InMemoryBackend};

use super::{Disk, DiskFile};

/// Files in memory, for tests, simulations and nodes that keep nothing.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<Shared>>>,
}

/// A file that several handles share; redb closes its handle, not the file.
#[derive(Debug)]
struct Shared(InMemoryBackend);

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let mut files = self.files.lock();
        let file = files
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Shared(InMemoryBackend::new())));
        Ok(file.clone())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len().try_into().unwrap_or(u64::MAX));
        if self.0.len()? < end {
            self.0.set_len(end)?;
        }
        self.0.write(offset, data)
    }
}
