//! The one that writes, usually a thread: it commits what is waiting, then looks after the disk.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    answers::Answers,
    batch::Batch,
    compact::Compaction,
    pace::Pace,
    queue::{Command, Queue},
    recover,
    shared::Shared,
    task::Task,
    upkeep::Upkeep,
};
use crate::{
    config::{Durability, StoreConfig},
    disk::Disk,
    error::StoreError,
    log::{BatchBuffer, Log},
    metrics,
    stats::StoreStats,
};

/// Requests in one commit. More would let the first ones wait for the last.
const BATCH_REQUESTS: usize = 512;
/// Bytes of requests in one commit.
const BATCH_BYTES: usize = 4 << 20;

/// The writer's state.
pub(super) struct WriterState {
    /// Dropped first.
    _abandon: AbandonOnDrop,
    disk: Arc<dyn Disk>,
    config: StoreConfig,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    upkeep: Upkeep,
    log: Log,
    buffer: BatchBuffer,
    tasks: VecDeque<Task>,
    compaction: Compaction,
    pace: Pace,
}

/// Ends the waiting of all callers, however the writer ends.
struct AbandonOnDrop(Arc<Queue>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon(std::thread::panicking());
    }
}

impl WriterState {
    /// Opens the files.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        queue: Arc<Queue>,
    ) -> Result<Self, StoreError> {
        let opened = recover::open(&disk, &config)?;
        let shared = Arc::new(Shared::new(opened.index, opened.segments, opened.damaged));
        let upkeep = Upkeep::start(
            disk.clone(),
            shared.clone(),
            &queue,
            config.checkpoint_bytes,
            opened.found,
        );
        let mut writer = Self {
            _abandon: AbandonOnDrop(Arc::clone(&queue)),
            upkeep: upkeep.map_err(|error| StoreError::Thread(error.kind()))?,
            disk,
            config,
            shared,
            queue,
            log: opened.log,
            buffer: BatchBuffer::default(),
            tasks: VecDeque::new(),
            compaction: Compaction::default(),
            pace: Pace::default(),
        };
        writer.publish(0);
        // Findings of the opening are looked after beside the first requests.
        writer.look_after_disk();
        Ok(writer)
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while self.turn(self.patience()) {}
        self.finish();
    }

    /// Does everything that is waiting, and returns the writer.
    ///
    /// Correctness: by value, so that a panic drops it, which answers the callers.
    pub(super) fn run_until_idle(mut self) -> Self {
        loop {
            let is_open = self.turn(Some(Duration::ZERO));
            let has_more =
                self.queue.has_waiting() || self.has_long_work() || self.upkeep.is_busy();
            if !is_open || !has_more {
                return self;
            }
        }
    }

    /// Makes everything durable, at the end.
    pub(super) fn finish(mut self) {
        self.upkeep.finish(self.log.position(), self.log.active());
    }

    /// One group commit of what comes within `patience`; false once nothing will.
    fn turn(&mut self, patience: Option<Duration>) -> bool {
        let taken = self.queue.take(BATCH_REQUESTS, BATCH_BYTES, patience);
        if taken.commands.is_empty() && taken.closed {
            return false;
        }
        let (commands, permits): (Vec<_>, Vec<_>) = taken.commands.into_iter().unzip();
        self.commit(commands);
        drop(permits);
        self.look_after_disk();
        true
    }

    /// How long to wait for requests: not at all while there is other work.
    fn patience(&self) -> Option<Duration> {
        if self.has_long_work() {
            Some(Duration::ZERO)
        } else {
            self.upkeep.patience()
        }
    }

    fn has_long_work(&self) -> bool {
        !self.tasks.is_empty() || self.compaction.has_work()
    }

    fn look_after_disk(&mut self) {
        self.upkeep.run(self.log.position(), self.log.active());
        if self.tasks.is_empty() {
            let (active, segment_bytes) = (self.log.active(), self.config.segment_bytes);
            self.compaction.choose(&self.shared, active, segment_bytes);
        }
    }

    /// One group commit: the requests, a step of each long task, and the answers.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut requests = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Remove { rows, reply } => self.tasks.push_back(Task::new(rows, reply)),
                Command::Checkpoint { reply } => {
                    self.upkeep.checkpoint(reply);
                    self.compaction.set_due();
                }
                command @ (Command::Insert { .. } | Command::Delete { .. }) => {
                    requests.push(command);
                }
            }
        }
        if requests.is_empty() && !self.has_long_work() {
            return;
        }
        let mut answers = Answers::default();
        let outcome = match self.upkeep.mend() {
            Ok(()) => self.transact(requests, &mut answers),
            Err(error) => {
                answers.refuse(requests, &error);
                Err(error)
            }
        };
        if let Err(error) = outcome {
            metrics::failed(&error);
            tracing::debug!(%error, "commit of stored messages failed");
            answers.fail(&error);
            for task in self.tasks.drain(..) {
                task.fail(&error);
            }
            self.compaction.abandon();
            return;
        }
        // A caller that has its answer finds it in the counts.
        self.publish(answers.insertions());
        answers.send();
    }

    /// Stages the changes, writes the log, commits. Nothing counts before the last step.
    fn transact(
        &mut self,
        requests: Vec<Command>,
        answers: &mut Answers,
    ) -> Result<(), StoreError> {
        let works = self.pace.works(!requests.is_empty());
        let start = Instant::now();
        let position = self.log.position();
        self.buffer.begin(self.log.salt());
        let index = &self.shared.index;
        let mut batch = Batch::new(&self.config, index, &mut self.buffer, position, answers);
        batch.run(requests);
        if works {
            if let Some(task) = self.tasks.front_mut() {
                batch.step(task, self.pace.rows());
            }
            if let Err(error) = self.compaction.step(&mut batch, &self.shared) {
                metrics::failed(&error);
                tracing::warn!(%error, "a segment of stored messages cannot be read");
            }
        }
        batch.finish();
        if let Err(error) = self.write_log() {
            self.log.retract(position);
            self.shared.index.write().abort();
            return Err(error);
        }
        self.shared.index.write().commit();
        if works {
            self.pace.took(start.elapsed());
            self.end_step(answers);
        }
        Ok(())
    }

    /// After a step of the first task.
    fn end_step(&mut self, answers: &mut Answers) {
        let Some(task) = self.tasks.pop_front() else {
            return;
        };
        if task.done {
            answers.finish(task);
            let index = self.shared.index.read();
            let mut segments = index.segments().iter();
            let active = self.log.active();
            if segments.any(|(number, used)| used.rows == 0 && Some(*number) != active) {
                self.upkeep.set_copy_due();
            }
            self.compaction.set_due();
        } else {
            // Long tasks take turns.
            self.tasks.push_back(task);
        }
    }

    /// Writes the batch, and syncs it if that is what an acknowledgement promises.
    fn write_log(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (bytes, rows) = (self.buffer.len() as u64, self.buffer.rows());
        let written = self.log.write(&mut self.buffer)?;
        match self.config.durability {
            Durability::Immediate => {
                written.file.sync()?;
                if written.begun {
                    self.disk.sync_names()?;
                }
            }
            Durability::Eventual => {
                self.upkeep
                    .wrote(written.segment, written.file, written.begun, bytes);
            }
        }
        if written.begun {
            self.shared.index.write().begin_segment(written.segment);
            // Insertions into a full store leave dead rows behind, and nothing else looks for them.
            self.compaction.set_due();
        }
        self.upkeep.committed(bytes, rows);
        Ok(())
    }

    /// Shows readers what there is.
    fn publish(&self, insertions: usize) {
        let index = self.shared.index.read();
        let total = index.total();
        let stats = StoreStats {
            rows: total.rows,
            bytes: total.bytes,
            low_rows: total.low_rows,
            mailboxes: index.mailbox_count() as u64,
            index_bytes: index.memory(),
            disk_bytes: self
                .shared
                .segments
                .bytes()
                .saturating_add(self.upkeep.copy_bytes()),
            damaged: 0,
        };
        drop(index);
        self.shared.set_stats(stats);
        metrics::committed(insertions, &stats);
    }
}
