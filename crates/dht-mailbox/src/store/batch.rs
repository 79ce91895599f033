//! One group commit while it is being put together.

use dht_core::UnixSeconds;

use super::{
    books::{Books, LogPosition},
    index::{Place, Row, Tables},
    log::{BatchBuffer, Meta, message_length},
    queue::{Command, Reply},
};
use crate::{
    config::StoreConfig,
    error::{Refusal, StoreError},
    metrics::{self, Removal},
    record::{Inserted, NewRecord, Position, Recipient, Retention, RowId},
};

/// Largest header in bytes; a stock one has under 300.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// How far a caller's clock reading may lie behind that of an earlier insertion, in seconds, and still count as
/// the same time: callers read the clock before they queue.
const CLOCK_RACE_SECONDS: u64 = 2;

/// The transaction's tables and books, and the bytes for the log.
pub(super) struct Batch<'b, 't> {
    config: &'b StoreConfig,
    pub(super) tables: &'b mut Tables<'t>,
    pub(super) books: &'b mut Books,
    pub(super) buffer: &'b mut BatchBuffer,
    /// Where the batch will lie.
    position: LogPosition,
    answers: &'b mut Answers,
    /// Rows taken out that the log does not know of yet.
    gone: Vec<RowId>,
}

/// Who gets which answer once the commit is done.
#[derive(Debug, Default)]
pub(super) struct Answers {
    inserts: Vec<(Reply<Inserted>, Result<Inserted, StoreError>)>,
    deletes: Vec<(Reply<u64>, Result<u64, StoreError>)>,
    evicted: u64,
    deleted: u64,
    expired: u64,
}

/// Work that takes more rows out than fit in one commit.
#[derive(Debug)]
pub(super) struct Task {
    what: What,
    removed: u64,
    done: bool,
    reply: Reply<u64>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Expire {
        now: UnixSeconds,
    },
    Delete {
        recipient: Recipient,
        first: Position,
        last: Position,
    },
}

impl<'b, 't> Batch<'b, 't> {
    pub(super) fn new(
        config: &'b StoreConfig,
        tables: &'b mut Tables<'t>,
        books: &'b mut Books,
        buffer: &'b mut BatchBuffer,
        position: LogPosition,
        answers: &'b mut Answers,
    ) -> Self {
        Self {
            config,
            tables,
            books,
            buffer,
            position,
            answers,
            gone: Vec::new(),
        }
    }

