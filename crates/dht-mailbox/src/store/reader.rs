//! Reading: snapshots of the index, and records from the segments. Never waits for the writer.

use bytes::Bytes;
use dht_core::UnixSeconds;
use redb::{ReadTransaction, ReadableTable};

use super::{
    books::rows_in,
    index::{
        EXPIRY, MAILBOX, NEIGHBOURS, Place, RECIPIENTS, ROWS, Row, SEGMENTS, account, mailbox_key,
        position, read_table,
    },
    log::stored_record,
    shared::Shared,
};
use crate::{
    error::StoreError,
    fairness::Account,
    metrics,
    query::{Order, Page, Query},
    record::{Position, Recipient, RowId, StoredRecord},
};

/// How often a row is looked up again that moved while it was read.
const ATTEMPTS: u32 = 3;

/// What is known of a row without reading the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowInfo {
    /// Its place in the mailbox.
    pub position: Position,
    /// The last second in which it is served.
    pub keep_until: UnixSeconds,
    /// Its class.
    pub retention: crate::Retention,
    /// Bytes it takes, as [`crate::Room`] counts them.
    pub bytes: u64,
}

/// What [`crate::Store::verify`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Rows.
    pub rows: u64,
    /// Rows whose bytes are there and check.
    pub readable: u64,
    /// What does not agree, in words; empty if all is well.
    pub faults: Vec<String>,
}

/// Rows of one mailbox.
pub(super) fn fetch(shared: &Shared, query: &Query) -> Result<Page, StoreError> {
    let transaction = shared.read()?;
    let mut page = Page::default();
    let (Some(mailbox), Some(rows)) = (
        read_table(&transaction, MAILBOX)?,
        read_table(&transaction, ROWS)?,
    ) else {
        return Ok(page);
    };
    let (first, last) = query.bounds();
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(page);
    };
    if first > last {
        return Ok(page);
    }
    let (first, last) = (
        mailbox_key(query.recipient, first),
        mailbox_key(query.recipient, last),
    );
    let mut range = mailbox.range::<&[u8; 48]>(&first..=&last)?;
    loop {
        let entry = match query.order {
            Order::OldestFirst => range.next(),
            Order::NewestFirst => range.next_back(),
        };
        let Some(entry) = entry else { return Ok(page) };
        let id = position(entry?.0.value()).id;
        let Some(row) = rows
            .get(id.0)?
            .and_then(|bytes| Row::from_bytes(bytes.value()))
        else {
            continue;
        };
        if row.meta.keep_until < query.now {
            continue;
        }
        if page.records.len() >= query.limit {
            page.more = true;
            return Ok(page);
        }
        let size = usize::try_from(row.place.length).unwrap_or(usize::MAX);
        if page.bytes.saturating_add(size) > query.max_bytes && !page.records.is_empty() {
            page.more = true;
            return Ok(page);
        }
        if let Some(record) = record(shared, id, row.place)? {
            page.bytes = page.bytes.saturating_add(size);
            page.records.push(record);
        }
    }
}

/// What lies in one mailbox, the oldest first.
pub(super) fn list(
    shared: &Shared,
    recipient: Recipient,
    limit: usize,
) -> Result<Vec<RowInfo>, StoreError> {
    let transaction = shared.read()?;
    let (Some(mailbox), Some(rows)) = (
        read_table(&transaction, MAILBOX)?,
        read_table(&transaction, ROWS)?,
    ) else {
        return Ok(Vec::new());
    };
    let (first, last) = (
        mailbox_key(recipient, Position::FIRST),
        mailbox_key(recipient, Position::LAST),
    );
    let mut listed = Vec::new();
    for entry in mailbox.range::<&[u8; 48]>(&first..=&last)?.take(limit) {
        let position = position(entry?.0.value());
        if let Some(row) = rows
            .get(position.id.0)?
            .and_then(|bytes| Row::from_bytes(bytes.value()))
        {
            listed.push(RowInfo {
                position,
                keep_until: row.meta.keep_until,
                retention: row.meta.retention,
                bytes: row.place.length.into(),
            });
        }
    }
    Ok(listed)
}

/// Up to `limit` mailboxes from `after` on, in the order of their keys.
pub(super) fn mailboxes(
    shared: &Shared,
    after: Option<Recipient>,
    limit: usize,
) -> Result<Vec<(Recipient, Account)>, StoreError> {
    let transaction = shared.read()?;
    let Some(table) = read_table(&transaction, RECIPIENTS)? else {
        return Ok(Vec::new());
    };
    let range = match &after {
        Some(after) => table.range::<&[u8; 32]>((
            std::ops::Bound::Excluded(after.as_bytes()),
            std::ops::Bound::Unbounded,
        ))?,
        None => table.range::<&[u8; 32]>(..)?,
    };
    range
        .take(limit)
        .map(|entry| {
            let (key, value) = entry?;
            Ok((Recipient::from_bytes(*key.value()), account(value.value())))
        })
        .collect()
}

