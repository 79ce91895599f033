//! What the writer does for the disk between commits: background syncs, checkpoints, removal of dead segments.

use std::time::Duration;

use redb::Durability as Commit;
use tokio::time::Instant;

use super::{
    books::LogPosition,
    recover,
    segments::segment_name,
    syncer::{Job, JobError},
    writer::Writer,
};
use crate::{config::EVENTUAL_LOSS_BYTES, disk::DiskFile, error::StoreError, metrics};

/// Rows that come or go between two checkpoints: bounds what a restart reads again when messages are small, and how
/// long the writer takes to hand over the pages of the index that changed, for which everybody waits.
const CHECKPOINT_RECORDS: u64 = 2_500;
/// Bytes written with [`crate::Durability::Eventual`] before a background sync begins.
const BACKGROUND_SYNC_BYTES: u64 = 4 << 20;
/// How long something may be written and not durable before a background sync begins.
const BACKGROUND_SYNC_AFTER: Duration = Duration::from_millis(50);

/// What has been written and is not durable, and how long ago the index was.
#[derive(Debug, Default)]
pub(super) struct SyncState {
    pub(super) files: Vec<(u32, DiskFile)>,
    pub(super) names: bool,
    pub(super) bytes: u64,
    /// When the oldest of these bytes were written.
    pub(super) since: Option<Instant>,
    /// Bytes of the job under way.
    pub(super) in_flight: u64,
    /// Up to where the log will be durable once that job is done.
    pub(super) reaches: LogPosition,
    pub(super) checkpoint_bytes: u64,
    pub(super) checkpoint_records: u64,
    pub(super) checkpoint_due: bool,
    /// Segments without rows, to be removed once the index that says so is durable.
    pub(super) doomed: Vec<u32>,
}

impl Writer {
    /// Background syncs, checkpoints, and the removal of segments without rows.
    pub(super) fn look_after_disk(&mut self) {
        if let Some(outcome) = self.syncer.poll() {
            self.synced(outcome);
        }
        if self.broken {
            return;
        }
        if self.sync.bytes.saturating_add(self.sync.in_flight) > EVENTUAL_LOSS_BYTES
            && let Some(outcome) = self.syncer.wait()
        {
            self.synced(outcome);
        }
        if self.syncer.is_busy() || self.broken {
            return;
        }
        // With a bound of zero, after each commit and not for ever.
        let due = self.sync.checkpoint_due
            || self.sync.checkpoint_bytes >= self.config.checkpoint_bytes.max(1)
            || self.sync.checkpoint_records >= CHECKPOINT_RECORDS;
        if due {
            self.begin_checkpoint();
        } else if self.sync.bytes >= BACKGROUND_SYNC_BYTES
            || self.sync.patience() == Some(Duration::ZERO)
        {
            let job = self.sync.take_job(self.books.log);
            self.syncer.submit(job);
        }
        if self.tasks.is_empty() {
            self.compaction.choose(
                &self.books,
                &self.shared,
                self.log.active(),
                self.config.segment_bytes,
            );
        }
    }

    /// Commits the index for good; the sync runs beside.
    fn begin_checkpoint(&mut self) {
        let removable = self.removable();
        for number in &removable {
            self.books.forget_segment(*number);
        }
        // Those of a checkpoint that did not get through are still to be removed.
        self.sync.doomed.extend(removable);
        let committed = self.shared.database().and_then(|database| {
            recover::write(&database, &mut self.books, Commit::Immediate, |_, _| Ok(()))
        });
        if let Err(error) = committed {
            self.fail_checkpoint(&error);
            return;
        }
        let mut job = self.sync.take_job(self.books.log);
        job.index = Some(self.index.clone());
        self.sync.checkpoint_bytes = 0;
        self.sync.checkpoint_records = 0;
        self.sync.checkpoint_due = false;
        let next = std::mem::take(&mut self.waiting.1);
        self.waiting.0.extend(next);
        self.compaction.set_due();
        self.syncer.submit(job);
    }

    /// Segments that no row and no restart needs.
    pub(super) fn removable(&self) -> Vec<u32> {
        let (log, active, reading) = (self.books.log, self.log.active(), self.compaction.reading());
        self.books
            .segments
            .iter()
            .filter(|(number, used)| {
                used.rows == 0
                    && **number < log.segment
                    && Some(**number) != active
                    && Some(**number) != reading
            })
            .map(|(number, _)| *number)
            .collect()
    }

    /// A job of the syncer has ended.
    fn synced(&mut self, outcome: Result<(), JobError>) {
        self.sync.in_flight = 0;
        match outcome {
            Ok(()) => {
                self.books.durable = self.books.durable.max(self.sync.reaches);
                for number in std::mem::take(&mut self.sync.doomed) {
                    self.shared.remove_segment(number);
                    // A file that stays is found and removed at the next opening.
                    let _ = self.disk.remove(&segment_name(number));
                }
                for reply in self.waiting.0.drain(..) {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(JobError::Log(error)) => self.fail_checkpoint(&error.into()),
            Err(JobError::Index(error)) => {
                // Nothing is lost, and the next checkpoint makes up for it.
                self.books.durable = self.books.durable.max(self.sync.reaches);
                self.report(&error.into());
            }
        }
    }

    fn fail_checkpoint(&mut self, error: &StoreError) {
        self.broken = true;
        self.sync.doomed.clear();
        self.sync.checkpoint_due = false;
        self.report(error);
    }

    /// Tells whoever waits for a checkpoint that it failed.
    fn report(&mut self, error: &StoreError) {
        metrics::failed(error);
        tracing::debug!(%error, "sync of stored messages failed");
        for reply in self.waiting.0.drain(..).chain(self.waiting.1.drain(..)) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// The end: whatever is written becomes durable, and nothing is left to read again.
    pub(super) fn finish(&mut self) {
        if let Some(outcome) = self.syncer.wait() {
            self.synced(outcome);
        }
        if !self.broken {
            self.begin_checkpoint();
            if let Some(outcome) = self.syncer.wait() {
                self.synced(outcome);
            }
        }
        // What redb writes when it closes goes to the file at once.
        self.index.stop_deferring();
        self.shared.set_database(None);
    }
}

impl SyncState {
    /// How long until a background sync is due, if anything is to be synced.
    pub(super) fn patience(&self) -> Option<Duration> {
        let since = self.since.filter(|_| self.bytes > 0)?;
        Some(BACKGROUND_SYNC_AFTER.saturating_sub(since.elapsed()))
    }

    /// Bytes were written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Everything that is written and not durable, as a job.
    fn take_job(&mut self, reaches: LogPosition) -> Job {
        self.reaches = reaches;
        self.in_flight = std::mem::take(&mut self.bytes);
        self.since = None;
        Job {
            files: self.files.drain(..).map(|(_, file)| file).collect(),
            names: std::mem::take(&mut self.names),
            index: None,
        }
    }
}
