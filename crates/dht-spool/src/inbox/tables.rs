//! The file of an inbox, format 1.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 1, `format` 1, `next_id` |
//! | `rows` | id | received-at, hash, type, arrival, deliverer, origin, payload length, CRC-32 of the payload |
//! | `deliverers` | id | deliverer in whose share the row is counted |
//! | `payloads` | id | payload |
//! | `remembered` | id of a row that left | hash, last second in which it is remembered |
//! | `consumers` | name | cursor, ids acked out of order |
//!
//! Arrival is 0 for live, 1 for stored, and [`UNPROVEN`] more if the origin was unproven. The first files of this format have
//! no table `deliverers`. Rows and payloads grow at their end only, so that a commit touches few pages; hashes are looked
//! up in memory.

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, PublicKey, UnixSeconds};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::{
    row::{Arrival, NewRow, Row, RowId},
    rows::InboxRows,
    shares::Parties,
    state::{Change, DEFAULT_CONSUMER, InboxState, RowMeta},
};
use crate::{
    disk::{Tables, check},
    error::SpoolError,
    journal::contain,
};

type Head = (
    u64,
    &'static [u8; 32],
    i32,
    u8,
    &'static [u8; NodeId::LENGTH],
    Option<&'static [u8; PublicKey::LENGTH]>,
    u64,
    u32,
);

/// Added to the arrival of a row of an unproven origin. The first files of this format do not know it.
const UNPROVEN: u8 = 2;

const ROWS: TableDefinition<'_, RowId, Head> = TableDefinition::new("rows");
const DELIVERERS: TableDefinition<'_, RowId, &[u8; 32]> = TableDefinition::new("deliverers");
const PAYLOADS: TableDefinition<'_, RowId, &[u8]> = TableDefinition::new("payloads");
const REMEMBERED: TableDefinition<'_, RowId, (&[u8; 32], u64)> = TableDefinition::new("remembered");
const CONSUMERS: TableDefinition<'_, &str, (RowId, Vec<RowId>)> = TableDefinition::new("consumers");

impl Tables for InboxState {
    const KIND: u64 = 1;

    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError> {
        transaction.open_table(ROWS)?;
        transaction.open_table(PAYLOADS)?;
        transaction.open_table(REMEMBERED)?;
        transaction
            .open_table(CONSUMERS)?
            .insert(DEFAULT_CONSUMER, (0, Vec::new()))?;
        Ok(())
    }

    fn load(&mut self, file: &ReadTransaction) -> Result<(), SpoolError> {
        let deliverers = deliverers(file)?;
        for entry in file.open_table(ROWS)?.iter()? {
            let (id, head) = entry?;
            let (received_at, hash, _, arrival, via, origin, bytes, _) = head.value();
            let row = RowMeta {
                received_at: UnixSeconds(received_at),
                bytes,
                hash: DedupHash(*hash),
                parties: Parties {
                    deliverer: deliverer(deliverers.as_ref(), id.value(), via)?,
                    origin: origin.copied(),
                    is_unproven: arrival & UNPROVEN != 0,
                },
            };
            self.add(id.value(), row);
            self.ids.used(id.value());
        }
        let mut remembered = Vec::new();
        for entry in file.open_table(REMEMBERED)?.iter()? {
            let (id, value) = entry?;
            let (hash, until) = value.value();
            let hash = DedupHash(*hash);
            self.known.entry(hash).or_insert_with(|| id.value());
            remembered.push((UnixSeconds(until), id.value(), hash));
            self.ids.used(id.value());
        }
        remembered.sort_unstable_by_key(|(until, id, _)| (*until, *id));
        self.remembered = remembered.into();
        self.consumers.clear();
        for entry in file.open_table(CONSUMERS)?.iter()? {
            let (name, place) = entry?;
            let (cursor, ahead) = place.value();
            self.load_consumer(name.value(), cursor, ahead);
            self.ids.used(cursor);
        }
        Ok(())
    }

    fn write(transaction: &WriteTransaction, changes: Vec<Change>) -> Result<(), SpoolError> {
        let mut rows = transaction.open_table(ROWS)?;
        let mut deliverers = transaction.open_table(DELIVERERS)?;
        let mut payloads = transaction.open_table(PAYLOADS)?;
        let mut remembered = transaction.open_table(REMEMBERED)?;
        let mut consumers = transaction.open_table(CONSUMERS)?;
        for change in changes {
            match change {
                Change::Insert(id, row) => {
                    let arrival = match row.arrival {
                        Arrival::Live => 0,
                        Arrival::Stored => 1,
                    };
                    let origin_flag = match row.origin_is_proven {
                        true => 0,
                        false => UNPROVEN,
                    };
                    let head = (
                        row.received_at.0,
                        &row.hash.0,
                        row.message_type,
                        arrival | origin_flag,
                        row.via.as_bytes(),
                        row.origin.as_ref().map(PublicKey::as_bytes),
                        row.payload.len() as u64,
                        crc32fast::hash(&row.payload),
                    );
                    rows.insert(id, head)?;
                    deliverers.insert(id, row.deliverer.as_bytes())?;
                    payloads.insert(id, row.payload.as_ref())?;
                }
                Change::Remove(id) => {
                    rows.remove(id)?;
                    deliverers.remove(id)?;
                    payloads.remove(id)?;
                }
                Change::Remember(id, hash, until) => {
                    remembered.insert(id, (&hash.0, until.0))?;
                }
                Change::Forget(id) => {
                    remembered.remove(id)?;
                }
                Change::Consumer(name, cursor, ahead) => {
                    consumers.insert(name.as_str(), (cursor, ahead))?;
                }
                Change::RemoveConsumer(name) => {
                    consumers.remove(name.as_str())?;
                }
            }
        }
        Ok(())
    }

