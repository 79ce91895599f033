//! How far one consumer has read.

use std::collections::BTreeSet;

use super::row::RowId;

/// The place of one consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumer {
    /// Every row up to this id is acked, or left.
    pub(super) cursor: RowId,
    /// Rows above the cursor that are acked and held.
    pub(super) ahead: BTreeSet<RowId>,
    /// Rows held that are not acked.
    pub(super) pending: u64,
    /// The file says something else.
    pub(super) dirty: bool,
}

impl Consumer {
    pub(super) fn at(cursor: RowId, pending: u64) -> Self {
        Self {
            cursor,
            ahead: BTreeSet::new(),
            pending,
            dirty: true,
        }
    }

    pub(super) fn has_acked(&self, id: RowId) -> bool {
        id <= self.cursor || self.ahead.contains(&id)
    }
}
