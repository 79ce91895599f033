//! One file: opened, begun, and replaced once it is damaged.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyDatabase, StorageBackend, WriteTransaction,
    backends::FileBackend,
};
use tracing::warn;

use crate::{
    error::{FileError, contain},
    folder::{count, open_private, remove, rename_durably, step, with_suffix},
    unrepaired::Unrepaired,
    watched::{SyncFailure, Watched},
};

/// Damaged files kept beside one file; the last is replaced.
const MAX_ASIDE: u32 = 16;
/// Behind the name of a file that was set aside; a number follows. Earlier versions kept one without a number.
const ASIDE: &str = ".damaged";
/// Behind the name of a file of which a sync has failed.
const UNSYNCED: &str = ".unsynced";

/// One database in a file, or on a backend of a test.
pub struct DataFile {
    place: Place,
    cache_bytes: usize,
    /// Consequence of the loss of a damaged file, for the log.
    consequence: &'static str,
    /// Called for each file that is set aside.
    on_damage: fn(),
    /// Locked until [`DataFile::release`].
    lock: Mutex<Option<fs::File>>,
    sync_failure: Arc<SyncFailure>,
}

enum Place {
    Path(PathBuf),
    #[cfg(any(test, feature = "test-util"))]
    Test(Box<dyn TestFolder>),
}

/// The folder of a test: one file, and the one that is to take its place.
#[cfg(any(test, feature = "test-util"))]
pub trait TestFolder: Send + Sync {
    /// Opens the file, also again after an I/O error.
    ///
    /// # Errors
    /// An I/O error.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// Opens the file that is to take its place, empty.
    ///
    /// # Errors
    /// An I/O error.
    fn open_new(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// The new file is synced and takes the place of the other.
    ///
    /// # Errors
    /// An I/O error.
    fn take_new(&self) -> io::Result<()>;
}

impl DataFile {
    /// The file at `path`, which need not be there. `cache_bytes` is memory for its pages.
    #[must_use]
    pub fn at(path: &Path, cache_bytes: usize) -> Self {
        Self {
            sync_failure: Arc::new(SyncFailure::marked_by(with_suffix(path, UNSYNCED))),
            ..Self::new(Place::Path(path.to_path_buf()), cache_bytes)
        }
    }

    /// Pages on any backend.
    #[cfg(any(test, feature = "test-util"))]
    pub fn on(folder: impl TestFolder + 'static, cache_bytes: usize) -> Self {
        Self::new(Place::Test(Box::new(folder)), cache_bytes)
    }

    fn new(place: Place, cache_bytes: usize) -> Self {
        Self {
            place,
            cache_bytes,
            consequence: "",
            on_damage: || {},
            lock: Mutex::new(None),
            sync_failure: Arc::default(),
        }
    }

    /// Says in the log what the loss of a damaged file means, and counts it.
    #[must_use]
    pub fn losing(self, consequence: &'static str, count: fn()) -> Self {
        Self {
            consequence,
            on_damage: count,
            ..self
        }
    }

    /// Locks the name of the file, also while another file takes its place, until [`release`](Self::release). Redb locks
    /// the file itself, while it is open.
    ///
    /// # Errors
    /// [`FileError::Locked`], or an I/O error.
    pub fn locked(self) -> Result<Self, FileError> {
        let lock = open_private(&with_suffix(self.path()?, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FileError::Locked),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        *self.lock.lock() = Some(lock);
        Ok(self)
    }

    /// Gives up the lock of the name.
    pub fn release(&self) {
        self.lock.lock().take();
    }

    /// Whether a sync has failed since the file was made: what was written since the last one may be in memory only.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.sync_failure.is_noted()
    }

    /// Opens the database. `check` reads every page and verifies its checksum, unless the disk is full, as the check writes.
    ///
    /// # Errors
    /// [`FileError::Damaged`], also for a file without a byte, as one is made with its tables, and after a failed sync, until
    /// the file is [replaced](Self::replace). [`FileError::Locked`] while it is
    /// open elsewhere, and others.
    pub fn open(&self, check: bool) -> Result<Database, FileError> {
        // The kinds of `dht_core::is_disk_full`, which is above this crate.
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self.open_pages(check) {
            Err(FileError::Io(error))
                if check && matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) =>
            {
                self.open_pages(false)
            }
            opened => opened,
        }
    }

    fn open_pages(&self, check: bool) -> Result<Database, FileError> {
        if self.is_unsynced() {
            return Err(FileError::Damaged("a sync has failed".to_owned()));
        }
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        builder.set_check_integrity_on_open(check);
        let backend: Box<dyn StorageBackend> = match &self.place {
            Place::Path(path) => {
                let file = open_private(path)?;
                if check && file.metadata()?.len() == 0 {
                    return Err(FileError::Damaged("it is empty".to_owned()));
                }
                Box::new(FileBackend::new(file)?)
            }
            #[cfg(any(test, feature = "test-util"))]
            Place::Test(folder) => folder.open()?,
        };
        let failure = Arc::clone(&self.sync_failure);
        contain(|| Ok(builder.create_with_backend(Watched { backend, failure })?))
    }