    fn read(file: &ReadTransaction) -> &Self::Rows {
        file
    }

    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError> {
        // Each table is read by itself and up to the first page that cannot be read.
        let _ = contain(|| {
            let mut remembered = into.open_table(REMEMBERED)?;
            for entry in damaged.open_table(REMEMBERED)?.iter()? {
                let (id, value) = entry?;
                remembered.insert(id.value(), value.value())?;
            }
            Ok(())
        });
        let _ = contain(|| {
            let mut consumers = into.open_table(CONSUMERS)?;
            for entry in damaged.open_table(CONSUMERS)?.iter()? {
                let (name, place) = entry?;
                consumers.insert(name.value(), place.value())?;
            }
            Ok(())
        });
        let _ = contain(|| {
            let Some(from) = deliverers(damaged)? else {
                return Ok(());
            };
            let mut deliverers = into.open_table(DELIVERERS)?;
            for entry in from.iter()? {
                let (id, deliverer) = entry?;
                deliverers.insert(id.value(), deliverer.value())?;
            }
            Ok(())
        });
        let mut rows = into.open_table(ROWS)?;
        let mut payloads = into.open_table(PAYLOADS)?;
        let mut count = 0;
        let _ = contain(|| {
            let from = damaged.open_table(PAYLOADS)?;
            for entry in damaged.open_table(ROWS)?.iter()? {
                let (id, head) = entry?;
                let id = id.value();
                let payload = contain(|| {
                    let payload = from.get(id)?.ok_or(SpoolError::UnknownId)?;
                    content(&head.value(), payload.value())
                });
                if let Ok(payload) = payload {
                    rows.insert(id, head.value())?;
                    payloads.insert(id, payload.as_ref())?;
                    count += 1;
                }
            }
            Ok(())
        });
        Ok(count)
    }
}

impl InboxRows for ReadTransaction {
    fn read(&self, ids: &[RowId]) -> Result<Vec<Result<Row, RowId>>, SpoolError> {
        let rows = self.open_table(ROWS)?;
        let deliverers = deliverers(self)?;
        let payloads = self.open_table(PAYLOADS)?;
        let mut read = Vec::with_capacity(ids.len());
        for &id in ids {
            let (Some(head), Some(payload)) = (rows.get(id)?, payloads.get(id)?) else {
                continue;
            };
            let head = head.value();
            read.push(match content(&head, payload.value()) {
                Ok(payload) => decode(
                    id,
                    head,
                    deliverer(deliverers.as_ref(), id, head.4)?,
                    payload,
                ),
                Err(_) => Err(id),
            });
        }
        Ok(read)
    }
}

type Deliverers = ReadOnlyTable<RowId, &'static [u8; 32]>;

/// The table of deliverers; `None` if the file has none.
fn deliverers(file: &ReadTransaction) -> Result<Option<Deliverers>, SpoolError> {
    match file.open_table(DELIVERERS) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The deliverer of a row; one that stands for the peer where the file names none.
fn deliverer(
    deliverers: Option<&Deliverers>,
    id: RowId,
    via: &[u8; NodeId::LENGTH],
) -> Result<Deliverer, SpoolError> {
    let found = match deliverers {
        Some(deliverers) => deliverers.get(id)?,
        None => None,
    };
    Ok(Deliverer::from_bytes(match found {
        Some(bytes) => *bytes.value(),
        None => std::array::from_fn(|at| via.get(at).copied().unwrap_or(0)),
    }))
}

/// Copies the payload if it is what was inserted.
fn content(
    head: &<Head as redb::Value>::SelfType<'_>,
    payload: &[u8],
) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc) = head;
    check(payload, *bytes, *crc)
}

fn decode(
    id: RowId,
    head: <Head as redb::Value>::SelfType<'_>,
    deliverer: Deliverer,
    payload: Bytes,
) -> Result<Row, RowId> {
    let (received_at, hash, message_type, arrival, via, origin, ..) = head;
    let origin = match origin.map(|key| PublicKey::from_bytes(key)) {
        None => None,
        Some(key) => Some(key.map_err(|_| id)?),
    };
    let message = NewRow {
        received_at: UnixSeconds(received_at),
        origin,
        origin_is_proven: arrival & UNPROVEN == 0,
        message_type,
        payload,
        via: NodeId::from_bytes(via).map_err(|_| id)?,
        deliverer,
        arrival: if arrival & !UNPROVEN == 0 {
            Arrival::Live
        } else {
            Arrival::Stored
        },
        hash: DedupHash(*hash),
    };
    Ok(Row { id, message })
}
