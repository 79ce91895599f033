//! What the writer keeps in memory beside the tables: accounts, the use of segments, and which of them changed.
//!
//! Everything here can be read from the tables again, which is what happens after a transaction is given up.

use std::collections::{BTreeMap, BTreeSet};

use dht_core::UnixSeconds;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::index::{
    KEY_DURABLE_OFFSET, KEY_DURABLE_SEGMENT, KEY_LOG_OFFSET, KEY_LOG_SEGMENT, KEY_NEXT_ROW, META,
    NEIGHBOURS, RECIPIENTS, Row, SEGMENTS, Tables, account, account_value, read_table,
};
use super::known::Known;
use crate::{
    config::Limits,
    error::StoreError,
    fairness::Usage,
    record::{Neighbour, Recipient, RowId},
};

/// How much of a segment is still needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SegmentUse {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// A place in the log: everything before it is in the tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct LogPosition {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// The writer's books.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) usage: Usage,
    pub(super) known: Known,
    pub(super) segments: BTreeMap<u32, SegmentUse>,
    pub(super) next_row: u64,
    /// The second of the last insertion.
    pub(super) newest: UnixSeconds,
    /// Up to where the tables are complete.
    pub(super) log: LogPosition,
    /// Up to where the log is durable.
    pub(super) durable: LogPosition,
    changed: Changed,
}

#[derive(Debug, Default)]
struct Changed {
    recipients: BTreeSet<Recipient>,
    neighbours: BTreeSet<Neighbour>,
    segments: BTreeSet<u32>,
}

impl Books {
    /// Reads the books from the tables, except the hashes if they are known.
    pub(super) fn load(
        database: &Database,
        limits: &Limits,
        known: Option<Known>,
    ) -> Result<Self, StoreError> {
        let transaction = database.begin_read()?;
        let known = known.map_or_else(|| Known::read(&transaction), Ok)?;
        let mut books = Self {
            usage: Usage::new(limits),
            known,
            segments: BTreeMap::new(),
            next_row: 1,
            newest: UnixSeconds(0),
            log: LogPosition::default(),
            durable: LogPosition::default(),
            changed: Changed::default(),
        };
        if let Some(table) = read_table(&transaction, META)? {
            let number = |key| Ok::<_, StoreError>(table.get(key)?.map(|value| value.value()));
            books.next_row = number(KEY_NEXT_ROW)?.unwrap_or(1);
            let place = |segment, offset| {
                let part = |key| {
                    let number = number(key)?.and_then(|number| number.try_into().ok());
                    Ok::<u32, StoreError>(number.unwrap_or(0))
                };
                Ok::<_, StoreError>(LogPosition {
                    segment: part(segment)?,
                    offset: part(offset)?,
                })
            };
            books.log = place(KEY_LOG_SEGMENT, KEY_LOG_OFFSET)?;
            books.durable = place(KEY_DURABLE_SEGMENT, KEY_DURABLE_OFFSET)?;
        }
        if let Some(table) = read_table(&transaction, RECIPIENTS)? {
            for entry in table.iter()? {
                let (key, value) = entry?;
                books
                    .usage
                    .restore_mailbox(Recipient::from_bytes(*key.value()), account(value.value()));
            }
        }
        if let Some(table) = read_table(&transaction, NEIGHBOURS)? {
            for entry in table.iter()? {
                let (key, value) = entry?;
                books
                    .usage
                    .restore_neighbour(Neighbour::from_bytes(*key.value()), account(value.value()));
            }
        }
        if let Some(table) = read_table(&transaction, SEGMENTS)? {
            for entry in table.iter()? {
                let (key, value) = entry?;
                let (rows, bytes) = value.value();
                books
                    .segments
                    .insert(key.value(), SegmentUse { rows, bytes });
            }
        }
        Ok(books)
    }

    /// Takes over what the tables do not have from books that are given up.
    ///
    /// Numbers of rows above all: one that was given to a message that was refused may still stand in the log, and
    /// must not come to mean another message there.
    pub(super) fn carry_on(&mut self, given_up: &Self) {
        self.newest = given_up.newest;
        self.next_row = self.next_row.max(given_up.next_row);
    }

