//! The traits that inbox and outbox, file and memory implement for the journal.

use crate::{config::WriterConfig, error::SpoolError};

/// The rows as they are kept in memory, and how a change of rows is applied to rows in memory.
pub(crate) trait State: Sized + Send + 'static {
    /// One row to write or remove.
    type Change: Send;
    type Config: Clone + Send + Sync + 'static;
    /// Reads of the rows.
    type Rows: ?Sized;
    /// The rows of a journal that ends with the process.
    type Memory: Default + Send + Sync + 'static;
    /// Label of metrics and logs.
    const NAME: &'static str;

    /// The state of a journal without rows.
    fn new(config: &Self::Config) -> Self;
    fn writer(config: &Self::Config) -> &WriterConfig;
    fn rows(memory: &Self::Memory) -> &Self::Rows;
    fn apply(memory: &mut Self::Memory, change: Self::Change);
    fn ids(&mut self) -> &mut Ids;
    /// Adds what every commit writes.
    fn finish(&mut self, _changes: &mut Vec<Self::Change>) {}
    /// Takes over what is counted since the file was opened.
    fn carry(&mut self, before: &Self);
    /// The changes so far are durable. Answers the number to publish to those who wait for changes.
    fn committed(&mut self) -> u64;
}

/// Where the rows are.
pub(crate) trait Store<S: State>: Send + Sync {
    /// Reads rows as a commit left them.
    fn read(
        &self,
        read: &mut dyn FnMut(&S::Rows) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError>;
    /// Commits changes; `next` is the next id, if it is another one than before.
    fn commit(&self, changes: Vec<S::Change>, next: Option<u64>) -> Result<(), SpoolError>;
    /// Whether the store failed, and answers nothing until its state is loaded again.
    fn has_failed(&self) -> bool;
    /// Loads the state again; `next_id` is above the ids that were used.
    fn load(&self, config: &S::Config, next_id: u64) -> Result<S, SpoolError>;
    fn close(&self);
    /// Damaged files that were set aside.
    fn damaged_files(&self) -> u64;
}

/// Ids of rows: they grow from 1, or from the one that a file begins with, and none is used twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    next: u64,
    durable: u64,
    /// The first id of this life of the journal.
    first_new: u64,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            next: 1,
            durable: 1,
            first_new: 1,
        }
    }
}

impl Ids {
    /// Uses up an id.
    pub(crate) const fn take(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// The id that is used next.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// The first id whose row is not durable.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// An id that was used before the file was opened.
    pub(crate) fn used(&mut self, id: u64) {
        self.next = self.next.max(id.saturating_add(1));
        self.durable = self.next;
        self.first_new = self.next;
    }

    /// Whether an id was used since the journal was opened.
    pub(crate) const fn is_new(&self, id: u64) -> bool {
        id >= self.first_new
    }

    /// Goes on with the life of the journal whose state is loaded again.
    pub(crate) const fn carry(&mut self, before: &Self) {
        self.first_new = before.first_new;
    }

    /// The next id, unless it is durable.
    pub(crate) fn unsaved(&self) -> Option<u64> {
        (self.next != self.durable).then_some(self.next)
    }

    pub(crate) const fn committed(&mut self) {
        self.durable = self.next;
    }
}
