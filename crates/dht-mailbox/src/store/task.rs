//! Work that takes more rows out than fit in one commit.

use super::queue::{Reply, Rows};
use crate::{error::StoreError, index::Index, metrics::Removal, record::RowId};

/// A removal of many rows, done in steps between which insertions are committed.
#[derive(Debug)]
pub(super) struct Task {
    rows: Rows,
    pub(super) removed: u64,
    pub(super) done: bool,
    pub(super) reply: Reply<u64>,
}

impl Task {
    pub(super) const fn new(rows: Rows, reply: Reply<u64>) -> Self {
        Self {
            rows,
            removed: 0,
            done: false,
            reply,
        }
    }

    /// The next rows, at most `limit`.
    pub(super) fn next(&self, index: &Index, limit: usize) -> Vec<RowId> {
        match self.rows {
            Rows::Expired(now) => index.expired(now, limit),
            Rows::Range(recipient, first, last) => {
                index.mailbox_rows(recipient, first, last, limit)
            }
        }
    }

    /// Why the rows go.
    pub(super) const fn reason(&self) -> Removal {
        match self.rows {
            Rows::Expired(_) => Removal::Expired,
            Rows::Range(..) => Removal::Delivered,
        }
    }

    pub(super) fn fail(self, error: &StoreError) {
        let _ = self.reply.send(Err(error.clone()));
    }
}
