//! Kind, format and tables of a file of rows.

use dht_datafile::DataFile;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::{error::SpoolError, journal::State};

/// Numbers about the file: what it is, its format, the next id.
pub(crate) const INFO: TableDefinition<'_, &str, u64> = TableDefinition::new("info");
/// Format this version writes, and the newest it reads.
pub(super) const FORMAT: u64 = 2;
pub(super) const NEXT_ID: &str = "next_id";
const NAME_OF_FORMAT: &str = "format";
/// Above every id: a number of JSON holds it exactly.
pub(super) const MAX_ID: u64 = 1 << 53;

/// How rows are kept in a file.
pub(crate) trait Tables: State {
    /// Kind that the file names.
    const KIND: u64;

    /// Makes the tables in a new file.
    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError>;
    fn load(&mut self, file: &ReadTransaction) -> Result<(), SpoolError>;
    fn write(transaction: &WriteTransaction, changes: Vec<Self::Change>) -> Result<(), SpoolError>;
    fn read(file: &ReadTransaction) -> &Self::Rows;
    /// Copies what can be read of a damaged file, and answers how many rows. `damaged` is `None` if its tables cannot be found;
    /// `file` has its bytes.
    ///
    /// # Errors
    /// Those of the new file, and of the disk.
    fn salvage(
        damaged: Option<&ReadTransaction>,
        file: &DataFile,
        into: &WriteTransaction,
    ) -> Result<u64, SpoolError>;
}

/// Makes the tables of a new file.
pub(super) fn begin<S: Tables>(
    transaction: &WriteTransaction,
    first_id: u64,
) -> Result<(), SpoolError> {
    let mut info = transaction.open_table(INFO)?;
    info.insert("kind", S::KIND)?;
    info.insert(NEXT_ID, first_id)?;
    drop(info);
    name_format(transaction)?;
    S::create(transaction)
}

/// Names the format of what this version writes.
pub(super) fn name_format(transaction: &WriteTransaction) -> Result<(), SpoolError> {
    transaction
        .open_table(INFO)?
        .insert(NAME_OF_FORMAT, FORMAT)?;
    Ok(())
}

/// Kind and format of a file; `None` if nothing was written to it.
pub(super) fn purpose(database: &Database) -> Result<Option<(u64, u64)>, SpoolError> {
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
    match (info.get("kind")?, info.get(NAME_OF_FORMAT)?) {
        (Some(kind), Some(format)) => Ok(Some((kind.value(), format.value()))),
        _ => Err(SpoolError::WrongFile),
    }
}
