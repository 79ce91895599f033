//! Answers to the callers of a batch, given once it is committed.

use super::{
    queue::{Command, Reply},
    task::Task,
};
use crate::{
    error::StoreError,
    metrics::{self, Removal},
    record::Inserted,
};

/// The answers of a batch, and what it removes.
#[derive(Debug, Default)]
pub(super) struct Answers {
    inserts: Vec<(Reply<Inserted>, Result<Inserted, StoreError>)>,
    deletes: Vec<(Reply<u64>, Result<u64, StoreError>)>,
    removed: Vec<(Removal, u64)>,
}

impl Answers {
    /// Insertions answered.
    pub(super) fn insertions(&self) -> usize {
        self.inserts.len()
    }

    pub(super) fn inserted(
        &mut self,
        reply: Reply<Inserted>,
        answer: Result<Inserted, StoreError>,
    ) {
        self.inserts.push((reply, answer));
    }

    pub(super) fn deleted(&mut self, reply: Reply<u64>, rows: u64) {
        self.deletes.push((reply, Ok(rows)));
    }

    /// Counts rows that are taken out.
    pub(super) fn removed(&mut self, reason: Removal, rows: u64) {
        if rows > 0 {
            self.removed.push((reason, rows));
        }
    }

    /// Adds the answer of a task that is done.
    pub(super) fn finish(&mut self, task: Task) {
        self.deleted(task.reply, task.removed);
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

    /// Sends each caller its answer.
    pub(super) fn send(self) {
        for (reason, rows) in self.removed {
            metrics::removed(reason, rows);
        }
        for (reply, answer) in self.inserts {
            metrics::inserted(&answer);
            // A caller that dropped the ticket does not want it.
            let _ = reply.send(answer);
        }
        for (reply, answer) in self.deletes {
            let _ = reply.send(answer);
        }
    }

    /// Nothing was committed: every caller gets the error, except those whose message was not admitted anyway.
    pub(super) fn fail(mut self, error: &StoreError) {
        for (_, answer) in &mut self.inserts {
            if !matches!(answer, Err(StoreError::Refused(_))) {
                *answer = Err(error.clone());
            }
        }
        for (_, answer) in &mut self.deletes {
            *answer = Err(error.clone());
        }
        self.removed.clear();
        self.send();
    }
}