    /// Enters a row in tables and books.
    pub(super) fn add(
        &mut self,
        tables: &mut Tables<'_>,
        id: RowId,
        row: &Row,
    ) -> Result<(), StoreError> {
        tables.add(id, row)?;
        let meta = &row.meta;
        self.known.add(&meta.hash, id);
        self.usage.add(
            meta.recipient,
            meta.neighbour,
            meta.retention,
            row.place.length.into(),
        );
        self.enter(row);
        self.note(row);
        Ok(())
    }

    /// Takes a row out of tables and books; `None` if it is not there.
    pub(super) fn remove(
        &mut self,
        tables: &mut Tables<'_>,
        id: RowId,
    ) -> Result<Option<Row>, StoreError> {
        let Some(row) = tables.row(id)? else {
            return Ok(None);
        };
        tables.remove(id, &row)?;
        let meta = &row.meta;
        self.known.remove(&meta.hash, id);
        self.usage.remove(
            meta.recipient,
            meta.neighbour,
            meta.retention,
            row.place.length.into(),
        );
        self.leave(&row);
        self.note(&row);
        Ok(Some(row))
    }

    /// Enters that a row lies elsewhere now.
    pub(super) fn move_row(
        &mut self,
        tables: &mut Tables<'_>,
        id: RowId,
        from: &Row,
        to: &Row,
    ) -> Result<(), StoreError> {
        tables.replace(id, to)?;
        self.leave(from);
        self.enter(to);
        self.note(from);
        self.note(to);
        Ok(())
    }

    /// Enters that a segment is gone.
    pub(super) fn forget_segment(&mut self, number: u32) {
        self.segments.remove(&number);
        self.changed.segments.insert(number);
    }

    /// Enters that a segment was begun.
    pub(super) fn begin_segment(&mut self, number: u32) {
        self.segments.entry(number).or_default();
        self.changed.segments.insert(number);
    }

    /// Writes what changed to the tables.
    pub(super) fn flush(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        for recipient in std::mem::take(&mut self.changed.recipients) {
            let account = self.usage.mailbox(recipient);
            if account.rows == 0 {
                tables.recipients.remove(recipient.as_bytes())?;
            } else {
                tables
                    .recipients
                    .insert(recipient.as_bytes(), account_value(&account))?;
            }
        }
        for neighbour in std::mem::take(&mut self.changed.neighbours) {
            let account = self.usage.neighbour(neighbour);
            if account.rows == 0 {
                tables.neighbours.remove(neighbour.as_bytes())?;
            } else {
                tables
                    .neighbours
                    .insert(neighbour.as_bytes(), account_value(&account))?;
            }
        }
        for number in std::mem::take(&mut self.changed.segments) {
            match self.segments.get(&number) {
                Some(used) => tables.segments.insert(number, (used.rows, used.bytes))?,
                None => tables.segments.remove(number)?,
            };
        }
        tables.meta.insert(KEY_NEXT_ROW, self.next_row)?;
        tables
            .meta
            .insert(KEY_LOG_SEGMENT, u64::from(self.log.segment))?;
        tables
            .meta
            .insert(KEY_LOG_OFFSET, u64::from(self.log.offset))?;
        tables
            .meta
            .insert(KEY_DURABLE_SEGMENT, u64::from(self.durable.segment))?;
        tables
            .meta
            .insert(KEY_DURABLE_OFFSET, u64::from(self.durable.offset))?;
        Ok(())
    }

    fn enter(&mut self, row: &Row) {
        let used = self.segments.entry(row.place.segment).or_default();
        used.rows = used.rows.saturating_add(1);
        used.bytes = used.bytes.saturating_add(row.place.length.into());
    }

    fn leave(&mut self, row: &Row) {
        let used = self.segments.entry(row.place.segment).or_default();
        used.rows = used.rows.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(row.place.length.into());
    }

    fn note(&mut self, row: &Row) {
        self.changed.recipients.insert(row.meta.recipient);
        self.changed.neighbours.insert(row.meta.neighbour);
        self.changed.segments.insert(row.place.segment);
    }
}

/// Rows in a table; for tests of consistency.
pub(super) fn rows_in<K: redb::Key + 'static, V: redb::Value + 'static>(
    table: Option<&redb::ReadOnlyTable<K, V>>,
) -> Result<u64, StoreError> {
    Ok(table
        .map(ReadableTableMetadata::len)
        .transpose()?
        .unwrap_or(0))
}
