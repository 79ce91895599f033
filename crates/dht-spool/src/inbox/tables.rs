//! The file of an inbox, format 2.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `info` | name | number: `kind` 1, `format` 2, `next_id`, `lost_others` 1 if rows were lost whose hashes are not known |
//! | `rows` | id | received-at, hash, type, arrival, deliverer, origin, payload length with the seal, CRC-32 of the payload |
//! | `deliverers` | id | deliverer in whose share the row is counted |
//! | `payloads` | id | payload |
//! | `remembered` | id of a row that left | hash, last second in which it is remembered |
//! | `remembered_by` | id of a row that left | deliverer in whose share its hash is remembered |
//! | `consumers` | name | cursor, ids acked out of order and then their seal: 2^63 and the CRC-32 of name, cursor and ids |
//! | `lost` | hash of a row that was lost to damage | nothing |
//!
//! The first files of format 2 have no table `remembered_by`: what they remember is in the share of one deliverer that sends nothing.
//!
//! Format 1 has no seals (see `disk/seal.rs`) and no table `lost`. Its rows stay as they are, the places of its consumers are
//! sealed by the first commit.
//!
//! Of a damaged file a row is kept if its head and its payload are what was written, so a page that cannot be read costs the
//! rows on it; a branch those below it; the first page of the file, or that which names the tables, costs all. A consumer whose place is not what was
//! written begins with the oldest row: a message is read again rather than never. One whose name cannot be read is gone. A row whose deliverer cannot be read is
//! counted in the share of the peer.
//!
//! Arrival is 0 for live, 1 for stored, and [`UNPROVEN`] more if the origin was unproven. The first files of
//! format 1 have no table `deliverers`. Rows and payloads grow at their end only, so that a commit touches few pages; hashes are looked
//! up in memory.

use std::collections::BTreeSet;

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, PublicKey, UnixSeconds};
use dht_datafile::DataFile;
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, Value,
    WriteTransaction,
};

