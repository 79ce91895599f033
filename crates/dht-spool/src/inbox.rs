//! The durable inbox.

mod consumer;
mod row;
mod rows;
mod shares;
mod state;
#[cfg(feature = "redb")]
mod tables;
#[cfg(feature = "redb")]
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dht_core::{DedupHash, UnixSeconds};
use tokio::sync::watch;

pub use row::{
    Arrival, ConsumerStats, InboxExpiry, InboxStats, Inserted, Lost, NewRow, Row, RowId, Start,
};
pub use state::DEFAULT_CONSUMER;
use state::InboxState;

use crate::{
    config::{InboxConfig, MAX_CONTENT_BYTES},
    error::SpoolError,
    journal::{Journal, State as _},
    limit::Limit,
    metrics,
    ticket::Ticket,
};

/// Messages that were received and that not every consumer has acked, on disk.
///
/// A cheap handle; clones share the file. When the last one is dropped, what is queued is committed and the file is
/// closed.
///
/// ```
/// use bytes::Bytes;
/// use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds};
/// use dht_spool::{Arrival, Inbox, InboxConfig, Inserted, Limit, NewRow};
///
/// let inbox = Inbox::in_memory(InboxConfig::default()); // Inbox::open("inbox.redb", …, now) on disk
/// let now = UnixSeconds(1_700_000_000);
/// let message = NewRow {
///     received_at: now,
///     origin: None,
///     origin_is_proven: false,
///     message_type: 7,
///     payload: Bytes::from_static(b"hello"),
///     via: NodeId::from_bytes(&[1; 13]).unwrap(),
///     deliverer: Deliverer::from_bytes([1; 32]),
///     arrival: Arrival::Live,
///     hash: DedupHash([9; 32]),
/// };
/// // Durable once this returns; `.await` works as well, on any runtime.
/// assert_eq!(inbox.insert(message.clone()).wait()?, Inserted::New(1));
/// assert_eq!(inbox.insert(message).wait()?, Inserted::AlreadyPresent);
///
/// let rows = inbox.read("default", None, Limit::default())?;
/// assert_eq!(rows[0].message.payload, "hello");
/// inbox.ack("default", rows[0].id, now).wait()?;
/// assert!(inbox.read("default", None, Limit::default())?.is_empty());
/// # Ok::<(), dht_spool::SpoolError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Inbox {
    journal: Arc<Journal<InboxState>>,
}

impl Inbox {
    /// Opens the file, which is made if it is not there; its directory must exist. Blocks while every page is read.
    ///
    /// A damaged file is renamed to `PATH.damaged-N` once what can be read of it is in a new one, `PATH.new`, which then takes
    /// its name; [`lost`](Self::lost) says what could not be read.
    /// The ids of a new file begin with those of `now`, above any of an earlier file; another file goes on from its highest.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] while another handle or process has it open, [`SpoolError::NewerFormat`],
    /// [`SpoolError::WrongFile`], or an I/O error.
    #[cfg(feature = "redb")]
    pub fn open(
        path: impl AsRef<std::path::Path>,
        config: InboxConfig,
        now: UnixSeconds,
    ) -> Result<Self, SpoolError> {
        let journal = Arc::new(crate::disk::open(path.as_ref(), config, now)?);
        Ok(Self { journal })
    }

    /// An inbox that ends with the process.
    #[must_use]
    pub fn in_memory(config: InboxConfig) -> Self {
        Self {
            journal: Arc::new(Journal::in_memory(config)),
        }
    }

    /// Inserts a message. It is durable once the ticket resolves; waits while the writer's queue has no room.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::Full`], [`SpoolError::ShareFull`], [`SpoolError::TooLarge`], or an I/O error.
    pub fn insert(&self, row: NewRow) -> Ticket<Inserted> {
        if let Err(error) = check(&row) {
            return Ticket::ready(Err(error));
        }
        self.journal
            .submit(row.payload.len(), move |state, changes| {
                counted(state.insert(row, changes))
            })
    }

