//! The one thread that writes: it commits what is waiting, then looks after the disk.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use redb::Durability as Commit;
use tokio::time::Instant;

use super::{
    StoreStats,
    batch::{Answers, Batch, Task},
    books::{Books, LogPosition},
    compact::Compaction,
    debt::IndexFile,
    index::Tables,
    log::BatchBuffer,
    pace::Pace,
    queue::{Command, Queue, Reply},
    recover,
    segments::Log,
    shared::Shared,
    syncer::Syncer,
    upkeep::SyncState,
};
use crate::{
    config::{Durability, StoreConfig},
    disk::Disk,
    error::StoreError,
    metrics,
};

/// Requests in one commit. More would let the first ones wait for the last.
const BATCH_REQUESTS: usize = 512;
/// Bytes of requests in one commit.
const BATCH_BYTES: usize = 4 << 20;

/// The writer's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: StoreConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) syncer: Syncer,
    pub(super) index: Arc<IndexFile>,
    pub(super) books: Books,
    pub(super) log: Log,
    pub(super) buffer: BatchBuffer,
    pub(super) tasks: VecDeque<Task>,
    pub(super) compaction: Compaction,
    pub(super) pace: Pace,
    pub(super) sync: SyncState,
    /// Who waits for the checkpoint under way, and who for the next.
    pub(super) waiting: (Vec<Reply<()>>, Vec<Reply<()>>),
    /// The index is given up; open it again before anything else.
    pub(super) broken: bool,
}

