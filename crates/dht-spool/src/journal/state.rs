//! What differs between an inbox and an outbox.

use redb::{ReadTransaction, TableDefinition, WriteTransaction};

use crate::{config::WriterConfig, error::SpoolError};

/// Numbers about the file: what it is, its format, the next id.
pub(crate) const INFO: TableDefinition<'_, &str, u64> = TableDefinition::new("info");
/// Format this version writes, and the newest it reads.
pub(crate) const FORMAT: u64 = 1;

/// What is kept in memory of a file, and how it is kept in the file.
pub(crate) trait State: Sized + Send + 'static {
    /// One row to write or remove.
    type Change: Send;
    type Config: Clone + Send + Sync + 'static;
    /// Label of metrics and logs.
    const NAME: &'static str;
    /// What the file says it is.
    const KIND: u64;

    fn writer(config: &Self::Config) -> &WriterConfig;
    /// Makes the tables in a new file.
    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError>;
    fn load(config: &Self::Config, file: &ReadTransaction) -> Result<Self, SpoolError>;
    /// Adds what every commit writes.
    fn finish(&mut self, changes: &mut Vec<Self::Change>);
    fn write(transaction: &WriteTransaction, changes: Vec<Self::Change>) -> Result<(), SpoolError>;
    /// Takes over what is counted since the file was opened.
    fn carry(&mut self, before: &Self);
    /// The changes so far are durable. Answers the number to publish to those who wait for changes.
    fn committed(&mut self) -> u64;
    /// Copies what can be read of a damaged file. Answers how many rows.
    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError>;
}
