//! The durable outbox.

mod entry;
mod progress;
mod rows;
mod state;
#[cfg(feature = "redb")]
mod tables;
#[cfg(feature = "redb")]
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    UnixSeconds,
    hash::{Domain, Hasher256},
};
use tokio::sync::watch;

pub use entry::{
    Entry, EntryContent, EntryFilter, EntryId, EntryOptions, NewEntry, OutboxExpiry, OutboxStats,
    Put, SendState, StateKind,
};
pub use progress::Transition;
use state::{Digest, OutboxState};

use crate::{
    config::{MAX_CONTENT_BYTES, MAX_KEY_BYTES, OutboxConfig},
    error::SpoolError,
    journal::{Journal, State as _},
    metrics,
    ticket::Ticket,
};

/// Messages to be sent and what became of them, on disk.
///
/// A cheap handle; clones share the file. When the last one is dropped, what is queued is committed and the file is
/// closed.
///
/// ```
/// use bytes::Bytes;
/// use dht_core::UnixSeconds;
/// use dht_spool::{EntryContent, EntryOptions, NewEntry, Outbox, OutboxConfig, SendState, Transition};
/// # let recipient = dht_core::SecretKey::random(&mut dht_core::SeededEntropy::new(1).rng()).public_key();
/// # use dht_core::Entropy;
///
/// let outbox = Outbox::in_memory(OutboxConfig::default()); // Outbox::open("outbox.redb", …, now) on disk
/// let now = UnixSeconds(1_700_000_000);
/// let put = outbox.put(NewEntry {
///     key: Some("invoice-17".into()),
///     recipient,
///     message_type: 7,
///     payload: Bytes::from_static(b"hello"),
///     options: EntryOptions::default(),
///     created_at: now,
///     frame: None,
/// });
/// let id = put.wait()?.id();
///
/// assert_eq!(outbox.content(id)?, Some(EntryContent::Payload("hello".into()))); // to be sent
/// let retry_at = Some(now.saturating_add(5));
/// outbox.update(id, Transition::Sent { retry_at }, now).wait()?;
/// outbox.update(id, Transition::Received, now).wait()?;
/// assert_eq!(outbox.get(id)?.unwrap().state, SendState::Received);
/// # Ok::<(), dht_spool::SpoolError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Outbox {
    journal: Arc<Journal<OutboxState>>,
}

/// Separates the digests of idempotent puts from other hashes.
const DIGEST: Domain<'static> = Domain {
    name: "dht-spool",
    version: 1,
    label: "put",
};

impl Outbox {
    /// Opens the file, which is made if it is not there; its directory must exist. Blocks while every page is read.
    ///
    /// A damaged file is renamed to `PATH.damaged-N` once what can be read of it is in a new one, `PATH.new`, which then takes
    /// its name.
    /// The ids of a new file begin with those of `now`, above any of an earlier file; another file goes on from its highest.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] while another handle or process has it open, [`SpoolError::NewerFormat`],
    /// [`SpoolError::WrongFile`], or an I/O error.
    #[cfg(feature = "redb")]
    pub fn open(
        path: impl AsRef<std::path::Path>,
        config: OutboxConfig,
        now: UnixSeconds,
    ) -> Result<Self, SpoolError> {
        let journal = Arc::new(crate::disk::open(path.as_ref(), config, now)?);
        Ok(Self { journal })
    }

    /// An outbox that ends with the process.
    #[must_use]
    pub fn in_memory(config: OutboxConfig) -> Self {
        Self {
            journal: Arc::new(Journal::in_memory(config)),
        }
    }

    /// Puts a message. It is durable once the ticket resolves; waits while the writer's queue has no room.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::Full`], [`SpoolError::RecipientFull`], [`SpoolError::TooLarge`], [`SpoolError::InvalidKey`],
    /// [`SpoolError::KeyReused`] if the idempotency key stands for another message, or an I/O error.
    pub fn put(&self, entry: NewEntry) -> Ticket<Put> {
        self.put_within(entry, false)
    }

