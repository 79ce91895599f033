//! One group commit while it is put together: what is admitted, what is evicted, and the bytes for the log.

use dht_core::UnixSeconds;
use parking_lot::RwLock;

use super::{answers::Answers, queue::Command, task::Task};
use crate::{
    config::StoreConfig,
    error::{Refusal, StoreError},
    index::{Index, Newcomer},
    log::{BatchBuffer, LogPosition, Meta, Place, message_length},
    metrics::Removal,
    record::{Inserted, NewRecord, Position, Recipient, RowId, StoredRecord},
};

/// Largest header in bytes; a stock one has under 300.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// How far the clock may have been set back, in seconds, for rows to get the second of the row before them: the longest
/// lifetime of a row. A larger step back corrects a clock that was wrong.
const MAX_BACK_SECONDS: u64 = 3 * 24 * 60 * 60;

/// Stages changes in the index and writes them to the buffer.
pub(super) struct Batch<'b> {
    config: &'b StoreConfig,
    index: &'b RwLock<Index>,
    buffer: &'b mut BatchBuffer,
    /// Where the batch will lie.
    position: LogPosition,
    answers: &'b mut Answers,
    /// Rows taken out that are not in the buffer yet.
    gone: Vec<RowId>,
}

impl<'b> Batch<'b> {
    pub(super) const fn new(
        config: &'b StoreConfig,
        index: &'b RwLock<Index>,
        buffer: &'b mut BatchBuffer,
        position: LogPosition,
        answers: &'b mut Answers,
    ) -> Self {
        Self {
            config,
            index,
            buffer,
            position,
            answers,
            gone: Vec::new(),
        }
    }

    /// Does the requests in order.
    pub(super) fn run(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Insert { record, now, reply } => {
                    let answer = self.insert(*record, now).map_err(StoreError::from);
                    self.answers.inserted(reply, answer);
                }
                Command::Delete { rows, owner, reply } => {
                    let rows = self.delete(&rows, owner);
                    self.answers.removed(Removal::Delivered, rows);
                    self.answers.deleted(reply, rows);
                }
                // The writer makes tasks of the others.
                _ => {}
            }
        }
    }

    /// Does a part of a task: at most `limit` rows.
    pub(super) fn step(&mut self, task: &mut Task, limit: usize) {
        let mut index = self.index.write();
        let rows = task.next(&index, limit);
        task.done = rows.len() < limit;
        let before = self.gone.len();
        self.gone
            .extend(rows.into_iter().filter(|id| index.remove(*id)));
        let removed = self.gone.len().saturating_sub(before) as u64;
        task.removed = task.removed.saturating_add(removed);
        self.answers.removed(task.reason(), removed);
    }

    /// Writes a row once more, so that its old segment can go.
    pub(super) fn relocate(&mut self, id: RowId, meta: &Meta, record: &StoredRecord) {
        let place = self.next_place(record.header.len(), record.body.len());
        self.index.write().relocate(id, place);
        self.buffer.message(id, meta, &record.header, &record.body);
    }

    /// Takes out a row whose bytes are damaged.
    pub(super) fn drop_damaged(&mut self, id: RowId) {
        if self.index.write().remove(id) {
            self.gone.push(id);
            self.answers.removed(Removal::Damaged, 1);
        }
    }

    /// Completes the bytes for the log.
    pub(super) fn finish(mut self) {
        self.log_gone();
    }

    fn insert(&mut self, record: NewRecord, now: UnixSeconds) -> Result<Inserted, Refusal> {
        let config = self.config;
        let body_bytes = u64::try_from(record.body.len()).unwrap_or(u64::MAX);
        if body_bytes > config.limits.max_body_bytes || record.header.len() > MAX_HEADER_BYTES {
            return Err(Refusal::TooLarge);
        }
        if config.lifetimes.honour_expires && record.expires.is_some_and(|expires| expires < now) {
            return Err(Refusal::Expired);
        }
        let bytes = message_length(record.header.len(), record.body.len());
        let index = self.index;
        let mut index = index.write();
        if index.contains(&record.hash) {
            return Ok(Inserted::AlreadyExisted);
        }
        let newcomer = Newcomer {
            recipient: record.recipient,
            deliverer: record.deliverer,
            retention: record.retention,
            bytes,
        };
        index.check_deliverer(config, &newcomer)?;
        while let Some(full) = index.find_full(config, &newcomer) {
            let victim = index.eviction_victim(full, &newcomer);
            let victim = victim.ok_or_else(|| full.refusal())?;
            index.remove(victim);
            self.gone.push(victim);
            self.answers.removed(Removal::Evicted, 1);
        }
        let stored_at = stored_at(&mut index, now);
        let meta = Meta {
            recipient: record.recipient,
            deliverer: record.deliverer,
            hash: record.hash,
            stored_at,
            keep_until: config
                .lifetimes
                .keep_until(record.retention, now, record.expires),
            retention: record.retention,
        };
        let id = RowId(index.next_row());
        let place = self.next_place(record.header.len(), record.body.len());
        index.add(id, &meta, place);
        drop(index);
        self.buffer.message(id, &meta, &record.header, &record.body);
        Ok(Inserted::Fresh(Position { stored_at, id }))
    }

    fn delete(&mut self, rows: &[RowId], owner: Option<Recipient>) -> u64 {
        let mut index = self.index.write();
        let mut deleted = 0_u64;
        for id in rows {
            let owned = owner.is_none_or(|owner| {
                index
                    .row(*id)
                    .is_some_and(|(meta, _)| meta.recipient == owner)
            });
            if owned && index.remove(*id) {
                self.gone.push(*id);
                deleted = deleted.saturating_add(1);
            }
        }
        deleted
    }

    /// Where the next message will lie.
    fn next_place(&mut self, header: usize, body: usize) -> Place {
        // In this order in the log, too: a message may have the hash of one that made room for it.
        self.log_gone();
        let start = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        Place {
            segment: self.position.segment,
            offset: self.position.offset.saturating_add(start),
            length: message_length(header, body).try_into().unwrap_or(u32::MAX),
        }
    }

    fn log_gone(&mut self) {
        if !self.gone.is_empty() {
            self.buffer.deletion(&self.gone);
            self.gone.clear();
        }
    }
}

/// The second a row gets, never before that of an earlier row: recipients ask from the newest second that they have
/// read, and would not be served a row of an earlier one. Callers read the clock before they queue, and clocks are set
/// back.
fn stored_at(index: &mut Index, now: UnixSeconds) -> UnixSeconds {
    let newest = index.newest();
    let follows = newest.saturating_since(now) <= MAX_BACK_SECONDS;
    let stored_at = if follows { now.max(newest) } else { now };
    index.set_newest(stored_at);
    stored_at
}
