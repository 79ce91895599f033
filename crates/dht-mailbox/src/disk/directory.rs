//! A directory of the file system.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::backends::FileBackend;

use super::{Disk, DiskFile};
use crate::error::StoreError;

/// A directory of the file system that one store has for itself.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held for as long as the store is open.
    _lock: File,
}

impl Directory {
    /// Opens `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another store has it open; otherwise what the file system says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        fs::create_dir_all(&path)?;
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl Disk for Directory {
    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let path = self.path.join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_NAME
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_names(&self) -> io::Result<()> {
        // Windows opens no directory as a file, and writes its entries through.
        if cfg!(unix) {
            File::open(&self.path)?.sync_all()
        } else {
            Ok(())
        }
    }
}

/// Locked while a store has the directory.
const LOCK_NAME: &str = "lock";
