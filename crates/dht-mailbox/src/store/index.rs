//! The tables of the index, and the pure bytes of their keys and values.

use dht_core::{DedupHash, UnixSeconds};
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::log::{Meta, take, write_fields};
use crate::{
    error::StoreError,
    fairness::Account,
    record::{Neighbour, Position, Recipient, Retention, RowId},
};

/// The version of the tables and the log together.
pub(super) const FORMAT: u64 = 1;

/// Format, next row, the place in the log up to which the tables are complete, and the one up to which the log
/// was durable then.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Row to [`Row`].
pub(super) const ROWS: TableDefinition<'_, u64, &[u8; ROW_BYTES]> = TableDefinition::new("rows");
/// Recipient, second, row.
pub(super) const MAILBOX: TableDefinition<'_, &[u8; 48], ()> = TableDefinition::new("mailbox");
/// Last second, row.
pub(super) const EXPIRY: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("expiry");
/// Recipient to rows, bytes, low rows.
pub(super) const RECIPIENTS: TableDefinition<'_, &[u8; 32], (u64, u64, u64)> =
    TableDefinition::new("recipients");
/// Neighbour to rows, bytes, low rows.
pub(super) const NEIGHBOURS: TableDefinition<'_, &[u8; 32], (u64, u64, u64)> =
    TableDefinition::new("neighbours");
/// Segment to rows that still lie in it and their bytes.
pub(super) const SEGMENTS: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("segments");

pub(super) const KEY_FORMAT: &str = "format";
pub(super) const KEY_NEXT_ROW: &str = "next_row";
pub(super) const KEY_LOG_SEGMENT: &str = "log_segment";
pub(super) const KEY_LOG_OFFSET: &str = "log_offset";
pub(super) const KEY_DURABLE_SEGMENT: &str = "durable_segment";
pub(super) const KEY_DURABLE_OFFSET: &str = "durable_offset";

/// Bytes of a [`Row`].
const ROW_BYTES: usize = 125;

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// All that the index knows about a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) meta: Meta,
    pub(super) place: Place,
}

/// The tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) rows: Table<'t, u64, &'static [u8; ROW_BYTES]>,
    pub(super) mailbox: Table<'t, &'static [u8; 48], ()>,
    pub(super) expiry: Table<'t, (u64, u64), ()>,
    pub(super) recipients: Table<'t, &'static [u8; 32], (u64, u64, u64)>,
    pub(super) neighbours: Table<'t, &'static [u8; 32], (u64, u64, u64)>,
    pub(super) segments: Table<'t, u32, (u64, u64)>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            rows: transaction.open_table(ROWS)?,
            mailbox: transaction.open_table(MAILBOX)?,
            expiry: transaction.open_table(EXPIRY)?,
            recipients: transaction.open_table(RECIPIENTS)?,
            neighbours: transaction.open_table(NEIGHBOURS)?,
            segments: transaction.open_table(SEGMENTS)?,
        })
    }

    pub(super) fn row(&self, id: RowId) -> Result<Option<Row>, StoreError> {
        Ok(self
            .rows
            .get(id.0)?
            .and_then(|bytes| Row::from_bytes(bytes.value())))
    }

    /// Enters a row in every table.
    pub(super) fn add(&mut self, id: RowId, row: &Row) -> Result<(), StoreError> {
        self.rows.insert(id.0, &row.to_bytes())?;
        self.mailbox.insert(&row.mailbox_key(id), ())?;
        self.expiry.insert((row.meta.keep_until.0, id.0), ())?;
        Ok(())
    }

    /// Enters that a row lies elsewhere.
    pub(super) fn replace(&mut self, id: RowId, row: &Row) -> Result<(), StoreError> {
        self.rows.insert(id.0, &row.to_bytes())?;
        Ok(())
    }

    /// Takes a row out of every table.
    pub(super) fn remove(&mut self, id: RowId, row: &Row) -> Result<(), StoreError> {
        self.rows.remove(id.0)?;
        self.mailbox.remove(&row.mailbox_key(id))?;
        self.expiry.remove((row.meta.keep_until.0, id.0))?;
        Ok(())
    }

    /// Up to `limit` rows whose last second is before `now`, the oldest first.
    pub(super) fn expired(&self, now: UnixSeconds, limit: usize) -> Result<Vec<RowId>, StoreError> {
        let range = self.expiry.range((0, 0)..(now.0, 0))?;
        range
            .take(limit)
            .map(|entry| Ok(RowId(entry?.0.value().1)))
            .collect()
    }

    /// Up to `limit` rows of one mailbox between two places, the oldest first.
    pub(super) fn mailbox_rows(
        &self,
        recipient: Recipient,
        first: Position,
        last: Position,
        limit: usize,
    ) -> Result<Vec<RowId>, StoreError> {
        let (first, last) = (mailbox_key(recipient, first), mailbox_key(recipient, last));
        let range = self.mailbox.range::<&[u8; 48]>(&first..=&last)?;
        range
            .take(limit)
            .map(|entry| Ok(position(entry?.0.value()).id))
            .collect()
    }

    /// The row of this mailbox that goes first: low before high, then the oldest.
    pub(super) fn first_to_go(
        &self,
        recipient: Recipient,
        low_rows: u64,
    ) -> Result<Option<RowId>, StoreError> {
        let (first, last) = (
            mailbox_key(recipient, Position::FIRST),
            mailbox_key(recipient, Position::LAST),
        );
        let mut oldest = None;
        for entry in self.mailbox.range::<&[u8; 48]>(&first..=&last)? {
            let id = position(entry?.0.value()).id;
            oldest = oldest.or(Some(id));
            if low_rows == 0
                || self
                    .row(id)?
                    .is_some_and(|row| row.meta.retention == Retention::Low)
            {
                return Ok(Some(id));
            }
        }
        Ok(oldest)
    }
}

