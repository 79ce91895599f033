//! The file of the ledger.

use std::{
    fs, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use dht_core::{DedupHash, UnixSeconds};
use dht_mailbox::StoreError;
use parking_lot::Mutex;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError,
};

use super::state::{Changes, State};
use crate::metrics;

/// Dedup hash to the last second in which it is remembered.
const RECEIVED: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("received");
/// Key of the responder to the newest second of its store that was read, on its clock.
const WATERMARKS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("watermarks");

/// Damaged files that are kept beside the file.
const MAX_ASIDE: u32 = 16;

/// Opens the file at first, and again after an error.
pub(super) type Open = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

pub(super) struct LedgerFile {
    open: Open,
    status: Mutex<Status>,
    /// Damaged files beside it.
    pub(super) damaged: u64,
}

enum Status {
    Open(Database),
    /// After an I/O error redb refuses every access until the file is opened again.
    Failed,
    Closed,
}

impl LedgerFile {
    /// Opens the file at this path, which is created if it does not exist. A damaged one is set aside, and a new one
    /// begun: messages that only it recorded may be delivered a second time.
    pub(super) fn at(path: &Path) -> Result<(Self, State), StoreError> {
        let make = || {
            make(path, |new| {
                Database::create(new).map(drop).map_err(Into::into)
            })
        };
        make().map_err(failure)?;
        let pages = path.to_path_buf();
        let open = move || Ok(Database::create(&pages)?);
        if let Err(error) = contain(|| open().and_then(|database| read(&database)))
            && is_damage(&error)
        {
            let aside = set_aside(path)?;
            metrics::damaged_file();
            tracing::warn!(
                %error,
                file = %path.display(),
                aside = %aside.display(),
                "the damaged ledger was set aside: messages received before may be delivered again"
            );
            make().map_err(failure)?;
        }
        let (file, state) = Self::load(Box::new(open))?;
        let damaged = (1..=MAX_ASIDE).filter(|number| aside(path, *number).exists());
        let damaged = damaged.count() as u64;
        Ok((Self { damaged, ..file }, state))
    }

    pub(super) fn load(open: Open) -> Result<(Self, State), StoreError> {
        let database = open().map_err(failure)?;
        let state = read(&database).map_err(failure)?;
        let status = Mutex::new(Status::Open(database));
        let damaged = 0;
        Ok((
            Self {
                open,
                status,
                damaged,
            },
            state,
        ))
    }

    pub(super) fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut status = self.status.lock();
        let database = match mem::replace(&mut *status, Status::Failed) {
            Status::Open(database) => database,
            Status::Failed => (self.open)().map_err(failure)?,
            Status::Closed => {
                *status = Status::Closed;
                return Err(StoreError::Closed);
            }
        };
        commit(changes, &database).map_err(failure)?;
        *status = Status::Open(database);
        Ok(())
    }

    pub(super) fn close(&self) {
        *self.status.lock() = Status::Closed;
    }
}

/// Makes a file that is not there, whole or not at all: redb does not open one that was left half made, as on a full disk.
fn make(
    path: &Path,
    create: impl FnOnce(&Path) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    if path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let made = create(&new).and_then(|()| Ok(fs::rename(&new, path)?));
    if made.is_err() {
        // A file that stays is removed by the next attempt.
        let _ = fs::remove_file(&new);
    }
    made
}

/// Runs something that reads pages: redb panics on some damaged ones.
fn contain<T>(read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // Correctness: what the closure was given is not used after a panic.
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("a page is damaged".to_owned())))
}

/// Whether the file can be read by no attempt, as against a device that fails or a version that is not known.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::RepairAborted => true,
        redb::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

fn aside(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("redb.damaged-{number}"))
}

/// Renames a damaged file, also for after a power failure; the last of [`MAX_ASIDE`] is replaced.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let free = (1..MAX_ASIDE).find(|number| !aside(path, *number).exists());
    let aside = aside(path, free.unwrap_or(MAX_ASIDE));
    fs::rename(path, &aside)?;
    // Windows opens no folder as a file, and writes its entries through.
    if let Some(folder) = path
        .parent()
        .filter(|it| cfg!(unix) && !it.as_os_str().is_empty())
    {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(aside)
}

