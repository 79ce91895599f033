//! Rows in a file: its tables, its format, and what becomes of a damaged one.

mod file;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use dht_core::UnixSeconds;
pub(crate) use file::File;
use file::open_damaged;
use parking_lot::RwLock;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use tracing::warn;

use crate::{
    error::SpoolError,
    journal::{Journal, State, Store, contain},
    metrics,
};

/// Numbers about the file: what it is, its format, the next id.
pub(crate) const INFO: TableDefinition<'_, &str, u64> = TableDefinition::new("info");
/// Format this version writes, and the newest it reads.
const FORMAT: u64 = 1;
const NEXT_ID: &str = "next_id";
/// Ids that a second stands for, as a power of two: a million, more than a file takes in. The first of a second fits the 53
/// bits of a JSON number until the year 2106, beyond which [`first_id`] does not go.
const SECOND_BITS: u32 = 20;

/// How rows are kept in a file.
pub(crate) trait Tables: State {
    /// Kind that the file names.
    const KIND: u64;

    /// Makes the tables in a new file.
    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError>;
    fn load(&mut self, file: &ReadTransaction) -> Result<(), SpoolError>;
    fn write(transaction: &WriteTransaction, changes: Vec<Self::Change>) -> Result<(), SpoolError>;
    fn read(file: &ReadTransaction) -> &Self::Rows;
    /// Copies what can be read of a damaged file. Answers how many rows.
    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError>;
}

/// A file that is read and written through its tables.
struct Disk {
    /// Held by a handle, not for as long as a transaction; `None` after a failure and once closed.
    database: RwLock<Option<Database>>,
    /// Redb refuses everything after an I/O error, until the file is opened again.
    failed: AtomicBool,
    file: File,
}

/// Opens the file at `path`; a damaged one is set aside, and what can be read of it is copied.
pub(crate) fn open<S: Tables>(
    path: &Path,
    config: S::Config,
    now: UnixSeconds,
) -> Result<Journal<S>, SpoolError> {
    let file = File::at(path, S::writer(&config).cache_bytes, first_id(now))?;
    if file.is_emptied()? {
        // Redb would begin a new one in silence. There is nothing to copy.
        file.set_aside()?;
        metrics::damaged_file(S::NAME);
    }
    let loaded = match load_checked::<S>(&file, &config) {
        Err(SpoolError::Damaged) => {
            replace::<S>(&file, &config)?;
            load_checked::<S>(&file, &config)?
        }
        loaded => loaded?,
    };
    start(file, config, loaded)
}

/// Opens a file on any backend.
#[cfg(test)]
pub(crate) fn on<S: Tables>(file: File, config: S::Config) -> Result<Journal<S>, SpoolError> {
    let loaded = load_checked::<S>(&file, &config)?;
    start(file, config, loaded)
}

/// Id that a file begun now begins with: above those of a file that was begun in an earlier second, even if nothing can be
/// read of that one.
const fn first_id(now: UnixSeconds) -> u64 {
    // A clock that is far ahead leaves ids for what comes after it.
    let seconds = if now.0 >> 32 == 0 {
        now.0
    } else {
        u32::MAX as u64
    };
    (seconds << SECOND_BITS) + 1
}

fn start<S: Tables>(
    file: File,
    config: S::Config,
    (database, state): (Database, S),
) -> Result<Journal<S>, SpoolError> {
    let disk = Disk {
        database: RwLock::new(Some(database)),
        failed: AtomicBool::new(false),
        file,
    };
    Journal::start(Box::new(disk), config, state)
}

/// Copies a payload if it has the length and the CRC-32 of the one that was written.
pub(crate) fn check(payload: &[u8], bytes: u64, crc: u32) -> Result<Bytes, SpoolError> {
    if payload.len() as u64 == bytes && crc32fast::hash(payload) == crc {
        Ok(Bytes::copy_from_slice(payload))
    } else {
        Err(SpoolError::Damaged)
    }
}

// === impl Disk ===