impl Row {
    fn to_bytes(self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        write_fields(
            &mut bytes,
            &[
                self.meta.recipient.as_bytes(),
                self.meta.neighbour.as_bytes(),
                &self.meta.hash.0,
                &self.meta.stored_at.0.to_le_bytes(),
                &self.meta.keep_until.0.to_le_bytes(),
                &[self.meta.retention.number()],
                &self.place.segment.to_le_bytes(),
                &self.place.offset.to_le_bytes(),
                &self.place.length.to_le_bytes(),
            ],
        );
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; ROW_BYTES]) -> Option<Self> {
        let mut bytes = bytes.as_slice();
        let meta = Meta {
            recipient: Recipient::from_bytes(take(&mut bytes)?),
            neighbour: Neighbour::from_bytes(take(&mut bytes)?),
            hash: DedupHash(take(&mut bytes)?),
            stored_at: UnixSeconds(u64::from_le_bytes(take(&mut bytes)?)),
            keep_until: UnixSeconds(u64::from_le_bytes(take(&mut bytes)?)),
            retention: Retention::from_number(u8::from_le_bytes(take(&mut bytes)?))?,
        };
        let place = Place {
            segment: u32::from_le_bytes(take(&mut bytes)?),
            offset: u32::from_le_bytes(take(&mut bytes)?),
            length: u32::from_le_bytes(take(&mut bytes)?),
        };
        Some(Self { meta, place })
    }

    pub(super) fn mailbox_key(&self, id: RowId) -> [u8; 48] {
        mailbox_key(
            self.meta.recipient,
            Position {
                stored_at: self.meta.stored_at,
                id,
            },
        )
    }
}

impl Position {
    pub(super) const FIRST: Self = Self {
        stored_at: UnixSeconds(0),
        id: RowId(0),
    };
    pub(super) const LAST: Self = Self {
        stored_at: UnixSeconds(u64::MAX),
        id: RowId(u64::MAX),
    };
}

/// The key of a row in the mailbox table; big-endian, so that byte order is time order.
pub(super) fn mailbox_key(recipient: Recipient, position: Position) -> [u8; 48] {
    let mut key = [0; 48];
    write_fields(
        &mut key,
        &[
            recipient.as_bytes(),
            &position.stored_at.0.to_be_bytes(),
            &position.id.0.to_be_bytes(),
        ],
    );
    key
}

/// The place in the mailbox that a key names.
pub(super) fn position(key: &[u8; 48]) -> Position {
    let (_, mut rest) = key.split_at(32);
    let mut number = || take(&mut rest).map_or(0, u64::from_be_bytes);
    Position {
        stored_at: UnixSeconds(number()),
        id: RowId(number()),
    }
}

pub(super) const fn account_value(account: &Account) -> (u64, u64, u64) {
    (account.rows, account.bytes, account.low_rows)
}

pub(super) const fn account((rows, bytes, low_rows): (u64, u64, u64)) -> Account {
    Account {
        rows,
        bytes,
        low_rows,
    }
}

/// Opens a table for reading; `None` in a store that has never been written.
pub(super) fn read_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>, StoreError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
