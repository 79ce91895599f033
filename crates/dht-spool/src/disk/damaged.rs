//! A table of a damaged file, of which some pages cannot be read.

use std::collections::BTreeSet;

use redb::{ReadOnlyTable, ReadTransaction, TableDefinition, Value};

use super::{
    format::MAX_ID,
    seal::{Sealed, check_row},
};
use crate::error::{SpoolError, contain};

/// A table of a damaged file.
pub(crate) struct DamagedTable<V: Value + 'static>(Result<ReadOnlyTable<u64, V>, SpoolError>);

impl<V: Value + 'static> DamagedTable<V> {
    pub(crate) fn open(file: &ReadTransaction, table: TableDefinition<'_, u64, V>) -> Self {
        Self(contain(|| Ok(file.open_table(table)?)))
    }

    /// Adds the ids that can be reached. Answers whether every page could be read.
    pub(crate) fn reach(&self, ids: &mut BTreeSet<u64>) -> bool {
        self.0.as_ref().is_ok_and(|table| reach(table, ids))
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if there is none that can be read, and those of `read`.
    pub(crate) fn get<T>(
        &self,
        id: u64,
        read: impl FnOnce(V::SelfType<'_>) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        contain(|| {
            let table = self.0.as_ref().map_err(Clone::clone)?;
            let row = table.get(id)?.ok_or(SpoolError::Damaged)?;
            read(row.value())
        })
    }
}

impl<V: Sealed> DamagedTable<V> {
    /// A row as it is encoded, if it is what was written.
    pub(crate) fn get_whole(&self, id: u64) -> Result<Vec<u8>, SpoolError> {
        self.get(id, |row| {
            let encoded = V::as_bytes(&row).as_ref().to_vec();
            check_row::<V>(id, row)?;
            Ok(encoded)
        })
    }
}

/// Adds the ids that can be reached. Behind a page that cannot be read it goes on with the first id that can: steps that double
/// find one, and halves of the last step the first. Answers whether every page could be read.
///
/// Of two unreadable parts, ids between them are found if they are as many as the first part had; a table with the same ids
/// finds the others.
fn reach<V: Value + 'static>(table: &ReadOnlyTable<u64, V>, ids: &mut BTreeSet<u64>) -> bool {
    let (mut from, mut is_whole) = (0, true);
    loop {
        let read = contain(|| {
            for entry in table.range(from..)? {
                let id = entry?.0.value();
                if id < MAX_ID {
                    ids.insert(id);
                    from = from.max(id + 1);
                }
            }
            Ok(())
        });
        if read.is_ok() {
            return is_whole;
        }
        is_whole = false;
        match next_readable(table, from) {
            Some(next) => from = next,
            None => return false,
        }
    }
}

/// The first id behind `from` at which the table can be read.
fn next_readable<V: Value + 'static>(table: &ReadOnlyTable<u64, V>, from: u64) -> Option<u64> {
    let mut unreadable = from;
    let mut step = 1;
    let mut readable = loop {
        let at = from + step;
        if at >= MAX_ID {
            return None;
        }
        if can_read(table, at).is_ok() {
            break at;
        }
        unreadable = at;
        step *= 2;
    };
    while readable - unreadable > 1 {
        let middle = unreadable + (readable - unreadable) / 2;
        if can_read(table, middle).is_ok() {
            readable = middle;
        } else {
            unreadable = middle;
        }
    }
    Some(readable)
}

fn can_read<V: Value + 'static>(
    table: &ReadOnlyTable<u64, V>,
    from: u64,
) -> Result<(), SpoolError> {
    contain(|| {
        // Correctness: each part that is read adds an id, so that damaged ones do not hold it up for ever.
        match table.range(from..)?.next().transpose()? {
            Some((id, _)) if !(from..MAX_ID).contains(&id.value()) => Err(SpoolError::Damaged),
            _ => Ok(()),
        }
    })
}