fn read(database: &Database) -> Result<State, redb::Error> {
    let mut state = State::default();
    let transaction = database.begin_read()?;
    if let Some(table) = read_table(&transaction, RECEIVED)? {
        for entry in table.iter()? {
            let (hash, until) = entry?;
            state.remember(DedupHash(*hash.value()), UnixSeconds(until.value()));
        }
    }
    if let Some(table) = read_table(&transaction, WATERMARKS)? {
        for entry in table.iter()? {
            let (key, at) = entry?;
            state
                .watermarks
                .insert(*key.value(), UnixSeconds(at.value()));
        }
    }
    Ok(state)
}

fn commit(changes: &Changes, database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut received = transaction.open_table(RECEIVED)?;
        // In this order: a message that was forgotten may have been received again.
        for hash in &changes.forgotten {
            received.remove(&hash.0)?;
        }
        for (hash, until) in &changes.received {
            received.insert(&hash.0, until.0)?;
        }
        let mut watermarks = transaction.open_table(WATERMARKS)?;
        for (key, at) in &changes.watermarks {
            watermarks.insert(key, at.0)?;
        }
        for key in &changes.dropped {
            watermarks.remove(key)?;
        }
    }
    Ok(transaction.commit()?)
}

/// Tells the failures apart that a person can do something about.
fn failure(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked,
        error => {
            tracing::warn!(%error, "ledger cannot be read or written");
            StoreError::Io(io::ErrorKind::InvalidData)
        }
    }
}

/// Opens a table; `None` if the file has no such table yet.
fn read_table<V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, &'static [u8; 32], V>,
) -> Result<Option<ReadOnlyTable<&'static [u8; 32], V>>, redb::Error> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a disk that is full when the home is new, and then has room.
    #[test]
    fn half_made_files_are_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let full = |new: &Path| {
            fs::write(new, [0; 73_728])?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        };
        let made = make(&path, full).map_err(failure);
        assert!(matches!(made, Err(StoreError::DiskFull)));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        // A process that was killed meanwhile.
        fs::write(path.with_extension("new"), [0; 73_728]).unwrap();
        LedgerFile::at(&path).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn messages_received_again_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let hash = DedupHash([1; 32]);
        let changes = Changes {
            received: vec![(hash, UnixSeconds(9))],
            forgotten: vec![hash],
            ..Changes::default()
        };
        LedgerFile::at(&path).unwrap().0.write(&changes).unwrap();
        let (_, state) = LedgerFile::at(&path).unwrap();
        assert_eq!(state.received.snapshot(), [(hash, UnixSeconds(9))]);
    }

    /// As an older version left it on a full disk, and with any page damaged: the node runs, and nothing is thrown away.
    #[test]
    fn damaged_files_are_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        {
            let (file, _) = LedgerFile::at(&path).unwrap();
            let received = (0..=255)
                .map(|n| (DedupHash([n; 32]), UnixSeconds(9)))
                .collect();
            let changes = Changes {
                received,
                ..Changes::default()
            };
            file.write(&changes).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let mut damaged = vec![vec![0; 73_728], b"no database".to_vec()];
        for page in (0..whole.len()).step_by(4096) {
            let mut copy = whole.clone();
            copy[page..page + 64].fill(0xff);
            damaged.push(copy);
        }
        let mut aside = 0;
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let (file, _) = LedgerFile::at(&path).unwrap();
            file.write(&Changes::default()).unwrap();
            aside = fs::read_dir(home.path()).unwrap().count() - 1;
            assert_eq!(file.damaged, aside as u64);
        }
        assert!((3..=MAX_ASIDE as usize).contains(&aside), "{aside}");
        let first = fs::read(path.with_extension("redb.damaged-1")).unwrap();
        assert_eq!(first, [0; 73_728]);
    }
}
