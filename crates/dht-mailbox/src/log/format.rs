//! The bytes of a segment: a head, then batches, each of whole records.
//!
//! All numbers are little-endian. Checks are CRC-32 that begin at the segment's salt, a number that is secret to
//! this node: a message whose body looks like a record is not taken for one when a damaged segment is searched.
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
//! | message | 32, 32, 32 | recipient, deliverer, content hash |
//! | | 8, 8 | stored at, keep until (Unix seconds) |
//! | | 1 | retention: 1 or 10 |
//! | | 4 | bytes of the header; header and body follow |
//! | deletion | 8 each | rows |
//!
//! Version 1, which is still read, has no salt: its segment head ends with four zeros instead of salt and check, its batch
//! head is `SAFB`, the two numbers, and a CRC-32 of them and the segment number, and its record head has one CRC-32 of
//! everything after it instead of two checks.

/// Bytes before the first batch of a segment that this version writes.
pub(crate) const SEGMENT_HEAD: u32 = 20;
/// The format that this version writes.
pub(crate) const LOG_FORMAT: u8 = 2;
/// Bytes of a batch head that this version writes.
pub(super) const BATCH_HEAD: usize = 20;
const SEGMENT_MAGIC: [u8; 6] = *b"DHTSAF";
const BATCH_MAGIC: [u8; 4] = *b"SAFC";
const BATCH_MAGIC_1: [u8; 4] = *b"SAFB";

/// How the batches of a segment are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Without a salt.
    V1,
    V2 {
        salt: u32,
    },
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

/// The head of a segment, decoded.
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

/// Splits the first `N` bytes off.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
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