impl<S: Tables> Store<S> for Disk {
    fn read(
        &self,
        read: &mut dyn FnMut(&S::Rows) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let outcome = contain(|| {
            let transaction = match &*self.database.read() {
                Some(database) => database.begin_read()?,
                None if self.failed.load(Ordering::Acquire) => {
                    return Err(SpoolError::Io(std::io::ErrorKind::Other));
                }
                None => return Err(SpoolError::Closed),
            };
            read(S::read(&transaction))
        });
        if let Err(SpoolError::Io(_) | SpoolError::Database(_) | SpoolError::DiskFull) = outcome {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    fn commit(&self, changes: Vec<S::Change>, next: Option<u64>) -> Result<(), SpoolError> {
        let write = || {
            let database = self.database.read();
            let database = database.as_ref().ok_or(SpoolError::Closed)?;
            let transaction = database.begin_write()?;
            S::write(&transaction, changes)?;
            if let Some(next) = next {
                transaction.open_table(INFO)?.insert(NEXT_ID, next)?;
            }
            Ok(transaction.commit()?)
        };
        let written = write();
        if written.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        written
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn load(&self, config: &S::Config) -> Result<S, SpoolError> {
        discard(self.database.write().take());
        let (database, state) = load::<S>(&self.file, config, false)?;
        *self.database.write() = Some(database);
        self.failed.store(false, Ordering::Release);
        Ok(state)
    }

    fn close(&self) {
        discard(self.database.write().take());
        self.file.release();
    }

    fn damaged_files(&self) -> u64 {
        self.file.damaged()
    }
}

/// Opens a file and verifies it.
fn load_checked<S: Tables>(file: &File, config: &S::Config) -> Result<(Database, S), SpoolError> {
    match load(file, config, true) {
        // The check writes to the file; a full disk must not keep a node from starting.
        Err(SpoolError::DiskFull) => load(file, config, false),
        loaded => loaded,
    }
}

/// Sets a damaged file aside and begins a new one with what can be read of it.
fn replace<S: Tables>(file: &File, config: &S::Config) -> Result<(), SpoolError> {
    let aside = file.set_aside()?;
    metrics::damaged_file(S::NAME);
    match contain(|| salvage::<S>(&aside, file, config)) {
        Ok(rows) => warn!(rows, "rows of the damaged file were kept"),
        Err(SpoolError::Damaged) => warn!("nothing could be read of the damaged file"),
        Err(error) => {
            file.take_back(&aside)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Opens a file, makes its tables if it is new, and reads the state.
fn load<S: Tables>(
    file: &File,
    config: &S::Config,
    check: bool,
) -> Result<(Database, S), SpoolError> {
    let database = file.open(check)?;
    let state = contain(|| {
        match purpose(&database)? {
            None => {
                let transaction = database.begin_write()?;
                begin::<S>(&transaction, file.first_id())?;
                transaction.commit()?;
                file.sync_name()?;
            }
            Some((kind, _)) if kind != S::KIND => return Err(SpoolError::WrongFile),
            Some((_, found)) if found > FORMAT => {
                return Err(SpoolError::NewerFormat {
                    found,
                    known: FORMAT,
                });
            }
            Some(_) => {}
        }
        let transaction = database.begin_read()?;
        let mut state = S::new(config);
        state.load(&transaction)?;
        if let Some(next) = transaction.open_table(INFO)?.get(NEXT_ID)? {
            state.ids().used(next.value().saturating_sub(1));
        }
        Ok(state)
    });
    match state {
        Ok(state) => Ok((database, state)),
        Err(error) => {
            discard(Some(database));
            Err(error)
        }
    }
}

/// Makes the tables of a new file.
fn begin<S: Tables>(transaction: &WriteTransaction, first_id: u64) -> Result<(), SpoolError> {
    let mut info = transaction.open_table(INFO)?;
    info.insert("kind", S::KIND)?;
    info.insert("format", FORMAT)?;
    info.insert(NEXT_ID, first_id)?;
    S::create(transaction)
}

/// Kind and format of a file; `None` if nothing was written to it.
fn purpose(database: &Database) -> Result<Option<(u64, u64)>, SpoolError> {
    let transaction = database.begin_read()?;
    let info = match transaction.open_table(INFO) {
        Ok(info) => info,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let other = transaction.list_tables()?.next().is_some();
            return if other {
                Err(SpoolError::WrongFile)
            } else {
                Ok(None)
            };
        }
        Err(error) => return Err(error.into()),
    };
    match (info.get("kind")?, info.get("format")?) {
        (Some(kind), Some(format)) => Ok(Some((kind.value(), format.value()))),
        _ => Err(SpoolError::WrongFile),
    }
}

/// Copies what can be read of a damaged file into a new one.
fn salvage<S: Tables>(aside: &Path, into: &File, config: &S::Config) -> Result<u64, SpoolError> {
    let damaged = open_damaged(aside, S::writer(config).cache_bytes)?;
    let copied = contain(|| {
        let from = damaged.begin_read()?;
        let fresh = into.open(false)?;
        let transaction = fresh.begin_write()?;
        begin::<S>(&transaction, into.first_id())?;
        // Each table is read by itself and up to the first page that cannot be read.
        let _ = contain(|| {
            if let Some(next) = from.open_table(INFO)?.get(NEXT_ID)? {
                let next = next.value().max(into.first_id());
                transaction.open_table(INFO)?.insert(NEXT_ID, next)?;
            }
            Ok(())
        });
        let rows = S::salvage(&from, &transaction)?;
        transaction.commit()?;
        into.sync_name()?;
        Ok(rows)
    });
    let _ = contain(|| {
        drop(damaged);
        Ok(())
    });
    copied
}

/// Drops a database whose pages may be damaged.
fn discard(database: Option<Database>) {
    let _ = contain(|| {
        drop(database);
        Ok(())
    });
}
