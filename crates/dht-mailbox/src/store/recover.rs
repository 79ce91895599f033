//! Opening: the index from its copy, then the log from there on; without a copy, the whole log.

use std::{collections::BTreeMap, io, sync::Arc};

use super::upkeep::Found;
use crate::{
    config::StoreConfig,
    copy::{self, Copied, CopyHead},
    disk::{Disk, DiskFile},
    error::StoreError,
    index::{Index, Loader},
    log::{
        Entry, Format, LOG_FORMAT, Log, LogPosition, Place, SEGMENT_HEAD, Segment, SegmentHead,
        Segments, detect, read_segment_head, segment_name, segment_number, walk,
    },
    metrics,
};

/// The index of version 0.1, a database; the log has everything that it has.
const OLD_INDEX_NAME: &str = "index.redb";

/// State of a store after opening.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) segments: Arc<Segments>,
    pub(super) log: Log,
    pub(super) damaged: u64,
    pub(super) found: Found,
}

/// Opens the segments, reads the copy, and reads the rest of the log.
pub(super) fn open(disk: &Arc<dyn Disk>, config: &StoreConfig) -> Result<Opened, StoreError> {
    let names = disk.names()?;
    let mut files = BTreeMap::new();
    for number in names.iter().filter_map(|name| segment_number(name)) {
        files.insert(number, open_segment(&**disk, number)?);
    }
    let (mut index, head, copy_bytes) = load(&**disk, &names, &files, config)?;
    let mut found = Found {
        copy_bytes,
        replayed: false,
        stale: names
            .into_iter()
            .filter(|name| name == OLD_INDEX_NAME)
            .collect(),
    };
    let mut damaged = 0_u64;
    for (number, segment) in &files {
        index.begin_segment(*number);
        let from = if *number == head.position.segment {
            head.position.offset
        } else {
            0
        };
        if *number < head.position.segment || u64::from(from) >= segment.length {
            continue;
        }
        let bytes = read_all(&segment.file)?;
        let (records, lost) = replay(&mut index, *number, segment.format, &bytes, from);
        damaged = damaged.saturating_add(lost);
        metrics::replayed(records);
        // Rows in the index from here on are durable, as after a commit.
        segment.file.sync()?;
        found.replayed = true;
    }
    if found.replayed {
        disk.sync_names()?;
    }
    if damaged > 0 {
        metrics::damaged(damaged);
        tracing::warn!(
            records = damaged,
            "a part of the stored messages is damaged"
        );
    }
    let next = files
        .last_key_value()
        .map_or(0, |(last, _)| last.saturating_add(1));
    let segments = Arc::new(Segments::default());
    for (number, segment) in files {
        segments.insert(number, segment);
    }
    let next = next.max(head.position.segment);
    let log = Log::new(disk.clone(), segments.clone(), next, config.segment_bytes);
    Ok(Opened {
        index,
        segments,
        log,
        damaged,
        found,
    })
}

fn open_segment(disk: &dyn Disk, number: u32) -> Result<Segment, StoreError> {
    let file = disk.open(&segment_name(number))?;
    let length = file.size()?;
    let mut head = [0; SEGMENT_HEAD as usize];
    let known = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(head.len());
    if let Some(known) = head.get_mut(..known) {
        file.read(0, known)?;
    }
    let format = match read_segment_head(&head, number) {
        SegmentHead::Readable(format) => format,
        SegmentHead::Newer(found) => {
            return Err(StoreError::NewerFormat {
                found: found.into(),
                known: LOG_FORMAT.into(),
            });
        }
        // The batches say it once more. Without any, nothing was ever acknowledged.
        SegmentHead::Damaged => detect(&read_all(&file)?, number).unwrap_or(Format::V2 { salt: 0 }),
    };
    Ok(Segment {
        file,
        format,
        length,
    })
}

/// The index as its copy has it, up to where that is complete, and the copy's bytes.
fn load(
    disk: &dyn Disk,
    names: &[String],
    files: &BTreeMap<u32, Segment>,
    config: &StoreConfig,
) -> Result<(Index, CopyHead, u64), StoreError> {
    match copy::read(disk, names, config)? {
        Copied::Whole { head, rows, bytes } if fits(head, &rows, files) => {
            return Ok((rows.finish(head.next_row, head.newest), head, bytes));
        }
        Copied::Missing if files.is_empty() => {}
        Copied::Missing => {
            tracing::warn!("the index of the stored messages is missing; reading all of the log");
        }
        Copied::Damaged | Copied::Whole { .. } => {
            tracing::warn!(
                "the index of the stored messages is damaged or of another time; reading all of the log"
            );
        }
    }
    Ok((Index::new(config), CopyHead::default(), 0))
}

/// Whether the log has everything that the copy speaks of.
fn fits(head: CopyHead, rows: &Loader, files: &BTreeMap<u32, Segment>) -> bool {
    let length = |number: &u32| files.get(number).map(|segment| segment.length);
    let LogPosition { segment, offset } = head.position;
    length(&segment).is_none_or(|length| length >= offset.into())
        && rows
            .ends()
            .iter()
            .all(|(number, end)| length(number).is_some_and(|length| length >= *end))
}

/// Applies a segment's records from an offset on. Applying one again changes nothing. Returns how many there are, and
/// how many are damaged.
fn replay(index: &mut Index, segment: u32, format: Format, bytes: &[u8], from: u32) -> (u64, u64) {
    let mut records = 0_u64;
    let damaged = walk(bytes, segment, format, from as usize, |found| {
        records = records.saturating_add(1);
        match found.entry {
            Entry::Message { id, meta } => {
                let place = Place {
                    segment,
                    offset: found.offset,
                    length: found.length,
                };
                if index.row(id).is_some() {
                    index.relocate(id, place);
                } else if !index.contains(&meta.hash) {
                    index.add(id, &meta, place);
                }
                index.used(id);
                // A row that was moved is not a new one.
                index.set_newest(index.newest().max(meta.stored_at));
            }
            Entry::Deletion(rows) => rows.into_iter().for_each(|id| {
                index.remove(id);
            }),
        }
        index.commit();
    });
    (records, damaged)
}

fn read_all(file: &Arc<dyn DiskFile>) -> Result<Vec<u8>, StoreError> {
    let length =
        usize::try_from(file.size()?).map_err(|_| StoreError::Io(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}
