//! The copy of the index beside the log, so that opening reads only the log's end.
//!
//! A copy holds every row whose record lies before a position of the log, as rows are while it is written: the log from
//! that position on is read after it, and applying a part of it again changes nothing. All numbers are little-endian.
//!
//! | Part | Bytes | Field |
//! |---|---|---|
//! | head | 8 | `DHTSAFI`, format version |
//! | | 4, 4 | position: segment, offset |
//! | | 8, 8 | next row, second of the newest row |
//! | | 4 | CRC-32 of the bytes before |
//! | block | 4 | number of rows; 0 in the last block |
//! | | 4 | CRC-32 of the number and the rows |
//! | row | 8 | number |
//! | | 32, 32, 32 | recipient, deliverer, content hash |
//! | | 8, 8 | stored at, keep until |
//! | | 4, 4, 4 | segment, offset, length |
//! | | 1 | retention |
//! | last block | 8 | number of all rows, in place of rows |

use std::{io, sync::Arc};

use dht_core::{DedupHash, Deliverer, UnixSeconds};
use parking_lot::RwLock;

use crate::{
    config::StoreConfig,
    disk::{Disk, DiskFile},
    index::{Index, Loader},
    log::{LogPosition, Meta, Place, take},
    record::{Recipient, Retention, RowId},
};

/// The file of the copy.
pub(crate) const COPY_NAME: &str = "index.copy";
/// The file of a copy that is being written.
pub(crate) const NEW_COPY_NAME: &str = "index.copy.new";

const MAGIC: [u8; 8] = *b"DHTSAFI\x01";
const HEAD: usize = 36;
const ROW: usize = 133;
/// Rows in a block: the index is locked for reading while they are collected, some 50 microseconds.
const BLOCK_ROWS: usize = 512;
/// Bytes written between two syncs, so that a sync of the log never waits for much more than this.
const SYNC_BYTES: u64 = 4 << 20;

/// Up to where a copy is complete, and what goes on from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CopyHead {
    pub(crate) position: LogPosition,
    pub(crate) next_row: u64,
    pub(crate) newest: UnixSeconds,
}

/// A copy as opening found it.
#[derive(Debug)]
pub(crate) enum Copied {
    Missing,
    /// Cut short, changed, or of a later version.
    Damaged,
    Whole {
        head: CopyHead,
        rows: Box<Loader>,
        bytes: u64,
    },
}

/// Writes a copy to a new file, makes it durable, and puts it in the place of the old one. Returns its bytes.
///
/// The log must be durable up to the position in `head`.
///
/// # Errors
/// When the device fails; then the old copy is still there.
pub(crate) fn write(disk: &dyn Disk, index: &RwLock<Index>, head: CopyHead) -> io::Result<u64> {
    let mut writer = Writer {
        file: disk.open(NEW_COPY_NAME)?,
        written: 0,
        synced: 0,
    };
    writer.file.set_size(0)?;
    writer.append(&head.to_bytes())?;
    let (mut next, mut total) = (Some(RowId(0)), 0_u64);
    let mut block = Vec::new();
    while let Some(from) = next {
        let (rows, after) = index.read().rows_from(from, BLOCK_ROWS);
        next = after;
        block.clear();
        let before = |place: &Place| {
            let Place {
                segment, offset, ..
            } = *place;
            LogPosition { segment, offset } < head.position
        };
        for (id, meta, place) in rows.iter().filter(|(_, _, place)| before(place)) {
            put_row(&mut block, *id, meta, *place);
        }
        let count = block.len() / ROW;
        total = total.saturating_add(count as u64);
        if count > 0 {
            writer.block(u32::try_from(count).unwrap_or(u32::MAX), &block)?;
        }
    }
    writer.block(0, &total.to_le_bytes())?;
    writer.file.sync()?;
    disk.rename(NEW_COPY_NAME, COPY_NAME)?;
    disk.sync_names()?;
    Ok(writer.written)
}

/// Reads the copy, if `names` has one.
///
/// # Errors
/// When the device fails.
pub(crate) fn read(disk: &dyn Disk, names: &[String], config: &StoreConfig) -> io::Result<Copied> {
    if !names.iter().any(|name| name == COPY_NAME) {
        return Ok(Copied::Missing);
    }
    let mut reader = Reader {
        file: disk.open(COPY_NAME)?,
        at: 0,
    };
    match reader.copy(config) {
        Ok(Some((head, rows))) => Ok(Copied::Whole {
            head,
            rows: Box::new(rows),
            bytes: reader.at,
        }),
        Ok(None) => Ok(Copied::Damaged),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Copied::Damaged),
        Err(error) => Err(error),
    }
}