/// Compares every table with every other, and reads every record.
pub(super) fn verify(shared: &Shared) -> Result<Inspection, StoreError> {
    let transaction = shared.read()?;
    let mut found = Inspection::default();
    let Some(rows) = read_table(&transaction, ROWS)? else {
        return Ok(found);
    };
    let mailbox = read_table(&transaction, MAILBOX)?;
    let expiry = read_table(&transaction, EXPIRY)?;
    let mut hashes = std::collections::HashSet::new();
    let mut by_recipient = std::collections::BTreeMap::<_, Account>::new();
    let mut by_neighbour = std::collections::BTreeMap::<_, Account>::new();
    let mut by_segment = std::collections::BTreeMap::new();
    for entry in rows.iter()? {
        let (id, bytes) = entry?;
        let id = RowId(id.value());
        found.rows = found.rows.saturating_add(1);
        let Some(row) = Row::from_bytes(bytes.value()) else {
            found.faults.push(format!("row {} does not decode", id.0));
            continue;
        };
        let in_mailbox = match &mailbox {
            Some(table) => table.get(&row.mailbox_key(id))?.is_some(),
            None => false,
        };
        let in_expiry = match &expiry {
            Some(table) => table.get((row.meta.keep_until.0, id.0))?.is_some(),
            None => false,
        };
        if !(in_mailbox && in_expiry && hashes.insert(row.meta.hash)) {
            found.faults.push(format!(
                "row {}: in mailbox {in_mailbox}, in expiry {in_expiry}, or stored twice",
                id.0
            ));
        }
        if record(shared, id, row.place)?.is_some() {
            found.readable = found.readable.saturating_add(1);
        } else {
            found
                .faults
                .push(format!("row {}: record does not check", id.0));
        }
        let used = by_segment
            .entry(row.place.segment)
            .or_insert((0_u64, 0_u64));
        used.0 = used.0.saturating_add(1);
        used.1 = used.1.saturating_add(row.place.length.into());
        let low = u64::from(row.meta.retention == crate::Retention::Low);
        for account in [
            by_recipient
                .entry(*row.meta.recipient.as_bytes())
                .or_default(),
            by_neighbour
                .entry(*row.meta.neighbour.as_bytes())
                .or_default(),
        ] {
            account.rows = account.rows.saturating_add(1);
            account.bytes = account.bytes.saturating_add(row.place.length.into());
            account.low_rows = account.low_rows.saturating_add(low);
        }
    }
    for (name, count) in [
        ("mailbox", rows_in(mailbox.as_ref())?),
        ("expiry", rows_in(expiry.as_ref())?),
    ] {
        if count != found.rows {
            found
                .faults
                .push(format!("{count} entries in {name}, {} rows", found.rows));
        }
    }
    if accounts(&transaction, RECIPIENTS)? != by_recipient {
        found
            .faults
            .push("accounts of recipients do not add up".into());
    }
    if accounts(&transaction, NEIGHBOURS)? != by_neighbour {
        found
            .faults
            .push("accounts of neighbours do not add up".into());
    }
    if segments(&transaction)? != by_segment {
        found
            .faults
            .push("the use of segments does not add up".into());
    }
    Ok(found)
}

/// Rows and bytes of each segment that has any, as the index counts them.
fn segments(
    transaction: &ReadTransaction,
) -> Result<std::collections::BTreeMap<u32, (u64, u64)>, StoreError> {
    let mut used = std::collections::BTreeMap::new();
    if let Some(table) = read_table(transaction, SEGMENTS)? {
        for entry in table.iter()? {
            let (number, value) = entry?;
            if value.value() != (0, 0) {
                used.insert(number.value(), value.value());
            }
        }
    }
    Ok(used)
}

/// Reads a record; `None` if it is gone, or its bytes are.
fn record(shared: &Shared, id: RowId, place: Place) -> Result<Option<StoredRecord>, StoreError> {
    let mut place = place;
    for _ in 0..ATTEMPTS {
        if let Some(record) = read(shared, place)?
            && record.id == id
        {
            return Ok(Some(record));
        }
        // The snapshot may be older than a move; the record then lies where the latest one says.
        let transaction = shared.read()?;
        let Some(rows) = read_table(&transaction, ROWS)? else {
            return Ok(None);
        };
        match rows
            .get(id.0)?
            .and_then(|bytes| Row::from_bytes(bytes.value()))
        {
            None => return Ok(None),
            Some(row) if row.place == place => break,
            Some(row) => place = row.place,
        }
    }
    metrics::lost(1);
    Ok(None)
}

/// Reads what lies at a place; `None` if it is not there or does not check.
pub(super) fn read(shared: &Shared, place: Place) -> Result<Option<StoredRecord>, StoreError> {
    let Some(file) = shared.segment(place.segment) else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(0)];
    match file.read(place.offset.into(), &mut bytes) {
        Ok(()) => Ok(stored_record(&Bytes::from(bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn accounts(
    transaction: &ReadTransaction,
    definition: redb::TableDefinition<'_, &'static [u8; 32], (u64, u64, u64)>,
) -> Result<std::collections::BTreeMap<[u8; 32], Account>, StoreError> {
    let Some(table) = read_table(transaction, definition)? else {
        return Ok(std::collections::BTreeMap::new());
    };
    table
        .iter()?
        .map(|entry| {
            let (key, value) = entry?;
            Ok((*key.value(), account(value.value())))
        })
        .collect()
}
