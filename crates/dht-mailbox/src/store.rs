//! The store: one directory, one writer, any number of readers.
//!
//! Messages lie in segment files, each a log that only grows; the index in memory says where, for whom, until when. The
//! log is the truth and is made durable at each commit; a copy of the index is written beside it now and then, so that a
//! restart reads only the log's end. A segment whose rows are all gone is removed as a whole; one that is mostly dead is
//! read through and what lives is written once more.

mod answers;
mod batch;
mod compact;
mod pace;
mod queue;
mod reader;
mod recover;
mod shared;
mod task;
#[cfg(test)]
mod tests;
mod upkeep;
mod worker;
mod writer;

use std::{fmt, path::Path, sync::Arc, thread::JoinHandle};

use dht_core::UnixSeconds;
use parking_lot::Mutex;

pub use self::queue::Ticket;
use self::{
    queue::{Command, Queue, Reply, Rows},
    shared::Shared,
    writer::WriterState,
};
use crate::{
    config::StoreConfig,
    disk::{Disk, FileDisk},
    error::StoreError,
    query::{Page, Query},
    record::{Inserted, NewRecord, Position, Recipient, RowId},
    stats::{Account, Inspection, RowInfo, StoreStats},
};

/// Messages for offline peers, by recipient. Cheap to clone; the last clone closes it.
///
/// ```
/// use bytes::Bytes;
/// use dht_core::{DedupHash, Deliverer, UnixSeconds};
/// use dht_mailbox::{MemoryDisk, NewRecord, Query, Recipient, Retention, Store, StoreConfig};
///
/// let store = Store::open_on(MemoryDisk::new(), StoreConfig::default())?;
/// let bob = Recipient::from_bytes([1; 32]);
/// let now = UnixSeconds(1_700_000_000);
/// let record = NewRecord {
///     recipient: bob,
///     deliverer: Deliverer::from_bytes([2; 32]),
///     hash: DedupHash([3; 32]),
///     retention: Retention::High,
///     expires: None,
///     header: Bytes::from_static(b"header"),
///     body: Bytes::from_static(b"sealed"),
/// };
/// assert!(!store.submit(record.clone(), now)?.wait()?.already_existed());
/// assert!(store.submit(record, now)?.wait()?.already_existed());
/// assert_eq!(store.fetch(&Query::all(bob, now))?.records[0].body, "sealed");
/// # Ok::<(), dht_mailbox::StoreError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    writer: Writer,
}

/// Thread or callers that run the writer; `None` once closed.
enum Writer {
    Thread(Mutex<Option<JoinHandle<()>>>),
    /// The callers, of a store on a disk that makes nobody wait. `None` also after a panic.
    Callers(Mutex<Option<Box<WriterState>>>),
}

impl Store {
    /// Opens the store in the directory `path`, and makes it if it is not there.
    ///
    /// Blocks while the copy of the index and the end of the log are read, under half a second for a full store of
    /// default size.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], or what the device says.
    pub fn open(path: impl AsRef<Path>, config: StoreConfig) -> Result<Self, StoreError> {
        Self::open_on(FileDisk::open(path)?, config)
    }

