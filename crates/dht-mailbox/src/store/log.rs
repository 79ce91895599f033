//! The bytes of a segment: a head, then batches, each of whole records.
//!
//! All numbers are little-endian.
//!
//! | Part | Bytes | Field |
//! |---|---|---|
//! | segment head | 8 | `DHTSAF`, format version, 0 |
//! | | 4 | segment number |
//! | | 4 | 0 |
//! | batch head | 4 | `SAFB` |
//! | | 4 | bytes of the records that follow |
//! | | 4 | number of records |
//! | | 4 | CRC-32 of the two numbers before and the segment number |
//! | record head | 4 | CRC-32 of everything after it, to the end of the record |
//! | | 4 | bytes of the payload |
//! | | 1 | kind: 1 message, 2 deletion |
//! | | 8 | row (message), or number of rows (deletion) |
//! | message | 32, 32, 32 | recipient, neighbour, content hash |
//! | | 8, 8 | stored at, keep until (Unix seconds) |
//! | | 1 | retention: 1 or 10 |
//! | | 4 | bytes of the header; header and body follow |
//! | deletion | 8 each | rows |
//!
//! A batch counts whole or not at all: a restart stops at the first one that is cut short or does not check.

use bytes::{Buf, Bytes};
use dht_core::{DedupHash, UnixSeconds};

use crate::record::{Neighbour, Recipient, Retention, RowId, StoredRecord};

/// Bytes before the first batch.
pub(super) const SEGMENT_HEAD: u32 = 16;
/// Bytes before the records of a batch.
pub(super) const BATCH_HEAD: usize = 16;
/// Bytes before the payload of a record.
const RECORD_HEAD: usize = 17;
/// Bytes of a message's payload before its header.
const MESSAGE_HEAD: usize = 117;
/// The format this version writes.
pub(super) const LOG_FORMAT: u8 = 1;

const SEGMENT_MAGIC: [u8; 6] = *b"DHTSAF";
const BATCH_MAGIC: [u8; 4] = *b"SAFB";
const KIND_MESSAGE: u8 = 1;
const KIND_DELETION: u8 = 2;

/// Everything about a message except where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) recipient: Recipient,
    pub(super) neighbour: Neighbour,
    pub(super) hash: DedupHash,
    pub(super) stored_at: UnixSeconds,
    pub(super) keep_until: UnixSeconds,
    pub(super) retention: Retention,
}

/// A record read back.
#[derive(Debug)]
pub(super) enum Entry {
    Message {
        id: RowId,
        meta: Meta,
        header: Bytes,
        body: Bytes,
    },
    Deletion(Vec<RowId>),
}

/// A batch being put together.
#[derive(Debug, Default)]
pub(super) struct BatchBuffer {
    bytes: Vec<u8>,
    records: u32,
    /// Rows that come or go.
    rows: u64,
}

/// What a segment's head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SegmentHead {
    /// This version reads it.
    Readable,
    /// Written by a later version.
    Newer(u8),
    /// Cut short or foreign: no batch of it was ever acknowledged.
    Damaged,
}

// === impl BatchBuffer ===