    /// As [`put`](Self::put), for a recipient that takes no messages now. Such recipients may have no more than one entry each
    /// in the last quarter of the outbox, and none in the last eighth: however many of them there are, messages for the
    /// others find room.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_for_absent(&self, entry: NewEntry) -> Ticket<Put> {
        self.put_within(entry, true)
    }

    fn put_within(&self, entry: NewEntry, is_absent: bool) -> Ticket<Put> {
        let bytes = match check(&entry) {
            Ok(bytes) => bytes,
            Err(error) => return Ticket::ready(Err(error)),
        };
        let digest = digest(&entry);
        self.journal.submit(bytes, move |state, changes| {
            let outcome = state.put(entry, digest, is_absent, changes);
            let name = match &outcome {
                Ok(Put::New(_)) => "new",
                Ok(Put::Existing(_)) => "present",
                Err(error) => error.name(),
            };
            metrics::inserted(OutboxState::NAME, name);
            outcome
        })
    }

    /// Keeps the sealed frame in place of the payload, so that every attempt sends the same message.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::UnknownId`], [`SpoolError::Ended`], [`SpoolError::Full`], [`SpoolError::RecipientFull`],
    /// [`SpoolError::TooLarge`], or an I/O error.
    pub fn set_frame(&self, id: EntryId, frame: Bytes) -> Ticket<()> {
        match check_size(frame.len()) {
            Err(error) => Ticket::ready(Err(error)),
            Ok(()) => self.journal.submit(frame.len(), move |state, changes| {
                state.set_frame(id, frame, changes)
            }),
        }
    }

    /// Applies a transition to an entry and answers the state the entry is in afterwards. It waits at
    /// most 5 ms for others to be committed with. After a crash before that, the attempt that led to it is repeated.
    ///
    /// # Errors
    /// The ticket's: [`SpoolError::UnknownId`], [`SpoolError::Ended`] if the entry has ended and this is no receipt,
    /// or an I/O error.
    pub fn update(
        &self,
        id: EntryId,
        transition: Transition,
        now: UnixSeconds,
    ) -> Ticket<StateKind> {
        self.journal.submit_delayed(0, move |state, changes| {
            state.update(id, transition, now, changes)
        })
    }

    /// One entry; `None` if there is none, or it ended and left. Blocks.
    ///
    /// # Errors
    /// An I/O error.
    pub fn get(&self, id: EntryId) -> Result<Option<Entry>, SpoolError> {
        self.journal.read(|rows| rows.entry(id))
    }

    /// The entry a client named. Blocks.
    ///
    /// # Errors
    /// An I/O error.
    pub fn get_by_key(&self, key: &str) -> Result<Option<Entry>, SpoolError> {
        let id = self
            .journal
            .look(|state| state.keys.get(key).map(|(id, _)| *id));
        match id {
            Some(id) => self.get(id),
            None => Ok(None),
        }
    }

    /// The bytes of an entry; `None` if there is none or it has ended. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if the bytes changed on disk, or an I/O error.
    pub fn content(&self, id: EntryId) -> Result<Option<EntryContent>, SpoolError> {
        self.journal.read(|rows| rows.content(id))?.transpose()
    }

    /// The payload of an entry; `None` if there is none, it has ended, or only the frame is kept, as always in a file that
    /// this version wrote. Blocks.
    ///
    /// # Errors
    /// As [`content`](Self::content).
    pub fn payload(&self, id: EntryId) -> Result<Option<Bytes>, SpoolError> {
        self.journal.read(|rows| rows.payload(id))?.transpose()
    }

    /// Entries above `after` in order of their ids, at most `limit`. Blocks.
    ///
    /// # Errors
    /// An I/O error.
    pub fn list(
        &self,
        filter: EntryFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<Entry>, SpoolError> {
        let first = after.unwrap_or(0).saturating_add(1);
        let ids: Vec<_> = self.journal.look(|state| {
            let slots = state.slots.range(first..state.ids.durable().max(first));
            let matching = slots
                .filter(|(_, slot)| filter.state.is_none_or(|state| state == slot.progress.kind));
            let ids = matching.map(|(id, _)| *id);
            match filter.recipient {
                Some(_) => ids.collect(),
                None => ids.take(limit).collect(),
            }
        });
        self.journal.read(|rows| {
            let mut entries = Vec::with_capacity(limit.min(ids.len()));
            for id in ids {
                if entries.len() >= limit {
                    break;
                }
                if let Some(entry) = rows.entry(id)?
                    && filter
                        .recipient
                        .is_none_or(|recipient| recipient == entry.recipient)
                {
                    entries.push(entry);
                }
            }
            Ok(entries)
        })
    }

    /// Ends entries whose time to live is over and removes those that ended long ago, at most 10,000 of each at
    /// once. To be called every minute or so.
    ///
    /// # Errors
    /// The ticket's: an I/O error.
    pub fn expire(&self, now: UnixSeconds) -> Ticket<OutboxExpiry> {
        self.journal.submit(0, move |state, changes| {
            Ok(state.expire(now, false, changes))
        })
    }

    /// As [`expire`](Self::expire), of entries put since the outbox was opened: for a clock that may be wrong.
    ///
    /// # Errors
    /// The ticket's: an I/O error.
    pub fn expire_new(&self, now: UnixSeconds) -> Ticket<OutboxExpiry> {
        self.journal.submit(
            0,
            move |state, changes| Ok(state.expire(now, true, changes)),
        )
    }

    /// Whether an entry was put since the outbox was opened.
    #[must_use]
    pub fn is_new(&self, id: EntryId) -> bool {
        self.journal.look(|state| state.ids.is_new(id))
    }

    /// The latest time that an entry names, of its end or its next attempt; `None` if there is none.
    #[must_use]
    pub fn newest_at(&self) -> Option<UnixSeconds> {
        self.journal.look(|state| {
            let due = state.due.last().map(|(at, _)| *at);
            due.max(state.ended.last().map(|(at, _)| *at))
        })
    }

    /// A number that every commit changes, to wait for changes of states and for new entries.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.journal.changes()
    }

    /// Counts of entries and bytes.
    #[must_use]
    pub fn stats(&self) -> OutboxStats {
        let damaged_files = self.journal.damaged_files();
        let last_commit_failed = self.journal.last_commit_failed();
        self.journal.look(|state| OutboxStats {
            rows: state.active(),
            bytes: state.bytes,
            ended: state.ended.len() as u64,
            waiting: state.due.len() as u64,
            full: state.is_full(),
            refused: state.tally.refused,
            damaged_files,
            last_commit_failed,
        })
    }

    /// Settings this outbox was opened with.
    #[must_use]
    pub fn config(&self) -> &OutboxConfig {
        self.journal.config()
    }

    /// Ends if the outbox ends before it is closed: a page of its file is damaged, or its writer panicked. Every request is
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

