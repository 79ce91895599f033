//! The bytes of a record: a message or a deletion. The table is in [`super::format`].

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, UnixSeconds};

use super::format::{Format, take, write_fields};
use crate::record::{Recipient, Retention, RowId, StoredRecord};

/// Bytes of a record head that this version writes.
pub(super) const RECORD_HEAD: usize = 21;
/// Bytes of a message's payload before its header.
const MESSAGE_HEAD: usize = 117;
pub(super) const KIND_MESSAGE: u8 = 1;
pub(super) const KIND_DELETION: u8 = 2;

/// Everything about a message except where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) recipient: Recipient,
    pub(crate) deliverer: Deliverer,
    pub(crate) hash: DedupHash,
    pub(crate) stored_at: UnixSeconds,
    pub(crate) keep_until: UnixSeconds,
    pub(crate) retention: Retention,
}

/// A record read back, without header and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Message { id: RowId, meta: Meta },
    Deletion(Vec<RowId>),
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
            meta.deliverer.as_bytes(),
            &meta.hash.0,
            &meta.stored_at.0.to_le_bytes(),
            &meta.keep_until.0.to_le_bytes(),
            &[meta.retention.number()],
            &header.to_le_bytes(),
        ],
    );
    head
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
        deliverer: Deliverer::from_bytes(take(&mut fields)?),
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
