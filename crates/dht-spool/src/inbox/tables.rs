//! The file of an inbox, format 1.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 1, `format` 1, `next_id` |
//! | `rows` | id | received-at, hash, type, arrival (0 live, 1 stored), deliverer, origin, payload length, CRC-32 of the payload |
//! | `payloads` | id | payload |
//! | `remembered` | id of a row that left | hash, last second in which it is remembered |
//! | `consumers` | name | cursor, ids acked out of order |
//!
//! Rows and payloads grow at their end only, so that a commit touches few pages; hashes are looked up in memory.

use bytes::Bytes;
use dht_core::{DedupHash, NodeId, PublicKey, UnixSeconds};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    row::{Arrival, NewRow, Row, RowId},
    state::{Change, DEFAULT_CONSUMER, InboxState, RowMeta},
};
use crate::{
    config::{InboxConfig, WriterConfig},
    error::SpoolError,
    file::contain,
    journal::{INFO, State},
    metrics,
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

const ROWS: TableDefinition<'_, RowId, Head> = TableDefinition::new("rows");
const PAYLOADS: TableDefinition<'_, RowId, &[u8]> = TableDefinition::new("payloads");
const REMEMBERED: TableDefinition<'_, RowId, (&[u8; 32], u64)> = TableDefinition::new("remembered");
const CONSUMERS: TableDefinition<'_, &str, (RowId, Vec<RowId>)> = TableDefinition::new("consumers");
const NEXT_ID: &str = "next_id";

impl State for InboxState {
    type Change = Change;
    type Config = InboxConfig;
    const NAME: &'static str = "inbox";
    const KIND: u64 = 1;

    fn writer(config: &InboxConfig) -> &WriterConfig {
        &config.writer
    }

    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError> {
        transaction.open_table(ROWS)?;
        transaction.open_table(PAYLOADS)?;
        transaction.open_table(REMEMBERED)?;
        transaction
            .open_table(CONSUMERS)?
            .insert(DEFAULT_CONSUMER, (0, Vec::new()))?;
        Ok(())
    }

    fn load(config: &InboxConfig, file: &ReadTransaction) -> Result<Self, SpoolError> {
        let mut state = Self::new(config);
        for entry in file.open_table(ROWS)?.iter()? {
            let (id, head) = entry?;
            let (received_at, hash, .., bytes, _) = head.value();
            let row = RowMeta {
                received_at: UnixSeconds(received_at),
                bytes,
                hash: DedupHash(*hash),
            };
            state.add(id.value(), row);
            state.next = state.next.max(id.value() + 1);
        }
        let mut remembered = Vec::new();
        for entry in file.open_table(REMEMBERED)?.iter()? {
            let (id, value) = entry?;
            let (hash, until) = value.value();
            let hash = DedupHash(*hash);
            state.known.entry(hash).or_insert_with(|| id.value());
            remembered.push((UnixSeconds(until), id.value(), hash));
            state.next = state.next.max(id.value() + 1);
        }
        remembered.sort_unstable_by_key(|(until, id, _)| (*until, *id));
        state.remembered = remembered.into();
        for entry in file.open_table(CONSUMERS)?.iter()? {
            let (name, place) = entry?;
            let (cursor, ahead) = place.value();
            state.load_consumer(name.value(), cursor, ahead);
            state.next = state.next.max(cursor.saturating_add(1));
        }
        if let Some(next) = file.open_table(INFO)?.get(NEXT_ID)? {
            state.next = state.next.max(next.value());
        }
        state.durable_next = state.next;
        Ok(state)
    }

    fn finish(&mut self, changes: &mut Vec<Change>) {
        self.note_places(changes);
    }

    fn write(transaction: &WriteTransaction, changes: Vec<Change>) -> Result<(), SpoolError> {
        let mut rows = transaction.open_table(ROWS)?;
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
                    let head = (
                        row.received_at.0,
                        &row.hash.0,
                        row.message_type,
                        arrival,
                        row.via.as_bytes(),
                        row.origin.as_ref().map(PublicKey::as_bytes),
                        row.payload.len() as u64,
                        crc32fast::hash(&row.payload),
                    );
                    rows.insert(id, head)?;
                    payloads.insert(id, row.payload.as_ref())?;
                }
                Change::Remove(id) => {
                    rows.remove(id)?;
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
                Change::NextId(next) => {
                    transaction.open_table(INFO)?.insert(NEXT_ID, next)?;
                }
            }
        }
        Ok(())
    }

    fn carry(&mut self, before: &Self) {
        self.tally = before.tally;
        self.reported = before.reported;
    }

    fn committed(&mut self) -> u64 {
        self.durable_next = self.next;
        let (now, before) = (self.tally, self.reported);
        metrics::removed(Self::NAME, "acked", now.acked - before.acked);
        metrics::removed(Self::NAME, "expired", now.expired - before.expired);
        metrics::removed(Self::NAME, "damaged", now.damaged - before.damaged);
        metrics::held(Self::NAME, self.rows.len() as u64, self.bytes);
        self.reported = now;
        self.next - 1
    }

    fn salvage(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<u64, SpoolError> {
        // Each table is read for itself and up to the first page that cannot be read.
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
            if let Some(next) = damaged.open_table(INFO)?.get(NEXT_ID)? {
                into.open_table(INFO)?.insert(NEXT_ID, next.value())?;
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
                    check(&head.value(), payload.value())
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

/// Reads a row; `None` if it left meanwhile.
///
/// # Errors
/// [`SpoolError::Damaged`] is the file's; a row alone that is damaged is the inner error.
pub(super) fn read(
    file: &ReadTransaction,
    ids: &[RowId],
) -> Result<Vec<Result<Row, RowId>>, SpoolError> {
    let rows = file.open_table(ROWS)?;
    let payloads = file.open_table(PAYLOADS)?;
    let mut read = Vec::with_capacity(ids.len());
    for &id in ids {
        let (Some(head), Some(payload)) = (rows.get(id)?, payloads.get(id)?) else {
            continue;
        };
        let head = head.value();
        read.push(match check(&head, payload.value()) {
            Ok(payload) => decode(id, head, payload),
            Err(_) => Err(id),
        });
    }
    Ok(read)
}

/// Copies the payload if it is what was inserted.
fn check(head: &<Head as redb::Value>::SelfType<'_>, payload: &[u8]) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc) = head;
    if payload.len() as u64 == *bytes && crc32fast::hash(payload) == *crc {
        Ok(Bytes::copy_from_slice(payload))
    } else {
        Err(SpoolError::Damaged)
    }
}

fn decode(
    id: RowId,
    head: <Head as redb::Value>::SelfType<'_>,
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
        message_type,
        payload,
        via: NodeId::from_bytes(via).map_err(|_| id)?,
        arrival: if arrival == 0 {
            Arrival::Live
        } else {
            Arrival::Stored
        },
        hash: DedupHash(*hash),
    };
    Ok(Row { id, message })
}