    /// Adds a consumer; answers false if it exists. `default` exists from the beginning.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::InvalidName`], [`SpoolError::TooManyConsumers`], or an I/O error.
    pub fn add_consumer(&self, name: &str, start: Start) -> Ticket<bool> {
        let name = name.to_owned();
        self.journal
            .submit(name.len(), move |state, _| state.add_consumer(&name, start))
    }

    /// Removes a consumer, and the rows that only it had not acked.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::UnknownConsumer`], [`SpoolError::LastConsumer`], or an I/O error.
    pub fn remove_consumer(&self, name: &str, now: UnixSeconds) -> Ticket<()> {
        let name = name.to_owned();
        self.journal.submit(name.len(), move |state, changes| {
            state.remove_consumer(&name, now, changes)
        })
    }

    /// Reads rows that a consumer has not acked, oldest first, above `after` if given. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::UnknownConsumer`], or an I/O error.
    pub fn read(
        &self,
        consumer: &str,
        after: Option<RowId>,
        limit: Limit,
    ) -> Result<Vec<Row>, SpoolError> {
        let mut after = after.unwrap_or(0);
        loop {
            let ids = self.journal.look(|state| {
                let mut bytes = 0_u64;
                let within = state.unread(consumer, after)?.take(limit.rows);
                let within = within.take_while(|(_, size)| {
                    let first = bytes == 0;
                    bytes = bytes.saturating_add((*size).max(1));
                    first || bytes <= limit.bytes as u64
                });
                Ok::<_, SpoolError>(within.map(|(id, _)| id).collect::<Vec<_>>())
            })?;
            let Some(last) = ids.last().copied() else {
                return Ok(Vec::new());
            };
            let mut rows = Vec::with_capacity(ids.len());
            for row in self.journal.read(|rows| rows.read(&ids))? {
                match row {
                    Ok(row) => rows.push(row),
                    Err(id) => self.remove_damaged(id),
                }
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
            after = last;
        }
    }

    /// Payload bytes of the row that [`read`](Self::read) would answer first; `None` if there is no row.
    ///
    /// # Errors
    /// [`SpoolError::UnknownConsumer`].
    pub fn next_bytes(
        &self,
        consumer: &str,
        after: Option<RowId>,
    ) -> Result<Option<usize>, SpoolError> {
        self.journal.look(|state| {
            let first = state.unread(consumer, after.unwrap_or(0))?.next();
            Ok(first.map(|(_, bytes)| usize::try_from(bytes).unwrap_or(usize::MAX)))
        })
    }

    fn remove_damaged(&self, id: RowId) {
        tracing::warn!(id, "a damaged message was removed from the inbox");
        // If there is no room in the queue, the next read removes it.
        let _ = self.journal.try_submit(0, move |state, changes| {
            state.remove_damaged(id, changes);
            Ok(())
        });
    }

    /// Acks every row up to and including `up_to`. Rows that every consumer acked leave; their hashes are
    /// remembered from `now` on. Acking again is no error.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::UnknownConsumer`], [`SpoolError::UnknownId`] for an id that no row has had, or
    /// what the device says.
    pub fn ack(&self, consumer: &str, up_to: RowId, now: UnixSeconds) -> Ticket<()> {
        let name = consumer.to_owned();
        self.journal.submit(name.len(), move |state, changes| {
            state.ack(&name, up_to, now, changes)
        })
    }

    /// Acks one row, also if older ones are not acked.
    ///
    /// # Errors
    /// As [`Inbox::ack`], and [`SpoolError::TooManyAcks`].
    pub fn ack_one(&self, consumer: &str, id: RowId, now: UnixSeconds) -> Ticket<()> {
        let name = consumer.to_owned();
        self.journal.submit(name.len(), move |state, changes| {
            state.ack_one(&name, id, now, changes)
        })
    }

    /// Whether a message with this hash is in the inbox, durably, or left it within the remembered time.
    #[must_use]
    pub fn contains(&self, hash: &DedupHash) -> bool {
        self.journal.look(|state| state.contains(hash))
    }

    /// Messages that were lost to damage, also in an earlier life, until [`forget_lost`](Self::forget_lost). A commit that adds
    /// one is seen at [`newest`](Self::newest).
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.journal.look(|state| state.lost.clone())
    }

