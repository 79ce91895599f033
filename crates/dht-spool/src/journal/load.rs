//! Opening a file: its tables, its format, and what becomes of a damaged one.

use std::path::Path;

use redb::{Database, ReadableDatabase, WriteTransaction};
use tracing::warn;

use super::state::{FORMAT, INFO, State};
use crate::{
    error::SpoolError,
    file::{File, contain, discard, open_damaged},
    metrics,
};

/// Opens a file and verifies it.
pub(super) fn load_checked<S: State>(
    file: &File,
    config: &S::Config,
) -> Result<(Database, S), SpoolError> {
    match load(file, config, true) {
        // The check writes to the file; a full disk must not keep a node from starting.
        Err(SpoolError::DiskFull) => load(file, config, false),
        loaded => loaded,
    }
}

/// Sets a damaged file aside and begins a new one with what can be read of it.
pub(super) fn replace<S: State>(file: &File, config: &S::Config) -> Result<(), SpoolError> {
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
pub(super) fn load<S: State>(
    file: &File,
    config: &S::Config,
    check: bool,
) -> Result<(Database, S), SpoolError> {
    let database = file.open(check)?;
    let state = contain(|| {
        match purpose(&database)? {
            None => {
                let transaction = database.begin_write()?;
                begin::<S>(&transaction)?;
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
        S::load(config, &database.begin_read()?)
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
fn begin<S: State>(transaction: &WriteTransaction) -> Result<(), SpoolError> {
    let mut info = transaction.open_table(INFO)?;
    info.insert("kind", S::KIND)?;
    info.insert("format", FORMAT)?;
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
fn salvage<S: State>(aside: &Path, into: &File, config: &S::Config) -> Result<u64, SpoolError> {
    let damaged = open_damaged(aside, S::writer(config).cache_bytes)?;
    let copied = contain(|| {
        let from = damaged.begin_read()?;
        let fresh = into.open(false)?;
        let transaction = fresh.begin_write()?;
        begin::<S>(&transaction)?;
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
