//! Opening: the index as its last durable commit left it, then the log from there on.

use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, Durability, ReadableDatabase};

use super::{
    books::{Books, LogPosition},
    debt::{IndexFile, IndexHandle},
    index::{FORMAT, KEY_FORMAT, META, Place, ROWS, Row, Tables, read_table},
    log::{Entry, SEGMENT_HEAD, SegmentHead, next_batch, read_segment_head},
    reader,
    segments::{Log, segment_name, segment_number},
    shared::Shared,
};
use crate::{
    config::StoreConfig,
    disk::{Disk, DiskFile},
    error::StoreError,
    metrics,
    record::RowId,
};

/// The file of the index.
pub(super) const INDEX_NAME: &str = "index.redb";

/// What every file of redb begins with.
const REDB_MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Records of the log that one transaction of a restart takes.
const REPLAY_ENTRIES: usize = 1024;

/// What opening brought.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) index: Arc<IndexFile>,
    pub(super) books: Books,
    pub(super) log: Log,
}

/// Opens the index and reads the rest of the log into it.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    shared: &Arc<Shared>,
    config: &StoreConfig,
) -> Result<Opened, StoreError> {
    shared.clear_segments();
    let file = disk.open(INDEX_NAME)?;
    let complete = is_complete(&file)?;
    if !complete {
        file.set_len(0)?;
    }
    let index = Arc::new(IndexFile::new(file));
    if complete {
        // Opening waits for no write, and needs no room on a full disk: the writer's first checkpoint pays.
        index.defer();
    }
    let database = Arc::new(
        Builder::new()
            .set_cache_size(config.index_cache_bytes)
            .create_with_backend(IndexHandle(index.clone()))?,
    );
    check_format(&database)?;
    let mut books = Books::load(&database, &config.limits, None)?;

    let durable = books.durable;
    let mut numbers: Vec<u32> = disk
        .names()?
        .iter()
        .filter_map(|name| segment_number(name))
        .collect();
    numbers.sort_unstable();
    for number in &numbers {
        let file = disk.open(&segment_name(*number))?;
        if *number < books.log.segment && !books.segments.contains_key(number) {
            // Emptied before the last commit, and the removal did not get through.
            drop(file);
            disk.remove(&segment_name(*number))?;
            continue;
        }
        if *number >= books.log.segment {
            replay(&database, &mut books, *number, &file)?;
        }
        if *number >= durable.segment {
            // What the index says from here on must be in the log for good.
            file.sync_data()?;
        }
        shared.add_segment(*number, file);
    }
    disk.sync_names()?;
    drop_dangling(&database, &mut books, shared, durable)?;

    let next = numbers
        .last()
        .map_or(0, |last| last.saturating_add(1))
        .max(books.log.segment);
    let log = Log::new(disk.clone(), shared.clone(), next, config.segment_bytes);
    (books.log, books.durable) = (log.position(), log.position());
    write(&database, &mut books, Durability::Immediate, |_, _| Ok(()))?;
    index.defer();
    shared.set_database(Some(database));
    Ok(Opened { index, books, log })
}

/// Whether the index was ever made: redb writes its magic number last, and what lacks it holds nothing. The log has
/// it all.
fn is_complete(file: &DiskFile) -> Result<bool, StoreError> {
    let mut start = [0; REDB_MAGIC.len()];
    if file.len()? < REDB_MAGIC.len() as u64 {
        return Ok(false);
    }
    file.read(0, &mut start)?;
    Ok(start == REDB_MAGIC)
}

