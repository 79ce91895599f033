//! The bytes of a segment: a head, then batches, each of whole records.
//!
//! All numbers are little-endian. Checks are CRC-32 that begin at the segment's salt, a number that nobody outside
//! knows: a message whose body looks like a record is not taken for one when a damaged segment is searched.
//!
//! | Part | Bytes | Field |
//! |---|---|---|
//! | segment head | 8 | `DHTSAF`, format version, 0 |
//! | | 4, 4 | segment number, salt |
//! | | 4 | CRC-32 of the 16 bytes before, not salted |
//! | batch head | 4 | `SAFC` |
//! | | 4, 4 | bytes of the records that follow, number of records |
//! | | 4 | salt again |
//! | | 4 | check of the 16 bytes before and the segment number |
//! | record head | 4 | check of the 17 bytes of the head that follow |
//! | | 4 | check of the payload |
//! | | 4 | bytes of the payload |
//! | | 1 | kind: 1 message, 2 deletion |
//! | | 8 | row (message), or number of rows (deletion) |
//! | message | 32, 32, 32 | recipient, neighbour, content hash |
//! | | 8, 8 | stored at, keep until (Unix seconds) |
//! | | 1 | retention: 1 or 10 |
//! | | 4 | bytes of the header; header and body follow |
//! | deletion | 8 each | rows |
//!
//! Version 1, which is still read, has no salt: its segment head ends with four zeros instead of salt and check, its batch
//! head is `SAFB`, the two numbers, and a CRC-32 of them and the segment number, and its record head has one CRC-32 of
//! everything after it instead of two checks.

use bytes::Bytes;
use dht_core::{DedupHash, UnixSeconds};

use crate::record::{Neighbour, Recipient, Retention, RowId, StoredRecord};

/// Bytes before the first batch of a segment that this version writes.
pub(crate) const SEGMENT_HEAD: u32 = 20;
/// The format that this version writes.
pub(crate) const LOG_FORMAT: u8 = 2;
/// Bytes of a batch head that this version writes.
pub(super) const BATCH_HEAD: usize = 20;
/// Bytes of a record head that this version writes.
pub(super) const RECORD_HEAD: usize = 21;
/// Bytes of a message's payload before its header.
const MESSAGE_HEAD: usize = 117;

const SEGMENT_MAGIC: [u8; 6] = *b"DHTSAF";
const BATCH_MAGIC: [u8; 4] = *b"SAFC";
const BATCH_MAGIC_1: [u8; 4] = *b"SAFB";
pub(super) const KIND_MESSAGE: u8 = 1;
pub(super) const KIND_DELETION: u8 = 2;

/// How the batches of a segment are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Without a salt.
    V1,
    V2 {
        salt: u32,
    },
}

/// Everything about a message except where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) recipient: Recipient,
    pub(crate) neighbour: Neighbour,
    pub(crate) hash: DedupHash,
    pub(crate) stored_at: UnixSeconds,
    pub(crate) keep_until: UnixSeconds,
    pub(crate) retention: Retention,
}

/// Where a record lies in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A place in the log between two batches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct LogPosition {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// A record read back, without header and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Message { id: RowId, meta: Meta },
    Deletion(Vec<RowId>),
}

/// What a segment's head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentHead {
    /// This version reads it.
    Readable(Format),
    /// Written by a later version.
    Newer(u8),
    /// Cut short, changed or foreign.
    Damaged,
}

/// A batch head that checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHead {
    /// Bytes of the head itself.
    pub(super) head: usize,
    /// Bytes of the records.
    pub(super) length: usize,
    /// Number of records.
    pub(super) count: usize,
    pub(super) format: Format,
}

/// A record whose head checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    head: usize,
    kind: u8,
    number: u64,
    /// Bytes of the whole record.
    pub(super) length: usize,
    /// Whether the payload is there and checks.
    pub(super) whole: bool,
}

impl Format {
    pub(super) const fn segment_head(self) -> usize {
        match self {
            Self::V1 => 16,
            Self::V2 { .. } => SEGMENT_HEAD as usize,
        }
    }

    /// The check of these parts, one after the other.
    pub(super) fn check(self, parts: &[&[u8]]) -> u32 {
        let mut check = crc32fast::Hasher::new_with_initial(match self {
            Self::V1 => 0,
            Self::V2 { salt } => salt,
        });
        for part in parts {
            check.update(part);
        }
        check.finalize()
    }
}

/// Bytes a message takes in a segment.
pub(crate) fn message_length(header: usize, body: usize) -> u64 {
    let length = RECORD_HEAD
        .saturating_add(MESSAGE_HEAD)
        .saturating_add(header)
        .saturating_add(body);
    length.try_into().unwrap_or(u64::MAX)
}

