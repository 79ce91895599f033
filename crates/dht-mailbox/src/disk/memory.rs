//! A disk that ends with the process.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::{Mutex, RwLock};

use super::{Disk, DiskFile};

/// Bytes allocated beyond the end of a small file, so that one that grows by records is not copied for each.
const LEAST_ROOM: usize = 4_096;

/// Files in memory, for tests, simulations and nodes that keep nothing. Clones share the files.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
}

/// The bytes of a file; all handles share them.
#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

impl MemoryDisk {
    /// A disk without files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self
            .files
            .lock()
            .entry(name.to_owned())
            .or_default()
            .clone();
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.0.read();
        let bytes = bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.saturating_add(data.len());
        let mut bytes = self.0.write();
        if bytes.len() < end {
            grow(&mut bytes, end);
        }
        if let Some(target) = bytes.get_mut(start..end) {
            target.copy_from_slice(data);
        }
        Ok(())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut file = self.0.write();
        grow(&mut file, bytes);
        file.shrink_to(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets the size, and allocates an eighth more when the file grows: a `Vec` by itself would take up to twice the size.
fn grow(bytes: &mut Vec<u8>, size: usize) {
    if bytes.capacity() < size {
        let room = (size / 8).max(LEAST_ROOM);
        bytes.reserve_exact(size.saturating_sub(bytes.len()).saturating_add(room));
    }
    bytes.resize(size, 0);
}