impl BatchBuffer {
    pub(super) const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes the batch will take, its head included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().max(BATCH_HEAD)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.rows = 0;
    }

    /// Rows that come or go with this batch.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a message; returns where it starts within the batch and how many bytes it takes.
    pub(super) fn message(
        &mut self,
        id: RowId,
        meta: &Meta,
        header: &[u8],
        body: &[u8],
    ) -> (usize, usize) {
        let start = self.open();
        self.put(meta.recipient.as_bytes());
        self.put(meta.neighbour.as_bytes());
        self.put(&meta.hash.0);
        self.put(&meta.stored_at.0.to_le_bytes());
        self.put(&meta.keep_until.0.to_le_bytes());
        self.put(&[meta.retention.number()]);
        self.put(&length(header.len()).to_le_bytes());
        self.put(header);
        self.put(body);
        self.rows = self.rows.saturating_add(1);
        (start, self.close(start, KIND_MESSAGE, id.0))
    }

    /// Adds the record that these rows are gone.
    pub(super) fn deletion(&mut self, rows: &[RowId]) {
        let start = self.open();
        for row in rows {
            self.put(&row.0.to_le_bytes());
        }
        let count = rows.len().try_into().unwrap_or(u64::MAX);
        self.rows = self.rows.saturating_add(count);
        self.close(start, KIND_DELETION, count);
    }

    /// The finished batch for this segment.
    pub(super) fn seal(&mut self, segment: u32) -> &[u8] {
        let length = length(self.bytes.len().saturating_sub(BATCH_HEAD));
        let head = batch_head(segment, length, self.records);
        if let Some(target) = self.bytes.get_mut(..BATCH_HEAD) {
            target.copy_from_slice(&head);
        }
        &self.bytes
    }

    fn open(&mut self) -> usize {
        if self.bytes.is_empty() {
            self.put(&[0; BATCH_HEAD]);
        }
        let start = self.bytes.len();
        self.put(&[0; RECORD_HEAD]);
        start
    }

    fn close(&mut self, start: usize, kind: u8, number: u64) -> usize {
        let total = self.bytes.len().saturating_sub(start);
        let mut head = [0; RECORD_HEAD];
        write_fields(
            &mut head,
            &[
                &[0; 4],
                &length(total.saturating_sub(RECORD_HEAD)).to_le_bytes(),
                &[kind],
                &number.to_le_bytes(),
            ],
        );
        if let Some(target) = self.bytes.get_mut(start..start.saturating_add(RECORD_HEAD)) {
            target.copy_from_slice(&head);
        }
        let check = crc32fast::hash(
            self.bytes
                .get(start.saturating_add(4)..)
                .unwrap_or_default(),
        );
        if let Some(target) = self.bytes.get_mut(start..start.saturating_add(4)) {
            target.copy_from_slice(&check.to_le_bytes());
        }
        self.records = self.records.saturating_add(1);
        total
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Bytes a message takes in a segment.
pub(super) fn message_length(header: usize, body: usize) -> u64 {
    let length = RECORD_HEAD
        .saturating_add(MESSAGE_HEAD)
        .saturating_add(header)
        .saturating_add(body);
    length.try_into().unwrap_or(u64::MAX)
}

/// The head of a new segment.
pub(super) fn segment_head(segment: u32) -> [u8; SEGMENT_HEAD as usize] {
    let mut head = [0; SEGMENT_HEAD as usize];
    write_fields(
        &mut head,
        &[&SEGMENT_MAGIC, &[LOG_FORMAT, 0], &segment.to_le_bytes()],
    );
    head
}

/// Judges the head of a segment.
pub(super) fn read_segment_head(mut bytes: &[u8], segment: u32) -> SegmentHead {
    let (Some(magic), Some([version, _]), Some(number)) = (
        take::<6>(&mut bytes),
        take::<2>(&mut bytes),
        take::<4>(&mut bytes),
    ) else {
        return SegmentHead::Damaged;
    };
    match (magic == SEGMENT_MAGIC, version) {
        (true, version) if version > LOG_FORMAT => SegmentHead::Newer(version),
        (true, LOG_FORMAT) if number == segment.to_le_bytes() => SegmentHead::Readable,
        _ => SegmentHead::Damaged,
    }
}

/// Takes the next batch off `bytes`: its records, each with its offset in the batch and its length.
///
/// `None` at the end, or at the first batch that is cut short or does not check.
pub(super) fn next_batch(bytes: &mut Bytes, segment: u32) -> Option<Vec<(usize, usize, Entry)>> {
    let (length, count) = parse_batch_head(bytes, segment)?;
    let length = usize::try_from(length).ok()?;
    let end = BATCH_HEAD
        .checked_add(length)
        .filter(|end| *end <= bytes.len())?;
    let batch = bytes.slice(..end);
    let mut entries = Vec::new();
    let mut offset = BATCH_HEAD;
    while offset < end {
        let (entry, taken) = read_record(&batch.slice(offset..))?;
        entries.push((offset, taken, entry));
        offset = offset.checked_add(taken)?;
    }
    if offset != end || entries.len() != usize::try_from(count).ok()? {
        return None;
    }
    bytes.advance(end);
    Some(entries)
}

/// The bytes of the records in the batch `bytes` starts with.
pub(super) fn read_batch_head(bytes: &[u8], segment: u32) -> Option<u32> {
    parse_batch_head(bytes, segment).map(|(length, _)| length)
}

/// Bytes and number of the records in the batch `bytes` starts with.
fn parse_batch_head(bytes: &[u8], segment: u32) -> Option<(u32, u32)> {
    let mut head = bytes.get(4..BATCH_HEAD)?;
    let length = u32::from_le_bytes(take(&mut head)?);
    let count = u32::from_le_bytes(take(&mut head)?);
    (bytes.get(..BATCH_HEAD)? == batch_head(segment, length, count)).then_some((length, count))
}

/// Reads the record `bytes` starts with, and how long it is; `None` if it does not check.
pub(super) fn read_record(bytes: &Bytes) -> Option<(Entry, usize)> {
    let mut head = bytes.get(..RECORD_HEAD)?;
    let check = u32::from_le_bytes(take(&mut head)?);
    let payload = usize::try_from(u32::from_le_bytes(take(&mut head)?)).ok()?;
    let [kind] = take(&mut head)?;
    let number = u64::from_le_bytes(take(&mut head)?);
    let total = RECORD_HEAD.checked_add(payload)?;
    if crc32fast::hash(bytes.get(4..total)?) != check {
        return None;
    }
    let payload = bytes.slice(RECORD_HEAD..total);
    let entry = match kind {
        KIND_MESSAGE => {
            let mut fields = payload.get(..MESSAGE_HEAD)?;
            let meta = Meta {
                recipient: Recipient::from_bytes(take(&mut fields)?),
                neighbour: Neighbour::from_bytes(take(&mut fields)?),
                hash: DedupHash(take(&mut fields)?),
                stored_at: UnixSeconds(u64::from_le_bytes(take(&mut fields)?)),
                keep_until: UnixSeconds(u64::from_le_bytes(take(&mut fields)?)),
                retention: Retention::from_number(u8::from_le_bytes(take(&mut fields)?))?,
            };
            let header = usize::try_from(u32::from_le_bytes(take(&mut fields)?)).ok()?;
            let split = MESSAGE_HEAD
                .checked_add(header)
                .filter(|split| *split <= payload.len())?;
            Entry::Message {
                id: RowId(number),
                meta,
                header: payload.slice(MESSAGE_HEAD..split),
                body: payload.slice(split..),
            }
        }
        KIND_DELETION => {
            let (rows, []) = payload.as_chunks::<8>() else {
                return None;
            };
            Entry::Deletion(
                rows.iter()
                    .map(|row| RowId(u64::from_le_bytes(*row)))
                    .collect(),
            )
        }
        _ => return None,
    };
    Some((entry, total))
}

/// The message in a record, if it is one.
pub(super) fn stored_record(bytes: &Bytes) -> Option<StoredRecord> {
    let (
        Entry::Message {
            id,
            meta,
            header,
            body,
        },
        _,
    ) = read_record(bytes)?
    else {
        return None;
    };
    Some(StoredRecord {
        id,
        recipient: meta.recipient,
        stored_at: meta.stored_at,
        keep_until: meta.keep_until,
        hash: meta.hash,
        retention: meta.retention,
        header,
        body,
    })
}

/// Splits the first `N` bytes off.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Writes fields one after the other; they must fit.
pub(super) fn write_fields(mut target: &mut [u8], fields: &[&[u8]]) {
    for field in fields {
        let Some((here, rest)) = target.split_at_mut_checked(field.len()) else {
            return;
        };
        here.copy_from_slice(field);
        target = rest;
    }
}

fn batch_head(segment: u32, length: u32, count: u32) -> [u8; BATCH_HEAD] {
    let mut check = crc32fast::Hasher::new();
    for number in [length, count, segment] {
        check.update(&number.to_le_bytes());
    }
    let mut head = [0; BATCH_HEAD];
    write_fields(
        &mut head,
        &[
            &BATCH_MAGIC,
            &length.to_le_bytes(),
            &count.to_le_bytes(),
            &check.finalize().to_le_bytes(),
        ],
    );
    head
}

/// A length that the batch limit keeps far below 4 GiB.
fn length(bytes: usize) -> u32 {
    bytes.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
