//! A file that is begun, or that takes the place of a damaged one. It is made whole under another name and then renamed, so
//! that a crash leaves the one or the other.

use dht_datafile::DataFile;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tracing::warn;

use super::format::{INFO, MAX_ID, NEXT_ID, Tables, begin, purpose};
use crate::error::{SpoolError, contain};

/// Ends what a crash interrupted, and begins a file if there is none.
pub(super) fn recover_or_create<S: Tables>(
    file: &DataFile,
    first_id: u64,
) -> Result<(), SpoolError> {
    file.recover_or_create(
        |new| match contain(|| purpose(&file.open_new()?)) {
            Ok(purpose) => Ok(purpose.is_some()),
            Err(SpoolError::Damaged) => Ok(false),
            // It may be the only copy: another start reads it.
            Err(error) => Err(SpoolError::Leftover {
                path: new.to_path_buf(),
                source: Box::new(error),
            }),
        },
        |new| begin::<S>(new, first_id),
    )
}

/// Sets a file aside that is damaged, or of which a sync has failed; a new one with what can be read of it takes its name.
pub(super) fn replace<S: Tables>(file: &DataFile, first_id: u64) -> Result<(), SpoolError> {
    let damaged = contain(|| Ok(file.open_damaged()?));
    let from = match &damaged {
        Ok(damaged) => contain(|| Ok(damaged.begin_read()?)),
        Err(error) => Err(error.clone()),
    };
    let replaced = file.replace(|into| {
        begin::<S>(into, first_id)?;
        let from = match &from {
            Ok(from) => Some(from),
            Err(SpoolError::Damaged) => None,
            Err(error) => return Err(error.clone()),
        };
        if let Some(from) = from {
            keep_next_id(from, into)?;
        }
        let rows = S::salvage(from, file, into)?;
        warn!(
            file = S::NAME,
            rows,
            has_tables = from.is_some(),
            "rows of a damaged file were kept"
        );
        Ok(())
    });
    let _ = contain(|| {
        drop((from, damaged));
        Ok(())
    });
    replaced
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