/// However the writer ends, nobody waits for it for ever.
struct AbandonOnDrop(Arc<Queue>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        shared: Arc<Shared>,
        queue: Arc<Queue>,
    ) -> Result<Self, StoreError> {
        let opened = recover::open(&disk, &shared, &config)?;
        let syncer = Syncer::start(disk.clone(), queue.clone())
            .map_err(|error| StoreError::Thread(error.kind()))?;
        let writer = Self {
            disk,
            config,
            shared,
            queue,
            syncer,
            index: opened.index,
            books: opened.books,
            log: opened.log,
            buffer: BatchBuffer::default(),
            tasks: VecDeque::new(),
            compaction: Compaction::default(),
            pace: Pace::default(),
            sync: SyncState::default(),
            waiting: Default::default(),
            broken: false,
        };
        writer.publish(0);
        Ok(writer)
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _abandon = AbandonOnDrop(self.queue.clone());
        // What opening brought is made durable beside the first requests.
        self.sync.checkpoint_due = true;
        self.look_after_disk();
        loop {
            let taken = self
                .queue
                .take(BATCH_REQUESTS, BATCH_BYTES, self.patience());
            if taken.commands.is_empty() && taken.closed {
                break;
            }
            let (commands, permits): (Vec<_>, Vec<_>) = taken.commands.into_iter().unzip();
            self.commit(commands);
            drop(permits);
            self.look_after_disk();
        }
        self.finish();
    }

    /// How long to wait for requests: not at all while there is other work.
    fn patience(&self) -> Option<Duration> {
        if !self.broken && (!self.tasks.is_empty() || self.compaction.has_work()) {
            Some(Duration::ZERO)
        } else if self.syncer.is_busy() {
            None
        } else {
            self.sync.patience()
        }
    }

    /// One group commit: the requests, a step of each long task, and the answers.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut answers = Answers::default();
        let mut inserts = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Expire { now, reply } => self.tasks.push_back(Task::expire(now, reply)),
                Command::DeleteRange {
                    recipient,
                    first,
                    last,
                    reply,
                } => {
                    self.tasks
                        .push_back(Task::delete(recipient, first, last, reply));
                }
                Command::Checkpoint { reply } => {
                    self.waiting.1.push(reply);
                    self.sync.checkpoint_due = true;
                }
                command @ (Command::Insert { .. } | Command::Delete { .. }) => {
                    inserts.push(command)
                }
            }
        }
        let has_work = !inserts.is_empty() || !self.tasks.is_empty() || self.compaction.has_work();
        if !has_work && !self.broken {
            return;
        }
        let outcome = match self.mend() {
            Ok(()) => self.transact(inserts, &mut answers),
            Err(error) => {
                answers.refuse(inserts, &error);
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
            for reply in self.waiting.1.drain(..) {
                let _ = reply.send(Err(error.clone()));
            }
            self.compaction.abandon();
            return;
        }
        // Whoever has its answer finds it in the counts.
        self.publish(answers.insertions());
        answers.send();
    }

    /// The transaction: tables, then the log, then the commit. Nothing counts before the last step.
    fn transact(
        &mut self,
        commands: Vec<Command>,
        answers: &mut Answers,
    ) -> Result<(), StoreError> {
        let database = self.shared.database()?;
        let position = self.log.position();
        let previous = self.books.log;
        let works = self.pace.works(!commands.is_empty());
        let start = Instant::now();
        self.buffer.clear();
        let result = (|| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Commit::None)?;
            let written = {
                let mut tables = Tables::open(&transaction)?;
                let mut batch = Batch::new(
                    &self.config,
                    &mut tables,
                    &mut self.books,
                    &mut self.buffer,
                    position,
                    answers,
                );
                // Every command leaves its reply in `answers`, also those after one that fails.
                batch.run(commands)?;
                if works {
                    if let Some(task) = self.tasks.front_mut() {
                        batch.step(task, self.pace.rows())?;
                    }
                    self.compaction.step(&mut batch, &self.shared)?;
                }
                batch.finish();
                let written = self.write_log(position, &mut tables);
                if written.is_err() {
                    drop(tables);
                    transaction.abort()?;
                    return written.map(drop);
                }
                written
            };
            transaction.commit()?;
            self.books.known.keep();
            written
        })();
        match result {
            Ok(()) => {
                if works {
                    self.pace.took(start.elapsed());
                }
                let finished = self.tasks.pop_front_if(|task| task.is_done());
                if let Some(task) = finished {
                    answers.finish(task);
                    self.sync.checkpoint_due |= !self.removable().is_empty();
                    self.compaction.set_due();
                } else if let Some(task) = self.tasks.pop_front() {
                    // Long tasks take turns.
                    self.tasks.push_back(task);
                }
                Ok(())
            }
            Err(error) => {
                self.log.retract(position);
                self.books.log = previous;
                self.give_up_transaction();
                Err(error)
            }
        }
    }

    /// Writes the batch, and syncs it if that is what an acknowledgement promises.
    fn write_log(
        &mut self,
        position: LogPosition,
        tables: &mut Tables<'_>,
    ) -> Result<(), StoreError> {
        let length = if self.buffer.is_empty() {
            0
        } else {
            self.buffer.len()
        };
        if length > 0 {
            if self.log.active() != Some(position.segment) {
                self.books.begin_segment(position.segment);
            }
            let taken =
                u32::try_from(length).map_err(|_| StoreError::Io(io::ErrorKind::FileTooLarge))?;
            self.books.log = LogPosition {
                segment: position.segment,
                offset: position.offset.saturating_add(taken),
            };
        }
        self.books.flush(tables)?;
        if length == 0 {
            return Ok(());
        }
        let written = self.log.write(&mut self.buffer)?;
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        match self.config.durability {
            Durability::Immediate => {
                written.file.sync_data()?;
                if written.begun {
                    self.disk.sync_names()?;
                }
                self.books.durable = self.books.log;
            }
            Durability::Eventual => {
                self.sync.names |= written.begun;
                if self
                    .sync
                    .files
                    .last()
                    .is_none_or(|(number, _)| *number != position.segment)
                {
                    self.sync.files.push((position.segment, written.file));
                }
                self.sync.wrote(bytes);
            }
        }
        self.sync.checkpoint_bytes = self.sync.checkpoint_bytes.saturating_add(bytes);
        self.sync.checkpoint_records = self
            .sync
            .checkpoint_records
            .saturating_add(self.buffer.rows());
        Ok(())
    }

    /// After a transaction that was given up: the books again from the tables, or everything again from the disk.
    fn give_up_transaction(&mut self) {
        let mut known = std::mem::take(&mut self.books.known);
        known.roll_back();
        let books = self
            .shared
            .database()
            .and_then(|database| Books::load(&database, &self.config.limits, Some(known)));
        match books {
            Ok(mut books) => {
                books.carry_on(&self.books);
                self.books = books;
            }
            Err(_) => self.broken = true,
        }
        // Redb refuses everything after an I/O error of its own file, until it is opened again.
        if self
            .shared
            .database()
            .is_ok_and(|database| database.begin_write().is_err())
        {
            self.broken = true;
        }
    }

    /// Opens the index again if it was given up.
    fn mend(&mut self) -> Result<(), StoreError> {
        if !self.broken {
            return Ok(());
        }
        // Nobody that still reads from the old one can change the file under the new one.
        self.index.retire();
        self.shared.set_database(None);
        // Its outcome is about the old one.
        let _ = self.syncer.wait();
        let opened = recover::open(&self.disk, &self.shared, &self.config)?;
        let mut books = opened.books;
        books.carry_on(&self.books);
        (self.index, self.books, self.log) = (opened.index, books, opened.log);
        // What is written and not durable still is.
        self.sync = SyncState {
            files: std::mem::take(&mut self.sync.files),
            names: true,
            bytes: self.sync.bytes.saturating_add(self.sync.in_flight),
            since: self.sync.since.or_else(|| Some(Instant::now())),
            // What the index could not be brought to before.
            checkpoint_due: true,
            ..SyncState::default()
        };
        self.compaction = Compaction::default();
        self.broken = false;
        Ok(())
    }

    /// Shows readers what there is.
    fn publish(&self, insertions: usize) {
        let total = self.books.usage.total();
        let log: u64 = self
            .books
            .segments
            .keys()
            .filter_map(|number| self.shared.segment(*number)?.len().ok())
            .fold(0, u64::saturating_add);
        let stats = StoreStats {
            rows: total.rows,
            bytes: total.bytes,
            low_rows: total.low_rows,
            mailboxes: self.books.usage.mailboxes().try_into().unwrap_or(u64::MAX),
            disk_bytes: log.saturating_add(self.index.len().unwrap_or(0)),
        };
        self.shared.set_stats(stats);
        metrics::committed(insertions, &stats);
    }
}