    /// Does the requests in order.
    ///
    /// # Errors
    /// When the tables fail; then nothing of the batch may be committed.
    pub(super) fn run(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let mut failure = None;
        for command in commands {
            match (command, &failure) {
                (Command::Insert { reply, .. }, Some(error)) => {
                    self.answers.inserts.push((reply, Err(Clone::clone(error))));
                }
                (Command::Insert { record, now, reply }, None) => {
                    let answer = match self.insert(*record, now) {
                        Ok(answer) => answer.map_err(StoreError::from),
                        Err(error) => Err(failure.insert(error).clone()),
                    };
                    self.answers.inserts.push((reply, answer));
                }
                (Command::Delete { reply, .. }, Some(error)) => {
                    self.answers.deletes.push((reply, Err(Clone::clone(error))));
                }
                (Command::Delete { rows, owner, reply }, None) => {
                    let answer = self
                        .delete(&rows, owner)
                        .map_err(|error| failure.insert(error).clone());
                    self.answers.deletes.push((reply, answer));
                }
                // The writer makes tasks of the others.
                _ => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Does a part of a task: at most `limit` rows.
    pub(super) fn step(&mut self, task: &mut Task, limit: usize) -> Result<(), StoreError> {
        let rows = match task.what {
            What::Expire { now } => self.tables.expired(now, limit)?,
            What::Delete {
                recipient,
                first,
                last,
            } => self.tables.mailbox_rows(recipient, first, last, limit)?,
        };
        task.done = rows.len() < limit;
        let mut removed = 0_u64;
        for id in rows {
            removed = removed.saturating_add(self.take_out(id)?.is_some().into());
        }
        task.removed = task.removed.saturating_add(removed);
        match task.what {
            What::Expire { .. } => {
                self.answers.expired = self.answers.expired.saturating_add(removed)
            }
            What::Delete { .. } => {
                self.answers.deleted = self.answers.deleted.saturating_add(removed)
            }
        }
        Ok(())
    }

    /// Writes a row once more, so that its old segment can go.
    pub(super) fn relocate(
        &mut self,
        id: RowId,
        row: &Row,
        header: &[u8],
        body: &[u8],
    ) -> Result<(), StoreError> {
        let moved = self.write(id, row.meta, header, body);
        self.books.move_row(self.tables, id, row, &moved)
    }

    /// Completes the bytes for the log.
    pub(super) fn finish(mut self) {
        self.log_gone();
    }

    /// `Ok(Err(_))` if the message is not admitted, `Err(_)` if the tables fail.
    fn insert(
        &mut self,
        record: NewRecord,
        now: UnixSeconds,
    ) -> Result<Result<Inserted, Refusal>, StoreError> {
        let limits = &self.config.limits;
        let body_bytes = u64::try_from(record.body.len()).unwrap_or(u64::MAX);
        if body_bytes > limits.max_body_bytes || record.header.len() > MAX_HEADER_BYTES {
            return Ok(Err(Refusal::TooLarge));
        }
        if self.config.lifetimes.honour_expires
            && record.expires.is_some_and(|expires| expires < now)
        {
            return Ok(Err(Refusal::Expired));
        }
        if self.books.known.contains(&record.hash) {
            return Ok(Ok(Inserted::AlreadyExisted));
        }
        let bytes = message_length(record.header.len(), record.body.len());
        let quotas =
            limits.check_quotas(&self.books.usage, record.recipient, record.neighbour, bytes);
        if let Err(refusal) = quotas {
            return Ok(Err(refusal));
        }
        while limits.is_full(&self.books.usage, bytes) {
            if let Err(refusal) = self.make_room(&record, bytes)? {
                return Ok(Err(refusal));
            }
        }
        let stored_at = self.stored_at(now);
        let meta = Meta {
            recipient: record.recipient,
            neighbour: record.neighbour,
            hash: record.hash,
            stored_at,
            keep_until: self.config.lifetimes.keep_until(
                record.retention,
                stored_at,
                record.expires,
            ),
            retention: record.retention,
        };
        let id = RowId(self.books.next_row);
        self.books.next_row = id.0.saturating_add(1);
        let row = self.write(id, meta, &record.header, &record.body);
        self.books.add(self.tables, id, &row)?;
        Ok(Ok(Inserted::Fresh(Position { stored_at, id })))
    }

    /// Takes out the row that gives way to this message.
    fn make_room(
        &mut self,
        record: &NewRecord,
        bytes: u64,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Some(loser) = self.books.usage.eviction_victim(record.recipient, bytes) else {
            return Ok(Err(Refusal::Full));
        };
        let low_rows = self.books.usage.mailbox(loser).low_rows;
        if record.retention == Retention::Low && low_rows == 0 {
            // Mail nobody is named for does not push out mail for somebody.
            return Ok(Err(Refusal::Full));
        }
        let Some(id) = self.tables.first_to_go(loser, low_rows)? else {
            return Ok(Err(Refusal::Full));
        };
        self.take_out(id)?;
        self.answers.evicted = self.answers.evicted.saturating_add(1);
        Ok(Ok(()))
    }

    fn delete(&mut self, rows: &[RowId], owner: Option<Recipient>) -> Result<u64, StoreError> {
        let mut deleted = 0_u64;
        for id in rows {
            if let Some(owner) = owner
                && self
                    .tables
                    .row(*id)?
                    .is_none_or(|row| row.meta.recipient != owner)
            {
                continue;
            }
            deleted = deleted.saturating_add(self.take_out(*id)?.is_some().into());
        }
        self.answers.deleted = self.answers.deleted.saturating_add(deleted);
        Ok(deleted)
    }

    fn take_out(&mut self, id: RowId) -> Result<Option<Row>, StoreError> {
        let row = self.books.remove(self.tables, id)?;
        if row.is_some() {
            self.gone.push(id);
        }
        Ok(row)
    }

    fn write(&mut self, id: RowId, meta: Meta, header: &[u8], body: &[u8]) -> Row {
        // In this order in the log, too: a message may have the hash of one that made room for it.
        self.log_gone();
        let (start, length) = self.buffer.message(id, &meta, header, body);
        let offset = self
            .position
            .offset
            .saturating_add(start.try_into().unwrap_or(u32::MAX));
        let place = Place {
            segment: self.position.segment,
            offset,
            length: length.try_into().unwrap_or(u32::MAX),
        };
        Row { meta, place }
    }

    fn log_gone(&mut self) {
        if !self.gone.is_empty() {
            self.buffer.deletion(&self.gone);
            self.gone.clear();
        }
    }

    /// The second a row gets: rows become visible in the order of their seconds, which paging relies on.
    fn stored_at(&mut self, now: UnixSeconds) -> UnixSeconds {
        let race = self.books.newest.saturating_since(now) <= CLOCK_RACE_SECONDS;
        let stored_at = if race {
            now.max(self.books.newest)
        } else {
            now
        };
        self.books.newest = stored_at;
        stored_at
    }
}

// === impl Answers ===

impl Answers {
    /// Insertions answered.
    pub(super) fn insertions(&self) -> usize {
        self.inserts.len()
    }

    /// Answers for requests that were not even tried.
    pub(super) fn refuse(&mut self, commands: Vec<Command>, error: &StoreError) {
        for command in commands {
            match command {
                Command::Insert { reply, .. } => self.inserts.push((reply, Err(error.clone()))),
                Command::Delete { reply, .. } => self.deletes.push((reply, Err(error.clone()))),
                _ => {}
            }
        }
    }

    /// Adds the answer of a task that is done.
    pub(super) fn finish(&mut self, task: Task) {
        self.deletes.push((task.reply, Ok(task.removed)));
    }

    /// Everybody gets the answer.
    pub(super) fn send(self) {
        for (reason, rows) in [
            (Removal::Evicted, self.evicted),
            (Removal::Delivered, self.deleted),
            (Removal::Expired, self.expired),
        ] {
            if rows > 0 {
                metrics::removed(reason, rows);
            }
        }
        for (reply, answer) in self.inserts {
            metrics::inserted(&answer);
            // Whoever gave up the ticket does not want it.
            let _ = reply.send(answer);
        }
        for (reply, answer) in self.deletes {
            let _ = reply.send(answer);
        }
    }

    /// Nothing was committed: everybody gets the error, except those whose message was not admitted anyway.
    pub(super) fn fail(mut self, error: &StoreError) {
        for (_, answer) in &mut self.inserts {
            if !matches!(answer, Err(StoreError::Refused(_))) {
                *answer = Err(error.clone());
            }
        }
        for (_, answer) in &mut self.deletes {
            *answer = Err(error.clone());
        }
        (self.evicted, self.deleted, self.expired) = (0, 0, 0);
        self.send();
    }
}

// === impl Task ===

impl Task {
    pub(super) const fn expire(now: UnixSeconds, reply: Reply<u64>) -> Self {
        Self {
            what: What::Expire { now },
            removed: 0,
            done: false,
            reply,
        }
    }

    pub(super) const fn delete(
        recipient: Recipient,
        first: Position,
        last: Position,
        reply: Reply<u64>,
    ) -> Self {
        Self {
            what: What::Delete {
                recipient,
                first,
                last,
            },
            removed: 0,
            done: false,
            reply,
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn fail(self, error: &StoreError) {
        let _ = self.reply.send(Err(error.clone()));
    }
}