use super::{
    row::{Arrival, Lost, NewRow, Row, RowId},
    rows::InboxRows,
    shares::Parties,
    state::{Change, DEFAULT_CONSUMER, InboxState, Remembered, RowMeta, check_name},
};
use crate::{
    disk::{DamagedTable, INFO, Sealed, Tables, check, check_row, length, seal_row},
    error::{SpoolError, contain},
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

impl Sealed for Head {
    fn field<'a>(row: &'a mut Self::SelfType<'_>) -> &'a mut u64 {
        &mut row.6
    }
}

/// Added to the arrival of a row of an unproven origin. The first files of format 1 do not know it.
const UNPROVEN: u8 = 2;

const ROWS: TableDefinition<'_, RowId, Head> = TableDefinition::new("rows");
const DELIVERERS: TableDefinition<'_, RowId, &[u8; 32]> = TableDefinition::new("deliverers");
const PAYLOADS: TableDefinition<'_, RowId, &[u8]> = TableDefinition::new("payloads");
const REMEMBERED: TableDefinition<'_, RowId, (&[u8; 32], u64)> = TableDefinition::new("remembered");
const REMEMBERED_BY: TableDefinition<'_, RowId, &[u8; 32]> = TableDefinition::new("remembered_by");
const CONSUMERS: TableDefinition<'_, &str, (RowId, Vec<RowId>)> = TableDefinition::new("consumers");
const LOST: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("lost");
const LOST_OTHERS: &str = "lost_others";
/// Added to the CRC-32 of a consumer's place. No id is so high.
const PLACE_SEAL: RowId = 1 << 63;

impl Tables for InboxState {
    const KIND: u64 = 1;

    fn create(transaction: &WriteTransaction) -> Result<(), SpoolError> {
        transaction.open_table(ROWS)?;
        transaction.open_table(PAYLOADS)?;
        transaction.open_table(REMEMBERED)?;
        transaction.open_table(CONSUMERS)?.insert(
            DEFAULT_CONSUMER,
            (0, sealed_place(DEFAULT_CONSUMER, 0, Vec::new())),
        )?;
        Ok(())
    }

    fn load(&mut self, file: &ReadTransaction) -> Result<(), SpoolError> {
        let deliverers = deliverers_of(file, DELIVERERS)?;
        for entry in file.open_table(ROWS)?.iter()? {
            let (id, head) = entry?;
            let (received_at, hash, _, arrival, via, origin, bytes, _) = head.value();
            let row = RowMeta {
                received_at: UnixSeconds(received_at),
                bytes: length(bytes),
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
        let remembered_by = deliverers_of(file, REMEMBERED_BY)?;
        let mut remembered = Vec::new();
        for entry in file.open_table(REMEMBERED)?.iter()? {
            let (id, value) = entry?;
            let (hash, until) = value.value();
            let hash = DedupHash(*hash);
            self.known.entry(hash).or_insert_with(|| id.value());
            let (id, until) = (id.value(), UnixSeconds(until));
            let deliverer = match &remembered_by {
                Some(table) => table.get(id)?.map(|bytes| *bytes.value()),
                None => None,
            };
            let deliverer = Deliverer::from_bytes(deliverer.unwrap_or_default());
            remembered.push((deliverer, Remembered { id, hash, until }));
            self.ids.used(id);
        }
        remembered.sort_unstable_by_key(|(_, it)| (it.until, it.id));
        for (deliverer, it) in remembered {
            self.remembered.push(deliverer, it);
        }
        self.consumers.clear();
        for entry in file.open_table(CONSUMERS)?.iter()? {
            let (name, place) = entry?;
            let (cursor, ahead) = place.value();
            match read_place(name.value(), cursor, ahead) {
                Place::Sealed(ahead) => self.load_consumer(name.value(), cursor, ahead, false),
                Place::Unsealed(ahead) => self.load_consumer(name.value(), cursor, ahead, true),
                Place::Damaged => return Err(SpoolError::Damaged),
            }
            self.ids.used(cursor);
        }
        self.lost = read_lost(file)?;
        Ok(())
    }

    fn write(transaction: &WriteTransaction, changes: Vec<Change>) -> Result<(), SpoolError> {
        let mut rows = transaction.open_table(ROWS)?;
        let mut deliverers = transaction.open_table(DELIVERERS)?;
        let mut payloads = transaction.open_table(PAYLOADS)?;
        let mut remembered = transaction.open_table(REMEMBERED)?;
        let mut remembered_by = transaction.open_table(REMEMBERED_BY)?;
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
                    let mut head = (
                        row.received_at.0,
                        &row.hash.0,
                        row.message_type,
                        arrival | origin_flag,
                        row.via.as_bytes(),
                        row.origin.as_ref().map(PublicKey::as_bytes),
                        row.payload.len() as u64,
                        crc32fast::hash(&row.payload),
                    );
                    seal_row::<Head>(id, &mut head);
                    rows.insert(id, head)?;
                    deliverers.insert(id, row.deliverer.as_bytes())?;
                    payloads.insert(id, row.payload.as_ref())?;
                }
                Change::Remove(id) => {
                    rows.remove(id)?;
                    deliverers.remove(id)?;
                    payloads.remove(id)?;
                }
                Change::Remember(Remembered { id, hash, until }, deliverer) => {
                    remembered.insert(id, (&hash.0, until.0))?;
                    remembered_by.insert(id, deliverer.as_bytes())?;
                }
                Change::Forget(id) => {
                    remembered.remove(id)?;
                    remembered_by.remove(id)?;
                }
                Change::Consumer(name, cursor, ahead) => {
                    let ahead = sealed_place(&name, cursor, ahead);
                    consumers.insert(name.as_str(), (cursor, ahead))?;
                }
                Change::RemoveConsumer(name) => {
                    consumers.remove(name.as_str())?;
                }
                Change::Lost(hash) => {
                    transaction.open_table(LOST)?.insert(&hash.0, ())?;
                }
                Change::LostOthers => {
                    transaction.open_table(INFO)?.insert(LOST_OTHERS, 1)?;
                }
                Change::ForgetLost(lost) => {
                    let mut table = transaction.open_table(LOST)?;
                    for hash in lost.hashes {
                        table.remove(&hash.0)?;
                    }
                    if lost.others {
                        transaction.open_table(INFO)?.remove(LOST_OTHERS)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read(file: &ReadTransaction) -> &Self::Rows {
        file
    }

    /// Without its tables nothing is kept. The bytes of payloads are those of peers, who could have written what looks like
    /// rows of others.
    fn salvage(
        damaged: Option<&ReadTransaction>,
        _file: &DataFile,
        into: &WriteTransaction,
    ) -> Result<u64, SpoolError> {
        let Some(damaged) = damaged else {
            into.open_table(INFO)?.insert(LOST_OTHERS, 1)?;
            return Ok(0);
        };
        salvage_remembered(damaged, into)?;
        salvage_consumers(damaged, into)?;
        let mut lost = contain(|| read_lost(damaged)).unwrap_or(Lost {
            hashes: Vec::new(),
            others: true,
        });
        let count = salvage_rows(damaged, into, &mut lost)?;
        let mut table = into.open_table(LOST)?;
        for hash in &lost.hashes {
            table.insert(&hash.0, ())?;
        }
        if lost.others {
            into.open_table(INFO)?.insert(LOST_OTHERS, 1)?;
        }
        Ok(count)
    }
}

fn salvage_remembered(
    damaged: &ReadTransaction,
    into: &WriteTransaction,
) -> Result<(), SpoolError> {
    let from = DamagedTable::open(damaged, REMEMBERED);
    let from_deliverers = DamagedTable::open(damaged, REMEMBERED_BY);
    let mut ids = BTreeSet::new();
    from.reach(&mut ids);
    let mut remembered = into.open_table(REMEMBERED)?;
    let mut remembered_by = into.open_table(REMEMBERED_BY)?;
    for id in ids {
        if let Ok((hash, until)) = from.get(id, |(hash, until)| Ok((*hash, until))) {
            remembered.insert(id, (&hash, until))?;
            if let Ok(deliverer) = from_deliverers.get(id, |deliverer| Ok(*deliverer)) {
                remembered_by.insert(id, &deliverer)?;
            }
        }
    }
    Ok(())
}

fn salvage_consumers(damaged: &ReadTransaction, into: &WriteTransaction) -> Result<(), SpoolError> {
    let mut places = Vec::new();
    let _ = contain(|| {
        for entry in damaged.open_table(CONSUMERS)?.iter()? {
            let (name, place) = entry?;
            let name = name.value().to_owned();
            let (cursor, ahead) = place.value();
            places.push(match read_place(&name, cursor, ahead) {
                Place::Sealed(ahead) => (name, cursor, ahead),
                // Read again rather than never.
                Place::Unsealed(_) | Place::Damaged => (name, 0, Vec::new()),
            });
        }
        Ok(())
    });
    let mut consumers = into.open_table(CONSUMERS)?;
    for (name, cursor, ahead) in places {
        if check_name(&name).is_ok() {
            let ahead = sealed_place(&name, cursor, ahead);
            consumers.insert(name.as_str(), (cursor, ahead))?;
        }
    }
    Ok(())
}

/// Copies the rows whose head and payload are what was written, and notes the others.
fn salvage_rows(
    damaged: &ReadTransaction,
    into: &WriteTransaction,
    lost: &mut Lost,
) -> Result<u64, SpoolError> {
    let from_rows = DamagedTable::open(damaged, ROWS);
    let from_payloads = DamagedTable::open(damaged, PAYLOADS);
    let from_deliverers = DamagedTable::open(damaged, DELIVERERS);
    let mut ids = BTreeSet::new();
    lost.others |= !from_rows.reach(&mut ids);
    from_payloads.reach(&mut ids);
    from_deliverers.reach(&mut ids);
    let mut rows = into.open_table(ROWS)?;
    let mut deliverers = into.open_table(DELIVERERS)?;
    let mut payloads = into.open_table(PAYLOADS)?;
    let mut count = 0;
    for id in ids {
        let Ok(head) = from_rows.get_whole(id) else {
            lost.others = true;
            continue;
        };
        let head = Head::from_bytes(&head);
        let payload = from_payloads.get(id, |payload| content(id, head, payload));
        let Ok(payload) = payload else {
            lost.hashes.push(DedupHash(*head.1));
            continue;
        };
        rows.insert(id, head)?;
        payloads.insert(id, payload.as_ref())?;
        if let Ok(deliverer) = from_deliverers.get(id, |deliverer| Ok(*deliverer)) {
            deliverers.insert(id, &deliverer)?;
        }
        count += 1;
    }
    Ok(count)
}

/// Ids acked out of order, as a file has them.
enum Place {
    Sealed(Vec<RowId>),
    /// Of format 1.
    Unsealed(Vec<RowId>),
    Damaged,
}

/// The ids with the seal of the place behind them.
fn sealed_place(name: &str, cursor: RowId, mut ahead: Vec<RowId>) -> Vec<RowId> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(name.as_bytes());
    crc.update(&cursor.to_le_bytes());
    for id in &ahead {
        crc.update(&id.to_le_bytes());
    }
    ahead.push(PLACE_SEAL | u64::from(crc.finalize()));
    ahead
}

fn read_place(name: &str, cursor: RowId, mut ahead: Vec<RowId>) -> Place {
    match ahead.pop_if(|last| *last >= PLACE_SEAL) {
        None => Place::Unsealed(ahead),
        Some(seal) => {
            let mut expected = sealed_place(name, cursor, ahead);
            match expected.pop() {
                Some(right) if right == seal => Place::Sealed(expected),
                _ => Place::Damaged,
            }
        }
    }
}

/// Hashes that were lost and not yet told; a file of format 1 has no table for them.
fn read_lost(file: &ReadTransaction) -> Result<Lost, SpoolError> {
    let mut lost = Lost {
        hashes: Vec::new(),
        others: file.open_table(INFO)?.get(LOST_OTHERS)?.is_some(),
    };
    match file.open_table(LOST) {
        Ok(table) => {
            for entry in table.iter()? {
                lost.hashes.push(DedupHash(*entry?.0.value()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(lost)
}

impl InboxRows for ReadTransaction {
    fn read(&self, ids: &[RowId]) -> Result<Vec<Result<Row, RowId>>, SpoolError> {
        let rows = self.open_table(ROWS)?;
        let deliverers = deliverers_of(self, DELIVERERS)?;
        let payloads = self.open_table(PAYLOADS)?;
        let mut read = Vec::with_capacity(ids.len());
        for &id in ids {
            let (Some(head), Some(payload)) = (rows.get(id)?, payloads.get(id)?) else {
                continue;
            };
            let head = head.value();
            read.push(match content(id, head, payload.value()) {
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

/// A table of deliverers; `None` if the file has none.
fn deliverers_of(
    file: &ReadTransaction,
    table: TableDefinition<'_, RowId, &'static [u8; 32]>,
) -> Result<Option<Deliverers>, SpoolError> {
    match file.open_table(table) {
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

/// Copies the payload if head and payload are what was inserted.
fn content(
    id: RowId,
    head: <Head as Value>::SelfType<'_>,
    payload: &[u8],
) -> Result<Bytes, SpoolError> {
    let (.., bytes, crc) = check_row::<Head>(id, head)?;
    check(payload, bytes, crc)
}

fn decode(
    id: RowId,
    head: <Head as Value>::SelfType<'_>,
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