    /// Opens a damaged file for reading. Whatever is read of it may panic: see [`contain`].
    ///
    /// # Errors
    /// [`FileError::Damaged`] if nothing can be read of it, and others.
    pub fn open_damaged(&self) -> Result<ReadOnlyDatabase, FileError> {
        let file: Box<dyn StorageBackend> = match &self.place {
            Place::Path(_) => Box::new(FileBackend::new(self.open_bytes()?)?),
            #[cfg(any(test, feature = "test-util"))]
            Place::Test(folder) => folder.open()?,
        };
        contain(|| {
            let opened = Builder::new()
                .set_cache_size(self.cache_bytes)
                // In this mode a reader asks for no list of free pages, which a killed process did not write.
                .set_concurrency_mode(ConcurrencyMode::SingleWriter)
                .open_read_only_with_backend(Unrepaired(file));
            Ok(opened?)
        })
    }

    /// The bytes of a damaged file, for reading.
    ///
    /// # Errors
    /// An I/O error.
    pub fn open_bytes(&self) -> Result<fs::File, FileError> {
        Ok(fs::File::open(self.path()?)?)
    }

    /// Ends what a crash interrupted, and begins a file if there is none. Of a file that was to take this one's place,
    /// `is_whole` says whether it does.
    ///
    /// # Errors
    /// Those of `is_whole` and `begin`, and of the disk.
    pub fn recover_or_create<E: From<FileError>>(
        &self,
        is_whole: impl FnOnce(&Path) -> Result<bool, E>,
        begin: impl FnOnce(&WriteTransaction) -> Result<(), E>,
    ) -> Result<(), E> {
        #[cfg(any(test, feature = "test-util"))]
        if let Place::Test(_) = self.place {
            return Ok(());
        }
        let exists = self.exists()?;
        let new = self.new_path()?;
        if !exists && new.try_exists().map_err(FileError::from)? && is_whole(&new)? {
            return Ok(self.take_new()?);
        }
        remove(&new).map_err(FileError::from)?;
        if !exists {
            self.make_new(begin)?;
            self.take_new()?;
        }
        Ok(())
    }

    /// Opens the file that is to take this one's place.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_new(&self) -> Result<Database, FileError> {
        step();
        let backend: Box<dyn StorageBackend> = match &self.place {
            Place::Path(_) => Box::new(FileBackend::new(open_private(&self.new_path()?)?)?),
            #[cfg(any(test, feature = "test-util"))]
            Place::Test(folder) => folder.open_new()?,
        };
        // It is given up whatever fails.
        let failure = Arc::default();
        contain(|| {
            Ok(Builder::new()
                .set_cache_size(self.cache_bytes)
                .create_with_backend(Watched { backend, failure })?)
        })
    }

    /// Sets the file aside, as it is damaged or a sync has failed; a new one that `fill` fills takes its name.
    ///
    /// # Errors
    /// Those of `fill` and of the disk; then the file is where it was.
    pub fn replace<E: From<FileError>>(
        &self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), E>,
    ) -> Result<(), E> {
        #[cfg(any(test, feature = "test-util"))]
        if let Place::Test(folder) = &self.place {
            self.fill_new(fill)?;
            folder.take_new().map_err(FileError::from)?;
            return Ok(self.sync_failure.clear().map_err(FileError::from)?);
        }
        self.make_new(fill)?;
        self.set_aside()?;
        Ok(self.take_new()?)
    }

    /// How many files were set aside beside this one.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.path().map_or(0, |path| count(path, ASIDE))
    }

    /// Makes the new file in one transaction: it is there whole or not at all.
    fn make_new<E: From<FileError>>(
        &self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), E>,
    ) -> Result<(), E> {
        let new = self.new_path()?;
        remove(&new).map_err(FileError::from)?;
        let made = self.fill_new(fill).and_then(|()| {
            step();
            let synced = open_private(&new).and_then(|file| file.sync_all());
            Ok(synced.map_err(FileError::from)?)
        });
        if made.is_err() {
            // A file that stays is removed by the next attempt.
            let _ = remove(&new);
        }
        made
    }

    fn fill_new<E: From<FileError>>(
        &self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.open_new()?;
        let transaction = database.begin_write().map_err(FileError::from)?;
        fill(&transaction)?;
        Ok(transaction.commit().map_err(FileError::from)?)
    }

    /// The new file takes this one's name.
    fn take_new(&self) -> Result<(), FileError> {
        rename_durably(&self.new_path()?, self.path()?)?;
        Ok(self.sync_failure.clear()?)
    }

    fn set_aside(&self) -> Result<(), FileError> {
        let path = self.path()?;
        let aside = |number| with_suffix(path, &format!("{ASIDE}-{number}"));
        let free = (1..MAX_ASIDE).find(|number| !aside(*number).exists());
        let aside = aside(free.unwrap_or(MAX_ASIDE));
        rename_durably(path, &aside)?;
        (self.on_damage)();
        warn!(
            file = %path.display(),
            aside = %aside.display(),
            consequence = self.consequence,
            "a damaged file was set aside"
        );
        Ok(())
    }

    /// A link to a file that is missing is an error: the disk that has it may be missing, too.
    fn exists(&self) -> Result<bool, FileError> {
        let path = self.path()?;
        let exists = path.try_exists()?;
        if !exists && path.is_symlink() {
            let missing = "a link to a file that is missing";
            return Err(io::Error::new(io::ErrorKind::NotFound, missing).into());
        }
        Ok(exists)
    }

    fn path(&self) -> Result<&Path, FileError> {
        match &self.place {
            Place::Path(path) => Ok(path),
            #[cfg(any(test, feature = "test-util"))]
            Place::Test(_) => Err(FileError::Damaged("no other file is at hand".to_owned())),
        }
    }

    fn new_path(&self) -> Result<PathBuf, FileError> {
        Ok(with_suffix(self.path()?, ".new"))
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataFile").field(&self.path().ok()).finish()
    }
}