    /// Drops these of the lost messages: whoever noted that they were received has durably forgotten it.
    ///
    /// # Errors
    /// The ticket's: an I/O error.
    pub fn forget_lost(&self, lost: Lost) -> Ticket<()> {
        let bytes = lost.hashes.len().saturating_mul(size_of::<DedupHash>());
        self.journal.submit(bytes, move |state, changes| {
            state.forget_lost(lost, changes);
            Ok(())
        })
    }

    /// Removes rows past retention, at most 10,000 at once, and forgets hashes whose time is over. To be called
    /// every minute or so.
    ///
    /// # Errors
    /// The ticket's: an I/O error.
    pub fn expire(&self, now: UnixSeconds) -> Ticket<InboxExpiry> {
        self.journal
            .submit(0, move |state, changes| Ok(state.expire(now, changes)))
    }

    /// The id of the newest durable row; the one before the first if there was none. Marked as changed by every commit.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<RowId> {
        self.journal.changes()
    }

    /// Counts of rows, bytes, hashes and consumers.
    #[must_use]
    pub fn stats(&self) -> InboxStats {
        let damaged_files = self.journal.damaged_files();
        let last_commit_failed = self.journal.last_commit_failed();
        self.journal.look(|state| InboxStats {
            rows: state.shares.total().rows,
            bytes: state.shares.total().bytes,
            full: state.is_full(),
            refused: state.tally.refused,
            over_share: state.tally.over_share,
            expired: state.tally.expired,
            damaged: state.tally.damaged,
            damaged_files,
            last_commit_failed,
            newest: state.ids.durable() - 1,
            remembered: state.remembered.len(),
            consumers: state
                .consumers
                .iter()
                .map(|(name, consumer)| ConsumerStats {
                    name: name.clone(),
                    cursor: consumer.cursor,
                    pending: consumer.pending,
                })
                .collect(),
        })
    }

    /// The latest time at which a row that is held was received; `None` if there is none.
    #[must_use]
    pub fn newest_at(&self) -> Option<UnixSeconds> {
        self.journal
            .look(|state| state.rows.values().map(|row| row.received_at).max())
    }

    /// Rows that have left since the inbox was opened, for whatever reason: what had no room may have some once this has
    /// grown.
    #[must_use]
    pub fn departed(&self) -> u64 {
        self.journal.look(|state| state.tally.departed())
    }

    /// Settings this inbox was opened with.
    #[must_use]
    pub fn config(&self) -> &InboxConfig {
        self.journal.config()
    }

    /// Ends if the inbox ends before it is closed: a page of its file is damaged, or its writer panicked. Every request is
    /// refused from then on.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.journal.failed()
    }

    /// Whether calls wait for a device: false in memory.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.journal.blocks()
    }

    /// Commits what is queued and closes the file, for all clones. Blocks.
    pub fn close(&self) {
        self.journal.close();
    }
}

fn check(row: &NewRow) -> Result<(), SpoolError> {
    let (bytes, limit) = (row.payload.len(), MAX_CONTENT_BYTES);
    if bytes > limit {
        metrics::inserted(InboxState::NAME, "too_large");
        return Err(SpoolError::TooLarge { bytes, limit });
    }
    Ok(())
}

/// Counts the outcome of an insertion.
fn counted(outcome: Result<Inserted, SpoolError>) -> Result<Inserted, SpoolError> {
    let name = match &outcome {
        Ok(Inserted::New(_)) => "new",
        Ok(Inserted::AlreadyPresent) => "present",
        Err(error) => error.name(),
    };
    metrics::inserted(InboxState::NAME, name);
    outcome
}
