//! The entries of an outbox: how they are read, and how they are held in memory.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    entry::{Entry, EntryContent, EntryId},
    state::{Change, OutboxState},
};
use crate::{
    config::{OutboxConfig, WriterConfig},
    error::SpoolError,
    journal::{Ids, State},
    metrics,
};

/// Entries that can be read.
pub(crate) trait OutboxRows {
    /// An entry without its content; `None` if there is none.
    fn entry(&self, id: EntryId) -> Result<Option<Entry>, SpoolError>;
    /// The content of an entry; `None` if it has ended or there is none. The inner error is of the content alone.
    fn content(&self, id: EntryId) -> Result<Option<Result<EntryContent, SpoolError>>, SpoolError>;
    /// The payload of an entry, as its content.
    fn payload(&self, id: EntryId) -> Result<Option<Result<Bytes, SpoolError>>, SpoolError>;
}

/// Entries in memory; those that have ended have no content.
pub(crate) type Memory = BTreeMap<EntryId, (Entry, Option<EntryContent>)>;

impl OutboxRows for Memory {
    fn entry(&self, id: EntryId) -> Result<Option<Entry>, SpoolError> {
        Ok(self.get(&id).map(|(entry, _)| entry.clone()))
    }

    fn content(&self, id: EntryId) -> Result<Option<Result<EntryContent, SpoolError>>, SpoolError> {
        let content = self.get(&id).and_then(|(_, content)| content.clone());
        Ok(content.map(Ok))
    }

    fn payload(&self, id: EntryId) -> Result<Option<Result<Bytes, SpoolError>>, SpoolError> {
        Ok(match self.content(id)? {
            Some(Ok(EntryContent::Payload(payload))) => Some(Ok(payload)),
            _ => None,
        })
    }
}

impl State for OutboxState {
    type Change = Change;
    type Config = OutboxConfig;
    type Rows = dyn OutboxRows;
    type Memory = Memory;
    const NAME: &'static str = "outbox";

    fn new(config: &OutboxConfig) -> Self {
        Self {
            config: config.clone(),
            ..Self::default()
        }
    }

    fn writer(config: &OutboxConfig) -> &WriterConfig {
        &config.writer
    }

    fn rows(memory: &Self::Memory) -> &Self::Rows {
        memory
    }

    fn apply(memory: &mut Self::Memory, change: Change) {
        match change {
            Change::Insert(id, new, _) => {
                let entry = Entry::new(id, &new);
                memory.insert(id, (entry, Some(EntryContent::of(&new))));
            }
            Change::Progress(id, progress, _) => {
                if let Some((entry, _)) = memory.get_mut(&id) {
                    entry.state = progress.state(entry.last_error.as_deref());
                    entry.attempts = progress.attempts;
                    entry.next_attempt = progress.next_attempt;
                    entry.ended_at = progress.ended_at;
                }
            }
            Change::Text(id, text) => {
                if let Some((entry, _)) = memory.get_mut(&id) {
                    entry.last_error = Some(text);
                }
            }
            Change::Frame(id, frame) => {
                if let Some((_, Some(content))) = memory.get_mut(&id) {
                    *content = EntryContent::Frame(frame);
                }
            }
            Change::RemoveContent(id) => {
                if let Some((_, content)) = memory.get_mut(&id) {
                    *content = None;
                }
            }
            Change::Remove(id) => {
                memory.remove(&id);
            }
        }
    }

    fn ids(&mut self) -> &mut Ids {
        &mut self.ids
    }

    fn carry(&mut self, before: &Self) {
        self.tally = before.tally;
        self.reported = before.reported;
        self.commits = before.commits;
        self.ids.carry(&before.ids);
    }

    fn committed(&mut self) -> u64 {
        self.ids.committed();
        let (now, before) = (self.tally, self.reported);
        metrics::removed(Self::NAME, "ended", now.removed - before.removed);
        metrics::removed(Self::NAME, "expired", now.expired - before.expired);
        metrics::held(Self::NAME, self.active(), self.bytes);
        self.reported = now;
        self.commits += 1;
        self.commits
    }
}
