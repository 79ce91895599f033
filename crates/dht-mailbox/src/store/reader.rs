//! Reading: places from the index, records from the segments. Never waits for a commit.

use std::io;

use bytes::Bytes;

use super::shared::Shared;
use crate::{
    error::StoreError,
    log::{Place, Segment, stored_record},
    query::{Order, Page, Query},
    record::{RowId, StoredRecord},
    stats::Inspection,
};

/// Rows of one mailbox.
pub(super) fn fetch(shared: &Shared, query: &Query) -> Result<Page, StoreError> {
    let mut page = Page::default();
    let (mut first, last) = query.bounds();
    let mut last = Some(last);
    while let (Some(from), Some(to)) = (first, last) {
        let (rows, more) = {
            let index = shared.index.read();
            let rest = Query {
                limit: query.limit.saturating_sub(page.records.len()),
                max_bytes: query.max_bytes.saturating_sub(page.bytes),
                ..*query
            };
            let selection = index.select(&rest, from, to, page.records.is_empty());
            // The files are taken under the lock: a segment is removed only after its rows have left the index.
            let rows = selection
                .rows
                .into_iter()
                .map(|(position, place)| (position, place, shared.segments.get(place.segment)));
            (rows.collect::<Vec<_>>(), selection.more)
        };
        page.more = more;
        let mut damaged = false;
        for (position, place, segment) in &rows {
            match read(segment.as_ref(), position.id, *place)? {
                Some(record) => {
                    page.bytes = page.bytes.saturating_add(place.length as usize);
                    page.records.push(record);
                }
                None => {
                    damaged = true;
                    shared.note_damage(position.id);
                }
            }
        }
        // Damaged rows leave room in the page for the rows behind them.
        let Some((position, _, _)) = rows.last().filter(|_| damaged && more) else {
            break;
        };
        match query.order {
            Order::OldestFirst => first = position.next(),
            Order::NewestFirst => last = position.previous(),
        }
    }
    Ok(page)
}

/// Compares the index with itself, and reads every record.
pub(super) fn verify(shared: &Shared) -> Result<Inspection, StoreError> {
    let check = shared.index.read().check();
    let mut found = Inspection {
        rows: check.visible.len() as u64,
        readable: 0,
        faults: check.faults,
    };
    for (id, place) in check.visible {
        if read(shared.segments.get(place.segment).as_ref(), id, place)?.is_some() {
            found.readable = found.readable.saturating_add(1);
        } else {
            found
                .faults
                .push(format!("row {}: record does not check", id.0));
        }
    }
    Ok(found)
}

/// The record of a row; `None` if it does not check.
pub(super) fn read(
    segment: Option<&Segment>,
    id: RowId,
    place: Place,
) -> Result<Option<StoredRecord>, StoreError> {
    let Some(segment) = segment else {
        return Ok(None);
    };
    let mut bytes = vec![0; place.length as usize];
    match segment.file.read(place.offset.into(), &mut bytes) {
        Ok(()) => {
            let record = stored_record(&Bytes::from(bytes), segment.format);
            Ok(record.filter(|record| record.id == id))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error.into()),
    }
}
