//! Building an index from a copy: rows in the order of their numbers, each order built at once.

use std::collections::BTreeMap;

use dht_core::UnixSeconds;

use super::{Change, Index, Row, prefix};
use crate::{
    config::StoreConfig,
    log::{Meta, Place},
    record::{Retention, RowId},
};

/// The rows of a copy.
#[derive(Debug)]
pub(crate) struct Loader {
    index: Index,
    rows: Vec<(RowId, Row)>,
}

impl Loader {
    pub(crate) fn new(config: &StoreConfig) -> Self {
        Self {
            index: Index::new(config),
            rows: Vec::new(),
        }
    }

    /// Enters a row; false if its number is not above that of the row before.
    pub(crate) fn add(&mut self, id: RowId, meta: &Meta, place: Place) -> bool {
        if self.rows.last().is_some_and(|(last, _)| *last >= id) {
            return false;
        }
        let change = Change::new(meta.retention, place.length);
        self.index.enter(place);
        let owners = self
            .index
            .usage
            .load(meta.recipient, meta.deliverer, change);
        self.rows.push((id, Row::new(meta, owners, place)));
        true
    }

    /// The segments in which rows lie, and how far these reach.
    pub(crate) fn ends(&self) -> BTreeMap<u32, u64> {
        let mut ends = BTreeMap::new();
        for (_, row) in &self.rows {
            let end = u64::from(row.place.offset).saturating_add(row.place.length.into());
            let known = ends.entry(row.place.segment).or_insert(end);
            *known = end.max(*known);
        }
        ends
    }

    /// The index, complete up to where the copy was.
    pub(crate) fn finish(self, next_row: u64, newest: UnixSeconds) -> Index {
        let Self { mut index, rows } = self;
        index.usage.rank(
            rows.iter()
                .map(|(_, row)| (row.owners, Change::new(row.retention, row.place.length))),
        );
        let order = rows.iter().map(|(id, row)| (row.key(*id), false));
        index.order = order.collect();
        index.parts = Retention::ALL.map(|retention| {
            let of_class = rows.iter().filter(|(_, row)| row.retention == retention);
            of_class.map(|(id, row)| row.in_part(*id)).collect()
        });
        index.expiry = rows.iter().map(|(id, row)| (row.keep_until, *id)).collect();
        index.hashes = rows
            .iter()
            .map(|(id, row)| (prefix(&row.hash), *id))
            .collect();
        let after = rows.last().map_or(1, |(id, _)| id.0.saturating_add(1));
        index.next_row = next_row.max(after);
        index.visible = index.next_row;
        index.newest = newest;
        index.rows = rows.into_iter().collect();
        index
    }
}
