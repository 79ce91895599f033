//! The file of an inbox or outbox: opening, locking, and the renames by which a new one takes its place.

use std::{
    ffi::OsString,
    fmt, fs, io,
    ops::Bound,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyDatabase, StorageBackend, backends::FileBackend,
};
use tracing::warn;

use crate::{error::SpoolError, journal::contain};

/// Where the pages lie, and how to open them again after an I/O error.
pub(crate) struct File {
    backend: Box<Backend>,
    path: Option<PathBuf>,
    cache_bytes: usize,
    /// Id that a new file begins with.
    first_id: u64,
    /// Locked until [`File::release`].
    lock: Mutex<Option<fs::File>>,
}

type Backend = dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// Redb takes backends by value only.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

/// Damaged files kept beside one file; the last is replaced.
const MAX_ASIDE: u32 = 16;

/// A damaged file as it is. Redb reads nothing of a file that was not closed in order before it is repaired, and
/// repairs nothing of one that is damaged; so this hides the flag.
#[derive(Debug)]
struct Unrepaired(FileBackend);

/// Place of redb's flags in the file, behind its magic number (redb's `docs/design.md`).
const FLAGS_OFFSET: u64 = 9;
/// The flag of a file that was not closed in order.
const RECOVERY_REQUIRED: u8 = 2;

// === impl File ===

impl File {
    /// Locks `path`, which need not exist.
    pub(crate) fn at(path: &Path, cache_bytes: usize, first_id: u64) -> Result<Self, SpoolError> {
        let lock = open_private(&with_suffix(path, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(SpoolError::Locked),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let pages = path.to_path_buf();
        let backend = move || -> io::Result<Box<dyn StorageBackend>> {
            let file = open_private(&pages)?;
            Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
        };
        Ok(Self {
            backend: Box::new(backend),
            path: Some(path.to_path_buf()),
            cache_bytes,
            first_id,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Pages on any backend; the function opens them again after an I/O error.
    #[cfg(test)]
    pub(crate) fn on(
        backend: impl Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
        cache_bytes: usize,
    ) -> Self {
        Self {
            backend: Box::new(backend),
            path: None,
            cache_bytes,
            first_id: 1,
            lock: Mutex::new(None),
        }
    }

    pub(crate) const fn first_id(&self) -> u64 {
        self.first_id
    }

    /// Opens the database, made if the file is empty. `check` reads every page and verifies its checksum.
    pub(crate) fn open(&self, check: bool) -> Result<Database, SpoolError> {
        contain(|| {
            let database = Builder::new()
                .set_cache_size(self.cache_bytes)
                .set_check_integrity_on_open(check)
                .create_with_backend(Boxed((self.backend)()?));
            database.map_err(why_not_opened)
        })
    }

    /// Whether the file is there without a byte in it. One that this version makes has its name once it is whole.
    pub(crate) fn is_emptied(&self) -> Result<bool, SpoolError> {
        let Some(path) = &self.path else {
            return Ok(false);
        };
        Ok(fs::metadata(path)?.len() == 0)
    }

    pub(crate) fn exists(&self) -> Result<bool, SpoolError> {
        Ok(self.path()?.try_exists()?)
    }

    /// Opens the file for reading, in whatever state it is.
    pub(crate) fn open_damaged(&self) -> Result<ReadOnlyDatabase, SpoolError> {
        let file = FileBackend::new(fs::File::open(self.path()?)?).map_err(why_not_opened)?;
        Builder::new()
            .set_cache_size(self.cache_bytes)
            // In this mode a reader asks for no list of free pages, which a killed process did not write.
            .set_concurrency_mode(ConcurrencyMode::SingleWriter)
            .open_read_only_with_backend(Unrepaired(file))
            .map_err(why_not_opened)
    }

    /// Whether there is a file that was to take this one's place.
    pub(crate) fn has_new(&self) -> Result<bool, SpoolError> {
        Ok(self.new_path()?.try_exists()?)
    }

    /// Opens the file that is to take this one's place; made if it is not there.
    pub(crate) fn open_new(&self) -> Result<Database, SpoolError> {
        step();
        let file = open_private(&self.new_path()?)?;
        Builder::new()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(FileBackend::new(file).map_err(why_not_opened)?)
            .map_err(why_not_opened)
    }

    /// Makes the closed file survive a power failure.
    pub(crate) fn sync_new(&self) -> Result<(), SpoolError> {
        step();
        Ok(open_private(&self.new_path()?)?.sync_all()?)
    }

    pub(crate) fn remove_new(&self) -> Result<(), SpoolError> {
        step();
        match fs::remove_file(self.new_path()?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The new file takes this one's name.
    pub(crate) fn take_new(&self) -> Result<(), SpoolError> {
        Ok(rename_durably(&self.new_path()?, self.path()?)?)
    }

    /// Renames a file that is damaged.
    pub(crate) fn set_aside(&self) -> Result<(), SpoolError> {
        let path = self.path()?;
        let mut aside = with_suffix(path, ".damaged-1");
        for number in 2..=MAX_ASIDE {
            if !aside.try_exists()? {
                break;
            }
            aside = with_suffix(path, &format!(".damaged-{number}"));
        }
        rename_durably(path, &aside)?;
        warn!(file = %path.display(), aside = %aside.display(), "a damaged file was set aside");
        Ok(())
    }

    fn path(&self) -> Result<&Path, SpoolError> {
        self.path.as_deref().ok_or(SpoolError::Damaged)
    }

    fn new_path(&self) -> Result<PathBuf, SpoolError> {
        Ok(with_suffix(self.path()?, ".new"))
    }

    /// Gives up the lock.
    pub(crate) fn release(&self) {
        self.lock.lock().take();
    }

    /// How many files were set aside beside this one.
    pub(crate) fn damaged(&self) -> u64 {
        let Some((path, name)) = self
            .path
            .as_deref()
            .and_then(|it| Some((it, it.file_name()?)))
        else {
            return 0;
        };
        let prefix = format!("{}.damaged-", name.display());
        let names = fs::read_dir(folder(path)).into_iter().flatten().flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .fold(0, |count, _| count + 1)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.path).finish()
    }
}

impl StorageBackend for Boxed {
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
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

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
    fn try_lock_shared_range(
        &self,
        _: Bound<u64>,
        _: Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }
    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }
    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }
    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, redb::BackendError> {
        Ok(false)
    }
}

/// Why a database did not open: a file that is not one counts as damaged.
fn why_not_opened(error: redb::DatabaseError) -> SpoolError {
    match redb::Error::from(error) {
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            SpoolError::Damaged
        }
        redb::Error::RepairAborted => SpoolError::Damaged,
        error => error.into(),
    }
}

/// Opens a file for reading and writing that only its owner may open; made if it is not there.
fn open_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        if file.metadata()?.permissions() != private {
            file.set_permissions(private)?;
        }
    }
    Ok(file)
}

/// Renames a file so that a power failure leaves it one of its names, and the new one once this returns.
fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::rename(from, to)?;
    step();
    // Windows opens no folder as a file, and writes its entries through.
    if cfg!(unix) {
        fs::File::open(folder(to))?.sync_all()?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The next change to the folder is made: tests see what a crash would leave.
fn step() {
    #[cfg(test)]
    STEPS.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch();
        }
    });
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::RefCell<Option<Box<dyn FnMut()>>> = const { std::cell::RefCell::new(None) };
}

/// Calls `watch` before each change of this thread to a folder.
#[cfg(test)]
pub(crate) fn watch_steps(watch: Option<Box<dyn FnMut()>>) {
    STEPS.set(watch);
}
