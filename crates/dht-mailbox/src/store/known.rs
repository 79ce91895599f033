//! Which messages are stored: by content hash, in memory.
//!
//! Hashes are spread evenly, so a table of them would touch a page of its own for each insertion, and it can be read
//! from the rows in a few milliseconds. Only the writer asks. 40 bytes a row, bounded by the capacity.

use std::collections::HashMap;

use dht_core::DedupHash;
use redb::{ReadTransaction, ReadableTable};

use super::index::{ROWS, Row, read_table};
use crate::{error::StoreError, record::RowId};

/// Content hashes of the rows, with a way back to the last commit.
#[derive(Debug, Default)]
pub(super) struct Known {
    rows: HashMap<[u8; 32], RowId>,
    /// What stood there before, for each change since the last commit.
    undo: Vec<([u8; 32], Option<RowId>)>,
}

impl Known {
    /// Reads the hashes from the rows.
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let mut known = Self::default();
        if let Some(table) = read_table(transaction, ROWS)? {
            for entry in table.iter()? {
                let (id, bytes) = entry?;
                if let Some(row) = Row::from_bytes(bytes.value()) {
                    known.rows.insert(row.meta.hash.0, RowId(id.value()));
                }
            }
        }
        Ok(known)
    }

    pub(super) fn contains(&self, hash: &DedupHash) -> bool {
        self.rows.contains_key(&hash.0)
    }

    pub(super) fn add(&mut self, hash: &DedupHash, id: RowId) {
        let before = self.rows.insert(hash.0, id);
        self.undo.push((hash.0, before));
    }

    /// Forgets a hash, if it stands for this row.
    pub(super) fn remove(&mut self, hash: &DedupHash, id: RowId) {
        if self.rows.get(&hash.0) == Some(&id) {
            self.rows.remove(&hash.0);
            self.undo.push((hash.0, Some(id)));
        }
    }

    /// The changes are committed.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }

    /// The changes are given up.
    pub(super) fn roll_back(&mut self) {
        for (hash, before) in self.undo.drain(..).rev() {
            match before {
                Some(id) => self.rows.insert(hash, id),
                None => self.rows.remove(&hash),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_leaves_no_trace() {
        let (a, b) = (DedupHash([1; 32]), DedupHash([2; 32]));
        let mut known = Known::default();
        known.add(&a, RowId(1));
        known.keep();
        known.remove(&a, RowId(1));
        known.add(&a, RowId(2));
        known.add(&b, RowId(3));
        known.remove(&b, RowId(3));
        known.roll_back();
        assert_eq!(known.rows, HashMap::from([(a.0, RowId(1))]));
        known.remove(&a, RowId(9));
        assert!(known.contains(&a), "it stands for another row");
    }
}
