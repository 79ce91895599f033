//! Rows in a file: how it is opened, read and written.

mod damaged;
mod format;
mod rescue;
mod scan;
mod seal;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) use damaged::DamagedTable;
use dht_core::UnixSeconds;
use dht_datafile::DataFile;
use format::{FORMAT, NEXT_ID, begin, name_format, purpose};
pub(crate) use format::{INFO, Tables};
use parking_lot::RwLock;
use redb::{Database, ReadableDatabase};
pub(crate) use scan::leaves;
pub(crate) use seal::{Sealed, check, check_row, is_sealed, length, seal_row};

use crate::{
    error::{SpoolError, contain},
    journal::{Journal, Store},
    metrics,
};

/// Ids that a second stands for, as a power of two: a million, more than a file takes in. The first of a second fits the 53
/// bits of a JSON number until the year 2106, beyond which [`first_id`] does not go.
const SECOND_BITS: u32 = 20;

/// A file that is read and written through its tables.
struct Disk {
    /// Held by a handle, not for as long as a transaction; `None` after a failure and once closed.
    database: RwLock<Option<Database>>,
    /// Redb refuses everything after an I/O error, until the file is opened again.
    failed: AtomicBool,
    /// The file names an older format than the one that is written next.
    is_outdated: AtomicBool,
    file: DataFile,
}

/// Opens the file at `path`; a damaged one is set aside, and what can be read of it is copied.
pub(crate) fn open<S: Tables>(
    path: &Path,
    config: S::Config,
    now: UnixSeconds,
) -> Result<Journal<S>, SpoolError> {
    let file = DataFile::at(path, S::writer(&config).cache_bytes)
        .losing("what could be read of it was kept", || {
            metrics::damaged_file(S::NAME)
        })
        .locked()?;
    rescue::recover_or_create::<S>(&file, first_id(now))?;
    let loaded = match load::<S>(&file, &config, true) {
        Err(SpoolError::Damaged) => {
            rescue::replace::<S>(&file, first_id(now))?;
            load::<S>(&file, &config, true)?
        }
        loaded => loaded?,
    };
    start(file, config, loaded)
}

/// Opens a file on any backend.
#[cfg(test)]
pub(crate) fn on<S: Tables>(file: DataFile, config: S::Config) -> Result<Journal<S>, SpoolError> {
    let loaded = load::<S>(&file, &config, true)?;
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
    file: DataFile,
    config: S::Config,
    (database, state, is_outdated): Loaded<S>,
) -> Result<Journal<S>, SpoolError> {
    let disk = Disk {
        database: RwLock::new(Some(database)),
        failed: AtomicBool::new(false),
        is_outdated: AtomicBool::new(is_outdated),
        file,
    };
    Journal::start(Box::new(disk), config, state)
}

/// A file, its state, and whether it names an older format.
type Loaded<S> = (Database, S, bool);

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
            if self.is_outdated.load(Ordering::Acquire) {
                name_format(&transaction)?;
            }
            transaction.commit()?;
            self.is_outdated.store(false, Ordering::Release);
            Ok(())
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

    fn load(&self, config: &S::Config, next_id: u64) -> Result<S, SpoolError> {
        discard(self.database.write().take());
        if self.file.is_unsynced() {
            // Correctness: rows of the failed commit may be read and yet be lost by a power failure. Copied, they are durable.
            rescue::replace::<S>(&self.file, next_id)?;
        }
        let (database, state, is_outdated) = load::<S>(&self.file, config, false)?;
        self.is_outdated.store(is_outdated, Ordering::Release);
        *self.database.write() = Some(database);
        self.failed.store(false, Ordering::Release);
        Ok(state)
    }

    fn close(&self) {
        discard(self.database.write().take());
        self.file.release();
    }

    fn damaged_files(&self) -> u64 {
        self.file.damaged_files()
    }
}

/// Opens a file and reads the state.
fn load<S: Tables>(
    file: &DataFile,
    config: &S::Config,
    check: bool,
) -> Result<Loaded<S>, SpoolError> {
    let database = file.open(check)?;
    let loaded = contain(|| {
        let is_outdated = match purpose(&database)? {
            None => {
                let transaction = database.begin_write()?;
                // A backend of a test.
                begin::<S>(&transaction, 1)?;
                transaction.commit()?;
                false
            }
            Some((kind, _)) if kind != S::KIND => return Err(SpoolError::WrongFile),
            Some((_, found)) if found > FORMAT => {
                return Err(SpoolError::NewerFormat {
                    found,
                    known: FORMAT,
                });
            }
            Some((_, found)) => found < FORMAT,
        };
        let transaction = database.begin_read()?;
        let mut state = S::new(config);
        state.load(&transaction)?;
        if let Some(next) = transaction.open_table(INFO)?.get(NEXT_ID)? {
            state.ids().used(next.value().saturating_sub(1));
        }
        Ok((state, is_outdated))
    });
    match loaded {
        Ok((state, is_outdated)) => Ok((database, state, is_outdated)),
        Err(error) => {
            discard(Some(database));
            Err(error)
        }
    }
}

/// Drops a database whose pages may be damaged.
fn discard(database: Option<Database>) {
    let _ = contain(|| {
        drop(database);
        Ok(())
    });
}