/// The payload of a message before its header.
pub(super) fn message_head(meta: &Meta, header: u32) -> [u8; MESSAGE_HEAD] {
    let mut head = [0; MESSAGE_HEAD];
    write_fields(
        &mut head,
        &[
            meta.recipient.as_bytes(),
            meta.neighbour.as_bytes(),
            &meta.hash.0,
            &meta.stored_at.0.to_le_bytes(),
            &meta.keep_until.0.to_le_bytes(),
            &[meta.retention.number()],
            &header.to_le_bytes(),
        ],
    );
    head
}

/// The head of a new segment.
pub(crate) fn segment_head(segment: u32, salt: u32) -> [u8; SEGMENT_HEAD as usize] {
    versioned_head(LOG_FORMAT, segment, salt)
}

fn versioned_head(version: u8, segment: u32, salt: u32) -> [u8; SEGMENT_HEAD as usize] {
    let mut head = [0; SEGMENT_HEAD as usize];
    let (number, salt) = (segment.to_le_bytes(), salt.to_le_bytes());
    let mut fields = [&SEGMENT_MAGIC[..], &[version, 0], &number, &salt, &[]];
    write_fields(&mut head, &fields);
    let check = crc32fast::hash(head.first_chunk::<16>().unwrap_or(&[0; 16])).to_le_bytes();
    fields[4] = &check;
    write_fields(&mut head, &fields);
    head
}

/// Reads the head of a segment.
pub(crate) fn read_segment_head(bytes: &[u8], segment: u32) -> SegmentHead {
    let mut fields = bytes;
    let (Some(magic), Some([version, zero]), Some(number), Some(salt)) = (
        take::<6>(&mut fields),
        take::<2>(&mut fields),
        take::<4>(&mut fields),
        take::<4>(&mut fields),
    ) else {
        return SegmentHead::Damaged;
    };
    if magic != SEGMENT_MAGIC {
        return SegmentHead::Damaged;
    }
    let (number, salt) = (u32::from_le_bytes(number), u32::from_le_bytes(salt));
    if (version, zero, number, salt) == (1, 0, segment, 0) {
        return SegmentHead::Readable(Format::V1);
    }
    // Later versions keep this check, so that a changed byte is not taken for a later version.
    if bytes.first_chunk() != Some(&versioned_head(version, number, salt)) {
        SegmentHead::Damaged
    } else if version > LOG_FORMAT {
        SegmentHead::Newer(version)
    } else if number == segment {
        SegmentHead::Readable(Format::V2 { salt })
    } else {
        SegmentHead::Damaged
    }
}

/// The head of a batch.
pub(super) fn batch_head(segment: u32, salt: u32, length: u32, count: u32) -> [u8; BATCH_HEAD] {
    let mut head = [0; BATCH_HEAD];
    let (length, count) = (length.to_le_bytes(), count.to_le_bytes());
    let salt_bytes = salt.to_le_bytes();
    let check = Format::V2 { salt }
        .check(&[
            &BATCH_MAGIC,
            &length,
            &count,
            &salt_bytes,
            &segment.to_le_bytes(),
        ])
        .to_le_bytes();
    write_fields(
        &mut head,
        &[&BATCH_MAGIC, &length, &count, &salt_bytes, &check],
    );
    head
}

/// Reads the batch head that `bytes` starts with, if it checks.
///
/// Without a `format` it may be of any; that is for segments whose own head is damaged.
pub(super) fn read_batch_head(
    bytes: &[u8],
    segment: u32,
    format: Option<Format>,
) -> Option<BatchHead> {
    let mut fields = bytes;
    let magic = take::<4>(&mut fields)?;
    let length = u32::from_le_bytes(take(&mut fields)?);
    let count = u32::from_le_bytes(take(&mut fields)?);
    let (head, found) = match magic {
        BATCH_MAGIC_1 => {
            let numbers = [length, count, segment].map(u32::to_le_bytes);
            let check = Format::V1.check(&[&numbers[0], &numbers[1], &numbers[2]]);
            (take(&mut fields)? == check.to_le_bytes()).then_some((16, Format::V1))?
        }
        BATCH_MAGIC => {
            let salt = u32::from_le_bytes(take(&mut fields)?);
            let expected = batch_head(segment, salt, length, count);
            (bytes.first_chunk() == Some(&expected)).then_some((BATCH_HEAD, Format::V2 { salt }))?
        }
        _ => return None,
    };
    format
        .is_none_or(|format| format == found)
        .then_some(BatchHead {
            head,
            length: usize::try_from(length).ok()?,
            count: usize::try_from(count).ok()?,
            format: found,
        })
}

