//! Work of the writer between commits: background syncs, copies of the index, removal of segments without
//! rows.
//!
//! A copy is made in this order: the log is synced, the copy is written to a new file and synced, renamed, the directory
//! is synced, and then segments without rows are removed. After a crash between any two steps the log and one of the two
//! copies are there.

use std::{io, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    queue::{Queue, Reply},
    shared::Shared,
    worker::{Job, Worker},
};
use crate::{
    config::EVENTUAL_LOSS_BYTES,
    copy::{self, CopyHead},
    disk::{Disk, DiskFile},
    error::StoreError,
    log::{LogPosition, segment_name},
    metrics,
};

/// Rows that come or go between two copies, at least: bounds what a restart reads again when messages are small.
const COPY_ROWS: u64 = 100_000;
/// Bytes of the log between two copies for each byte of a copy, so that copies of a large index are rare.
const LOG_BYTES_PER_COPY_BYTE: u64 = 2;
/// Bytes written with [`crate::Durability::Eventual`] before a background sync begins.
const BACKGROUND_SYNC_BYTES: u64 = 4 << 20;
/// How long something may be written and not durable before a background sync begins.
const BACKGROUND_SYNC_AFTER: Duration = Duration::from_millis(50);

/// The files, and what is to be done to them.
pub(super) struct Upkeep {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    syncer: Worker,
    copier: Worker,
    checkpoint_bytes: u64,
    unsynced: Unsynced,
    /// Bytes that the background sync under way makes durable.
    syncing: Unsynced,
    /// A background sync failed: nothing more is acknowledged before one succeeds.
    sync_failed: bool,
    /// Bytes and rows of the log since the last copy.
    since_copy: (u64, u64),
    copy_due: bool,
    /// Bytes of the last copy.
    copy_bytes: u64,
    /// Segments without rows that go once the copy under way is durable.
    doomed: Vec<u32>,
    /// Files of earlier versions that go with them.
    stale: Vec<String>,
    /// Callers that wait for the copy under way, and those that wait for the next.
    waiting: (Vec<Reply<()>>, Vec<Reply<()>>),
}

/// Bytes written and not yet durable.
#[derive(Clone, Debug, Default)]
struct Unsynced {
    files: Vec<(u32, Arc<dyn DiskFile>)>,
    /// Whether files were made.
    names: bool,
    bytes: u64,
    /// When the oldest of these bytes were written.
    since: Option<Instant>,
}

/// State that opening found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) copy_bytes: u64,
    /// Whether the log was read beyond the copy.
    pub(super) replayed: bool,
    pub(super) stale: Vec<String>,
}