struct Writer {
    file: Arc<dyn DiskFile>,
    written: u64,
    synced: u64,
}

struct Reader {
    file: Arc<dyn DiskFile>,
    at: u64,
}

// === impl Writer ===

impl Writer {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(self.written, bytes)?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written.saturating_sub(self.synced) >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    fn block(&mut self, count: u32, payload: &[u8]) -> io::Result<()> {
        let count = count.to_le_bytes();
        let check = check(&[&count, payload]).to_le_bytes();
        self.append(&[&count[..], &check, payload].concat())
    }
}

// === impl Reader ===

impl Reader {
    /// `None` if a check does not hold.
    fn copy(&mut self, config: &StoreConfig) -> io::Result<Option<(CopyHead, Loader)>> {
        let bytes = self.take(HEAD)?;
        let Some(head) = CopyHead::from_bytes(&bytes) else {
            return Ok(None);
        };
        let mut loader = Loader::new(config);
        let mut total = 0_u64;
        loop {
            let (first, expected) = (self.take(4)?, self.take(4)?);
            let count = first
                .first_chunk()
                .map_or(0, |count| u32::from_le_bytes(*count));
            if count as usize > BLOCK_ROWS {
                return Ok(None);
            }
            let length = if count == 0 { 8 } else { count as usize * ROW };
            let payload = self.take(length)?;
            if expected != check(&[&first, &payload]).to_le_bytes() {
                return Ok(None);
            }
            if count == 0 {
                return Ok((payload == total.to_le_bytes()).then_some((head, loader)));
            }
            total = total.saturating_add(count.into());
            for row in payload.as_chunks::<ROW>().0 {
                if !get_row(row).is_some_and(|(id, meta, place)| loader.add(id, &meta, place)) {
                    return Ok(None);
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.file.read(self.at, &mut bytes)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(bytes)
    }
}

// === impl CopyHead ===

impl CopyHead {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.position.segment.to_le_bytes());
        bytes.extend_from_slice(&self.position.offset.to_le_bytes());
        bytes.extend_from_slice(&self.next_row.to_le_bytes());
        bytes.extend_from_slice(&self.newest.0.to_le_bytes());
        bytes.extend_from_slice(&check(&[&bytes]).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.strip_prefix(&MAGIC)?;
        let head = Self {
            position: LogPosition {
                segment: u32::from_le_bytes(take(&mut fields)?),
                offset: u32::from_le_bytes(take(&mut fields)?),
            },
            next_row: u64::from_le_bytes(take(&mut fields)?),
            newest: UnixSeconds(u64::from_le_bytes(take(&mut fields)?)),
        };
        (head.to_bytes() == bytes).then_some(head)
    }
}

fn put_row(bytes: &mut Vec<u8>, id: RowId, meta: &Meta, place: Place) {
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(meta.recipient.as_bytes());
    bytes.extend_from_slice(meta.deliverer.as_bytes());
    bytes.extend_from_slice(&meta.hash.0);
    bytes.extend_from_slice(&meta.stored_at.0.to_le_bytes());
    bytes.extend_from_slice(&meta.keep_until.0.to_le_bytes());
    for number in [place.segment, place.offset, place.length] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.push(meta.retention.number());
}

fn get_row(row: &[u8; ROW]) -> Option<(RowId, Meta, Place)> {
    let mut fields = &row[..];
    let id = RowId(u64::from_le_bytes(take(&mut fields)?));
    let (recipient, deliverer) = (take(&mut fields)?, take(&mut fields)?);
    let hash = DedupHash(take(&mut fields)?);
    let stored_at = UnixSeconds(u64::from_le_bytes(take(&mut fields)?));
    let keep_until = UnixSeconds(u64::from_le_bytes(take(&mut fields)?));
    let place = Place {
        segment: u32::from_le_bytes(take(&mut fields)?),
        offset: u32::from_le_bytes(take(&mut fields)?),
        length: u32::from_le_bytes(take(&mut fields)?),
    };
    let meta = Meta {
        recipient: Recipient::from_bytes(recipient),
        deliverer: Deliverer::from_bytes(deliverer),
        hash,
        stored_at,
        keep_until,
        retention: Retention::from_number(u8::from_le_bytes(take(&mut fields)?))?,
    };
    Some((id, meta, place))
}

fn check(parts: &[&[u8]]) -> u32 {
    let mut check = crc32fast::Hasher::new();
    parts.iter().for_each(|part| check.update(part));
    check.finalize()
}
