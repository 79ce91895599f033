//! The rows of an inbox: how they are read, and how they are held in memory.

use std::collections::BTreeMap;

use super::{
    row::{NewRow, Row, RowId},
    state::{Change, InboxState},
};
use crate::{
    config::{InboxConfig, WriterConfig},
    error::SpoolError,
    journal::{Ids, State},
    metrics,
};

/// Rows that can be read.
pub(crate) trait InboxRows {
    /// Reads rows without those that left meanwhile; `Err` is the id of a row that is damaged.
    fn read(&self, ids: &[RowId]) -> Result<Vec<Result<Row, RowId>>, SpoolError>;
}

impl InboxRows for BTreeMap<RowId, NewRow> {
    fn read(&self, ids: &[RowId]) -> Result<Vec<Result<Row, RowId>>, SpoolError> {
        let rows = ids.iter().filter_map(|id| {
            let message = self.get(id)?.clone();
            Some(Ok(Row { id: *id, message }))
        });
        Ok(rows.collect())
    }
}

impl State for InboxState {
    type Change = Change;
    type Config = InboxConfig;
    type Rows = dyn InboxRows;
    type Memory = BTreeMap<RowId, NewRow>;
    const NAME: &'static str = "inbox";

    fn new(config: &InboxConfig) -> Self {
        Self::empty(config)
    }

    fn writer(config: &InboxConfig) -> &WriterConfig {
        &config.writer
    }

    fn rows(memory: &Self::Memory) -> &Self::Rows {
        memory
    }

    fn apply(memory: &mut Self::Memory, change: Change) {
        match change {
            Change::Insert(id, row) => {
                memory.insert(id, *row);
            }
            Change::Remove(id) => {
                memory.remove(&id);
            }
            // The state knows them.
            Change::Remember(..)
            | Change::Forget(_)
            | Change::Consumer(..)
            | Change::RemoveConsumer(_)
            | Change::Lost(_)
            | Change::LostOthers
            | Change::ForgetLost(_) => {}
        }
    }

    fn ids(&mut self) -> &mut Ids {
        &mut self.ids
    }

    fn finish(&mut self, changes: &mut Vec<Change>) {
        self.note_places(changes);
    }

    fn carry(&mut self, before: &Self) {
        self.tally = before.tally;
        self.reported = before.reported;
    }

    fn committed(&mut self) -> u64 {
        self.ids.committed();
        let (now, before) = (self.tally, self.reported);
        metrics::removed(Self::NAME, "acked", now.acked - before.acked);
        metrics::removed(Self::NAME, "expired", now.expired - before.expired);
        metrics::removed(Self::NAME, "damaged", now.damaged - before.damaged);
        let held = self.shares.total();
        metrics::held(Self::NAME, held.rows, held.bytes);
        self.reported = now;
        self.ids.next() - 1
    }
}