impl Upkeep {
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        queue: &Arc<Queue>,
        checkpoint_bytes: u64,
        found: Found,
    ) -> io::Result<Self> {
        Ok(Self {
            syncer: Worker::start("mailbox-sync", queue, disk.blocks())?,
            copier: Worker::start("mailbox-copy", queue, disk.blocks())?,
            disk,
            shared,
            checkpoint_bytes,
            unsynced: Unsynced::default(),
            syncing: Unsynced::default(),
            sync_failed: false,
            since_copy: (0, 0),
            copy_due: found.replayed || !found.stale.is_empty(),
            copy_bytes: found.copy_bytes,
            doomed: Vec::new(),
            stale: found.stale,
            waiting: Default::default(),
        })
    }

    /// Bytes of the copy on the disk.
    pub(super) const fn copy_bytes(&self) -> u64 {
        self.copy_bytes
    }

    /// A copy is made at the next occasion.
    pub(super) const fn set_copy_due(&mut self) {
        self.copy_due = true;
    }

    /// `reply` is answered when everything that is committed now is durable and copied.
    pub(super) fn checkpoint(&mut self, reply: Reply<()>) {
        self.waiting.1.push(reply);
        self.copy_due = true;
    }

    /// A batch was written and is not synced.
    pub(super) fn wrote(&mut self, number: u32, file: Arc<dyn DiskFile>, begun: bool, bytes: u64) {
        let unsynced = &mut self.unsynced;
        unsynced.names |= begun;
        unsynced.bytes = unsynced.bytes.saturating_add(bytes);
        unsynced.since.get_or_insert_with(Instant::now);
        if unsynced
            .files
            .last()
            .is_none_or(|(last, _)| *last != number)
        {
            unsynced.files.push((number, file));
        }
    }

    /// A batch was committed.
    pub(super) const fn committed(&mut self, bytes: u64, rows: u64) {
        let (all_bytes, all_rows) = self.since_copy;
        self.since_copy = (
            all_bytes.saturating_add(bytes),
            all_rows.saturating_add(rows),
        );
    }

    /// How long until there is something to do; `None` if the writer will be woken, or has nothing to wait for.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.syncer.is_busy() {
            None
        } else {
            self.unsynced.patience()
        }
    }

    /// Whether a worker has something to do or to tell.
    pub(super) const fn is_busy(&self) -> bool {
        self.syncer.is_busy() || self.copier.is_busy()
    }

    /// After a background sync failed: tries again, and refuses whatever comes until it succeeds.
    ///
    /// # Errors
    /// When the device still fails.
    pub(super) fn mend(&mut self) -> Result<(), StoreError> {
        if self.sync_failed {
            self.unsynced.sync(&*self.disk)?;
            self.unsynced = Unsynced::default();
            self.sync_failed = false;
        }
        Ok(())
    }

    /// Takes the outcomes of work that is done and begins what is due.
    pub(super) fn run(&mut self, log: LogPosition, active: Option<u32>) {
        if let Some(outcome) = self.copier.poll() {
            self.copied(outcome);
        }
        if let Some(outcome) = self.syncer.poll() {
            self.synced(outcome);
        }
        if self.unsynced.bytes.saturating_add(self.syncing.bytes) > EVENTUAL_LOSS_BYTES
            && let Some(outcome) = self.syncer.wait()
        {
            self.synced(outcome);
        }
        let due = self.unsynced.bytes >= BACKGROUND_SYNC_BYTES
            || self.unsynced.patience() == Some(Duration::ZERO);
        if due && !self.syncer.is_busy() {
            self.begin_sync();
        }
        if self.is_copy_due() && !self.copier.is_busy() {
            let job = self.copy_job(log, active);
            self.copier.submit(job);
        }
    }

    /// The end: everything that is written becomes durable, and nothing is left to read again.
    pub(super) fn finish(&mut self, log: LogPosition, active: Option<u32>) {
        if let Some(outcome) = self.syncer.wait() {
            self.synced(outcome);
        }
        if let Some(outcome) = self.copier.wait() {
            self.copied(outcome);
        }
        if self.since_copy != (0, 0) || self.copy_due {
            let job = self.copy_job(log, active);
            self.copier.submit(job);
            if let Some(outcome) = self.copier.wait() {
                self.copied(outcome);
            }
        }
    }

    fn is_copy_due(&self) -> bool {
        let (bytes, rows) = self.since_copy;
        let log_bytes = self.copy_bytes.saturating_mul(LOG_BYTES_PER_COPY_BYTE);
        // With a bound of zero, after each commit and not for ever.
        self.copy_due
            || bytes >= self.checkpoint_bytes.max(1).max(log_bytes)
            || rows >= COPY_ROWS.max(self.shared.index.read().total().rows)
    }

    fn begin_sync(&mut self) {
        self.syncing = std::mem::take(&mut self.unsynced);
        let (disk, syncing) = (self.disk.clone(), self.syncing.clone());
        self.syncer
            .submit(Box::new(move || syncing.sync(&*disk).map(|()| 0)));
    }

    /// A background sync has ended.
    fn synced(&mut self, outcome: io::Result<u64>) {
        let synced = std::mem::take(&mut self.syncing);
        self.sync_failed = outcome.is_err();
        if let Err(error) = outcome {
            self.report(error.into());
            self.unsynced.put_back(synced);
            // Tried again after a while.
            self.unsynced.since = Some(Instant::now());
        }
    }

    /// The work of making a copy, to be done on another thread.
    fn copy_job(&mut self, log: LogPosition, active: Option<u32>) -> Job {
        let index = self.shared.index.read();
        let head = CopyHead {
            position: log,
            next_row: index.next_row(),
            newest: index.newest(),
        };
        let doomed = index.segments().iter().filter(|(number, used)| {
            used.rows == 0 && **number < log.segment && Some(**number) != active
        });
        self.doomed = doomed.map(|(number, _)| *number).collect();
        drop(index);
        self.since_copy = (0, 0);
        self.copy_due = false;
        self.waiting.0.append(&mut self.waiting.1);
        // Writes that the background sync has under way are not durable yet either.
        let mut unsynced = self.unsynced.clone();
        unsynced.put_back(self.syncing.clone());
        let (disk, shared) = (self.disk.clone(), self.shared.clone());
        let (doomed, stale) = (self.doomed.clone(), self.stale.clone());
        Box::new(move || {
            unsynced.sync(&*disk)?;
            let bytes = copy::write(&*disk, &shared.index, head)?;
            let segments = doomed.into_iter().map(|number| {
                shared.segments.remove(number);
                segment_name(number)
            });
            for name in segments.chain(stale) {
                // A file that stays is found, and removed, after the next opening.
                let _ = disk.remove(&name);
            }
            Ok(bytes)
        })
    }

    /// A copy is made, or not.
    fn copied(&mut self, outcome: io::Result<u64>) {
        let doomed = std::mem::take(&mut self.doomed);
        match outcome {
            Ok(bytes) => {
                self.copy_bytes = bytes;
                self.stale.clear();
                let mut index = self.shared.index.write();
                for number in doomed {
                    index.forget_segment(number);
                }
                drop(index);
                for reply in self.waiting.0.drain(..) {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                // The log has everything; the next copy makes up for it. It may be the log that was not synced.
                self.sync_failed |= !self.unsynced.files.is_empty();
                let error = StoreError::from(error);
                for reply in self.waiting.0.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                self.report(error);
            }
        }
    }

    fn report(&self, error: StoreError) {
        metrics::failed(&error);
        tracing::debug!(%error, "sync of stored messages failed");
    }
}

impl Unsynced {
    /// How long until a background sync is due, if anything is to be synced.
    fn patience(&self) -> Option<Duration> {
        let since = self.since.filter(|_| self.bytes > 0)?;
        Some(BACKGROUND_SYNC_AFTER.saturating_sub(since.elapsed()))
    }

    fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        for (_, file) in &self.files {
            file.sync()?;
        }
        if self.names {
            disk.sync_names()?;
        }
        Ok(())
    }

    /// Bytes whose earlier sync failed.
    fn put_back(&mut self, mut before: Self) {
        before.files.append(&mut self.files);
        self.files = before.files;
        self.names |= before.names;
        self.bytes = self.bytes.saturating_add(before.bytes);
        self.since = before.since.or(self.since);
    }
}