/// The head of a record with this payload.
pub(super) fn record_head(
    salt: u32,
    kind: u8,
    number: u64,
    payload: &[&[u8]],
) -> [u8; RECORD_HEAD] {
    let format = Format::V2 { salt };
    let length = payload.iter().map(|part| part.len()).sum::<usize>();
    let mut head = [0; RECORD_HEAD];
    write_fields(
        &mut head,
        &[
            &[0; 4],
            &format.check(payload).to_le_bytes(),
            &u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes(),
            &[kind],
            &number.to_le_bytes(),
        ],
    );
    let check = format.check(&[head.get(4..).unwrap_or_default()]);
    write_fields(&mut head, &[&check.to_le_bytes()]);
    head
}

/// Reads the record that `bytes` starts with, if its head checks; with version 1, if all of it does.
pub(super) fn read_frame(bytes: &[u8], format: Format) -> Option<Frame> {
    let mut fields = bytes;
    let check = u32::from_le_bytes(take(&mut fields)?);
    let payload_check = match format {
        Format::V1 => None,
        Format::V2 { .. } => Some(u32::from_le_bytes(take(&mut fields)?)),
    };
    let payload = usize::try_from(u32::from_le_bytes(take(&mut fields)?)).ok()?;
    let [kind] = take(&mut fields)?;
    let number = u64::from_le_bytes(take(&mut fields)?);
    if !matches!(kind, KIND_MESSAGE | KIND_DELETION) {
        return None;
    }
    let head = bytes.len().saturating_sub(fields.len());
    let length = head.checked_add(payload)?;
    let whole = match payload_check {
        None => {
            let checks = is_plausible(kind, number, fields.get(..payload)?)
                && format.check(&[bytes.get(4..length)?]) == check;
            checks.then_some(true)?
        }
        Some(payload_check) => {
            if format.check(&[bytes.get(4..head)?]) != check {
                return None;
            }
            fields
                .get(..payload)
                .is_some_and(|payload| format.check(&[payload]) == payload_check)
        }
    };
    Some(Frame {
        head,
        kind,
        number,
        length,
        whole,
    })
}

/// Whether a payload of version 1 may be one, before its check is computed.
fn is_plausible(kind: u8, number: u64, payload: &[u8]) -> bool {
    if kind == KIND_MESSAGE {
        read_message(payload).is_some()
    } else {
        number.checked_mul(8) == u64::try_from(payload.len()).ok()
    }
}

/// Everything about the message in a payload, and where its body begins.
fn read_message(payload: &[u8]) -> Option<(Meta, usize)> {
    let mut fields = payload;
    let meta = Meta {
        recipient: Recipient::from_bytes(take(&mut fields)?),
        neighbour: Neighbour::from_bytes(take(&mut fields)?),
        hash: DedupHash(take(&mut fields)?),
        stored_at: UnixSeconds(u64::from_le_bytes(take(&mut fields)?)),
        keep_until: UnixSeconds(u64::from_le_bytes(take(&mut fields)?)),
        retention: Retention::from_number(u8::from_le_bytes(take(&mut fields)?))?,
    };
    let header = usize::try_from(u32::from_le_bytes(take(&mut fields)?)).ok()?;
    let body = MESSAGE_HEAD.checked_add(header)?;
    (body <= payload.len()).then_some((meta, body))
}

impl Frame {
    /// The record that `bytes` starts with; `None` if the frame is not whole.
    pub(super) fn entry(&self, bytes: &[u8]) -> Option<Entry> {
        let payload = bytes.get(self.head..self.length).filter(|_| self.whole)?;
        if self.kind == KIND_MESSAGE {
            let (meta, _) = read_message(payload)?;
            let id = RowId(self.number);
            return Some(Entry::Message { id, meta });
        }
        let (rows, []) = payload.as_chunks::<8>() else {
            return None;
        };
        let rows = rows.iter().map(|row| RowId(u64::from_le_bytes(*row)));
        Some(Entry::Deletion(rows.collect()))
    }
}

/// The message in a record; `None` if it does not check.
pub(crate) fn stored_record(bytes: &Bytes, format: Format) -> Option<StoredRecord> {
    let frame = read_frame(bytes, format).filter(|frame| frame.whole)?;
    if frame.kind != KIND_MESSAGE || frame.length != bytes.len() {
        return None;
    }
    let payload = bytes.slice(frame.head..);
    let (meta, body) = read_message(&payload)?;
    Some(StoredRecord {
        id: RowId(frame.number),
        recipient: meta.recipient,
        stored_at: meta.stored_at,
        keep_until: meta.keep_until,
        hash: meta.hash,
        retention: meta.retention,
        header: payload.slice(MESSAGE_HEAD..body),
        body: payload.slice(body..),
    })
}

/// Splits the first `N` bytes off.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Writes fields one after the other; they must fit.
fn write_fields(mut target: &mut [u8], fields: &[&[u8]]) {
    for field in fields {
        let Some((here, rest)) = target.split_at_mut_checked(field.len()) else {
            return;
        };
        here.copy_from_slice(field);
        target = rest;
    }
}