/// Bytes of the content, if the entry is one that can be put.
fn check(entry: &NewEntry) -> Result<usize, SpoolError> {
    let frame = entry.frame.as_ref().map_or(0, Bytes::len);
    check_size(entry.payload.len())?;
    check_size(frame)?;
    match &entry.key {
        Some(key) if key.is_empty() || key.len() > MAX_KEY_BYTES => Err(SpoolError::InvalidKey),
        _ => Ok(entry.payload.len().saturating_add(frame)),
    }
}

fn check_size(bytes: usize) -> Result<(), SpoolError> {
    let limit = MAX_CONTENT_BYTES;
    if bytes > limit {
        metrics::inserted(OutboxState::NAME, "too_large");
        return Err(SpoolError::TooLarge { bytes, limit });
    }
    Ok(())
}

/// Hash of the send request that an idempotency key stands for: everything but the time and the frame.
fn digest(entry: &NewEntry) -> Digest {
    if entry.key.is_none() {
        return Digest::default();
    }
    let EntryOptions {
        ttl_seconds,
        direct_only,
        replicas,
    } = entry.options;
    let replicas = replicas.map_or([0, 0], |replicas| [1, replicas]);
    Hasher256::new(DIGEST)
        .chain(entry.recipient.as_bytes())
        .chain(&entry.message_type.to_le_bytes())
        .chain(&entry.payload)
        .chain(&ttl_seconds.to_le_bytes())
        .chain(&[u8::from(direct_only)])
        .chain(&replicas)
        .finish()
}