/// Runs one transaction on tables and books.
pub(super) fn write(
    database: &Database,
    books: &mut Books,
    durability: Durability,
    work: impl FnOnce(&mut Tables<'_>, &mut Books) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(durability)?;
    {
        let mut tables = Tables::open(&transaction)?;
        work(&mut tables, books)?;
        books.flush(&mut tables)?;
        tables.meta.insert(KEY_FORMAT, FORMAT)?;
    }
    transaction.commit()?;
    books.known.keep();
    Ok(())
}

/// Refuses files of a later version before anything is changed.
fn check_format(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read()?;
    let Some(table) = read_table(&transaction, META)? else {
        return Ok(());
    };
    let found = table.get(KEY_FORMAT)?.map_or(FORMAT, |found| found.value());
    if found > FORMAT {
        Err(StoreError::NewerFormat {
            found,
            known: FORMAT,
        })
    } else {
        Ok(())
    }
}

/// Applies the batches of a segment from the books' position on.
fn replay(
    database: &Database,
    books: &mut Books,
    number: u32,
    file: &DiskFile,
) -> Result<(), StoreError> {
    books.begin_segment(number);
    let mut bytes = read_all(file)?;
    match read_segment_head(&bytes, number) {
        SegmentHead::Readable => {}
        SegmentHead::Newer(found) => {
            return Err(StoreError::NewerFormat {
                found: found.into(),
                known: FORMAT,
            });
        }
        SegmentHead::Damaged => return Ok(()),
    }
    let mut offset = if number == books.log.segment {
        books.log.offset.max(SEGMENT_HEAD)
    } else {
        SEGMENT_HEAD
    };
    bytes = usize::try_from(offset)
        .ok()
        .filter(|offset| *offset <= bytes.len())
        .map_or_else(Bytes::new, |offset| bytes.slice(offset..));
    let mut rows = 0_usize;
    loop {
        // Many small batches share a transaction, or a trickle of single messages would take long to read again.
        let mut batches = Vec::new();
        let mut entries = 0_usize;
        while entries < REPLAY_ENTRIES {
            let before = bytes.len();
            let Some(batch) = next_batch(&mut bytes, number) else {
                break;
            };
            entries = entries.saturating_add(batch.len());
            batches.push((offset, batch));
            let taken = u32::try_from(before.saturating_sub(bytes.len())).unwrap_or(u32::MAX);
            offset = offset.saturating_add(taken);
        }
        if batches.is_empty() {
            break;
        }
        rows = rows.saturating_add(entries);
        write(database, books, Durability::None, |tables, books| {
            batches
                .iter()
                .try_for_each(|(offset, batch)| apply(tables, books, number, *offset, batch))
        })?;
    }
    books.log = books.log.max(LogPosition {
        segment: number,
        offset,
    });
    metrics::replayed(rows);
    Ok(())
}

/// Applies one batch. Applying it again changes nothing.
fn apply(
    tables: &mut Tables<'_>,
    books: &mut Books,
    segment: u32,
    offset: u32,
    batch: &[(usize, usize, Entry)],
) -> Result<(), StoreError> {
    for (start, length, entry) in batch {
        match entry {
            Entry::Message { id, meta, .. } => {
                let (Ok(start), Ok(length)) = (u32::try_from(*start), u32::try_from(*length))
                else {
                    continue;
                };
                let place = Place {
                    segment,
                    offset: offset.saturating_add(start),
                    length,
                };
                let row = Row { meta: *meta, place };
                books.next_row = books.next_row.max(id.0.saturating_add(1));
                books.newest = meta.stored_at;
                if let Some(old) = tables.row(*id)? {
                    books.move_row(tables, *id, &old, &row)?;
                } else if !books.known.contains(&meta.hash) {
                    books.add(tables, *id, &row)?;
                }
            }
            Entry::Deletion(rows) => {
                for id in rows {
                    books.remove(tables, *id)?;
                }
            }
        }
    }
    Ok(())
}

/// Takes out rows whose bytes a power failure took (only with [`crate::Durability::Eventual`]).
///
/// The index may have reached the device before the end of the log did; behind `durable` each record is read.
fn drop_dangling(
    database: &Database,
    books: &mut Books,
    shared: &Shared,
    durable: LogPosition,
) -> Result<(), StoreError> {
    let mut ends = std::collections::HashMap::new();
    for number in books.segments.keys() {
        if let Some(file) = shared.segment(*number) {
            ends.insert(*number, file.len()?);
        }
    }
    let mut dangling = Vec::new();
    {
        let transaction = database.begin_read()?;
        let Some(table) = read_table(&transaction, ROWS)? else {
            return Ok(());
        };
        for entry in redb::ReadableTable::iter(&table)? {
            let (id, bytes) = entry?;
            let there = match Row::from_bytes(bytes.value()) {
                None => false,
                Some(Row { place, .. }) => {
                    let end = u64::from(place.offset).saturating_add(place.length.into());
                    let position = LogPosition {
                        segment: place.segment,
                        offset: place.offset,
                    };
                    ends.get(&place.segment)
                        .is_some_and(|length| *length >= end)
                        && (position < durable || reader::read(shared, place)?.is_some())
                }
            };
            if !there {
                dangling.push(RowId(id.value()));
            }
        }
    }
    if dangling.is_empty() {
        return Ok(());
    }
    metrics::lost(dangling.len());
    tracing::warn!(
        rows = dangling.len(),
        "stored messages were cut off by a power failure"
    );
    write(database, books, Durability::None, |tables, books| {
        dangling
            .iter()
            .try_for_each(|id| books.remove(tables, *id).map(drop))
    })
}

fn read_all(file: &DiskFile) -> Result<Bytes, StoreError> {
    let length = usize::try_from(file.len()?)
        .map_err(|_| StoreError::Io(std::io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read(0, &mut bytes)?;
    Ok(bytes.into())
}
