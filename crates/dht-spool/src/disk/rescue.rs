//! A file that is begun, or that takes the place of a damaged one. It is made whole under another name and then renamed, so
//! that a crash leaves the one or the other.

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tracing::warn;

use super::{
    file::File,
    format::{INFO, MAX_ID, NEXT_ID, Tables, begin, purpose},
};
use crate::{error::SpoolError, journal::contain, metrics};

/// Ends what a crash interrupted, and begins a file if there is none.
pub(super) fn recover_or_create<S: Tables>(file: &File) -> Result<(), SpoolError> {
    if file.has_new()? {
        // One transaction fills it: it is there whole or not at all.
        if !file.exists()? {
            match contain(|| purpose(&file.open_new()?)) {
                Ok(Some(_)) => return file.take_new(),
                Ok(None) | Err(SpoolError::Damaged) => {}
                // It may be the only copy: another start reads it.
                Err(error) => return Err(error),
            }
        }
        file.remove_new()?;
    }
    if !file.exists()? {
        fill::<S>(file, |_| Ok(()))?;
        file.take_new()?;
    }
    Ok(())
}

/// Sets a damaged file aside; a new one with what can be read of it takes its name.
pub(super) fn replace<S: Tables>(file: &File) -> Result<(), SpoolError> {
    match salvage::<S>(file) {
        Ok(Some(rows)) => warn!(rows, "rows of a damaged file were kept"),
        Ok(None) => warn!("nothing could be read of a damaged file"),
        Err(error) => {
            file.remove_new()?;
            return Err(error);
        }
    }
    file.set_aside()?;
    metrics::damaged_file(S::NAME);
    file.take_new()
}

/// Fills the new file. Answers how many rows it has; `None` if nothing could be read.
fn salvage<S: Tables>(file: &File) -> Result<Option<u64>, SpoolError> {
    let damaged = contain(|| file.open_damaged());
    let from = match &damaged {
        Ok(damaged) => contain(|| Ok(damaged.begin_read()?)),
        Err(error) => Err(error.clone()),
    };
    let mut rows = None;
    let filled = match &from {
        Ok(from) => fill::<S>(file, |into| {
            keep_next_id(from, into)?;
            rows = Some(S::salvage(from, into)?);
            Ok(())
        }),
        Err(SpoolError::Damaged) => fill::<S>(file, S::lose_all),
        Err(error) => Err(error.clone()),
    };
    let _ = contain(|| {
        drop((from, damaged));
        Ok(())
    });
    filled.map(|()| rows)
}

/// Makes the new file, which is closed and synced.
fn fill<S: Tables>(
    file: &File,
    copy: impl FnOnce(&WriteTransaction) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    file.remove_new()?;
    let database = file.open_new()?;
    let transaction = database.begin_write()?;
    begin::<S>(&transaction, file.first_id())?;
    copy(&transaction)?;
    transaction.commit()?;
    drop(database);
    file.sync_new()
}

/// Goes on with the ids of a damaged file, unless those of a new one are above them.
fn keep_next_id(from: &ReadTransaction, into: &WriteTransaction) -> Result<(), SpoolError> {
    let next = contain(|| {
        let next = from.open_table(INFO)?.get(NEXT_ID)?;
        Ok(next.map(|next| next.value()))
    });
    let mut info = into.open_table(INFO)?;
    let first = info.get(NEXT_ID)?.map(|first| first.value());
    if let Ok(next @ Some(id)) = next
        && id < MAX_ID
        && next > first
    {
        info.insert(NEXT_ID, id)?;
    }
    Ok(())
}