    /// Opens the store on any [`Disk`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: impl Disk, config: StoreConfig) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let blocks = disk.blocks();
        let writer = WriterState::open(Arc::new(disk), config, queue.clone())?;
        let shared = writer.shared().clone();
        let writer = if blocks {
            let thread = std::thread::Builder::new()
                .name("mailbox-write".into())
                .spawn(move || writer.run())
                .map_err(|error| StoreError::Thread(error.kind()))?;
            Writer::Thread(Mutex::new(Some(thread)))
        } else {
            Writer::Callers(Mutex::new(Some(Box::new(writer))))
        };
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                queue,
                writer,
            }),
        })
    }

    /// Whether calls wait for a device: false for a store on a [`Disk`] that makes nobody wait.
    #[must_use]
    pub fn blocks(&self) -> bool {
        matches!(self.inner.writer, Writer::Thread(_))
    }

    /// Stores a message, if it is new; answers after the commit.
    ///
    /// Waits for room in the queue.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the message is not admitted; otherwise the store failed and holds what it held.
    ///
    /// # Cancel safety
    /// Once queued, the message is stored even if the caller stops waiting.
    pub async fn insert(
        &self,
        record: NewRecord,
        now: UnixSeconds,
    ) -> Result<Inserted, StoreError> {
        self.inner.request(Command::insert(record, now)).await
    }

    /// As [`Store::insert`], but does not wait for room, and leaves the waiting for the commit to the caller.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the queue is full, [`StoreError::Closed`] after [`Store::close`].
    pub fn submit(
        &self,
        record: NewRecord,
        now: UnixSeconds,
    ) -> Result<Ticket<Inserted>, StoreError> {
        let ticket = self.inner.queue.try_send(Command::insert(record, now))?;
        self.inner.work();
        Ok(ticket)
    }

    /// Deletes these rows, those that are there; with an `owner` only rows of that mailbox. Answers how many.
    ///
    /// # Errors
    /// When the store fails; then all are there.
    pub async fn delete(
        &self,
        rows: Vec<RowId>,
        owner: Option<Recipient>,
    ) -> Result<u64, StoreError> {
        let command = |reply| Command::Delete { rows, owner, reply };
        self.inner.request(command).await
    }

    /// Deletes what lies in one mailbox from `first` to `last`, both included. Answers how many.
    ///
    /// In small steps, between which insertions are committed.
    ///
    /// # Errors
    /// When the store fails; then some may be gone.
    pub async fn delete_range(
        &self,
        recipient: Recipient,
        first: Position,
        last: Position,
    ) -> Result<u64, StoreError> {
        self.remove(Rows::Range(recipient, first, last)).await
    }

    /// Empties a mailbox. Answers how many rows it had.
    ///
    /// # Errors
    /// As [`Store::delete_range`].
    pub async fn purge(&self, recipient: Recipient) -> Result<u64, StoreError> {
        self.delete_range(recipient, Position::FIRST, Position::LAST)
            .await
    }

    /// Deletes every row whose time is over. Answers how many. Call it every few minutes.
    ///
    /// In small steps, between which insertions are committed.
    ///
    /// # Errors
    /// As [`Store::delete_range`].
    pub async fn expire(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.remove(Rows::Expired(now)).await
    }

    async fn remove(&self, rows: Rows) -> Result<u64, StoreError> {
        let command = |reply| Command::Remove { rows, reply };
        self.inner.request(command).await
    }

    /// Makes everything that was acknowledged before durable, also with [`crate::Durability::Eventual`], and gives
    /// back the room of what was deleted.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let command = |reply| Command::Checkpoint { reply };
        self.inner.request(command).await
    }

    /// Takes rows out of a mailbox, without deleting them.
    ///
    /// Does not wait for the writer, but reads files: from asynchronous code, run it where blocking is allowed.
    ///
    /// # Errors
    /// When the device fails. A row whose bytes are damaged is left out and counted in [`StoreStats::damaged`].
    pub fn fetch(&self, query: &Query) -> Result<Page, StoreError> {
        self.health()?;
        reader::fetch(&self.inner.shared, query)
    }

    /// Rows of one mailbox, the oldest first; never contents.
    ///
    /// # Errors
    /// As [`Store::health`].
    pub fn list(&self, recipient: Recipient, limit: usize) -> Result<Vec<RowInfo>, StoreError> {
        self.health()?;
        Ok(self.inner.shared.index.read().list(recipient, limit))
    }

    /// Up to `limit` mailboxes behind `after`, in the order of their keys.
    ///
    /// # Errors
    /// As [`Store::health`].
    pub fn mailboxes(
        &self,
        after: Option<Recipient>,
        limit: usize,
    ) -> Result<Vec<(Recipient, Account)>, StoreError> {
        self.health()?;
        Ok(self.inner.shared.index.read().mailboxes(after, limit))
    }

    /// How much the store holds, as of the last commit.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.inner.shared.stats()
    }

    /// Whether the store works.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::close`]; [`StoreError::WriterDied`] if the thread that writes has ended by
    /// itself. Then every other call fails with the same error.
    pub fn health(&self) -> Result<(), StoreError> {
        self.inner.queue.health()
    }

    /// Compares everything with everything; reads the whole store. For tests and for a doctor.
    ///
    /// Run it while nothing is deleted, or rows that go meanwhile are reported.
    ///
    /// # Errors
    /// When the device fails.
    pub fn verify(&self) -> Result<Inspection, StoreError> {
        self.health()?;
        reader::verify(&self.inner.shared)
    }

    /// Ends the store: what is queued is committed, later requests are refused, the files are closed.
    ///
    /// Blocks. Dropping the last clone does the same.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    /// Queues a request as soon as there is room, and waits for the answer.
    async fn request<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let ticket = self.queue.send(command).await?;
        self.work();
        ticket.await
    }

    /// Answers what is queued, if the callers do that.
    fn work(&self) {
        if let Writer::Callers(writer) = &self.writer {
            let mut slot = writer.lock();
            if let Some(writer) = slot.take() {
                *slot = Some(Box::new(writer.run_until_idle()));
            }
        }
    }

    fn close(&self) {
        self.queue.close();
        match &self.writer {
            Writer::Thread(thread) => {
                if let Some(thread) = thread.lock().take() {
                    // A panic there was answered: the tickets are dropped, which callers see as such.
                    let _ = thread.join();
                }
            }
            Writer::Callers(writer) => {
                if let Some(writer) = writer.lock().take() {
                    writer.run_until_idle().finish();
                }
            }
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread(_) => "Thread",
            Self::Callers(_) => "Callers",
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
