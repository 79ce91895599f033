//! Checksums of rows: what was written is what is read.
//!
//! A row has a field for a length below 2^32. The upper half of this field is the row's seal: the CRC-32 of its id and of the
//! row as it is encoded with the bare length, 1 if that is 0. The payload's CRC-32 is a field of the row. Rows of format 1 have
//! no seal and are believed; they stay as they are until they are written again.

use bytes::Bytes;
use redb::Value;

use crate::error::SpoolError;

const LENGTH_BITS: u32 = 32;

/// The length in a field that may carry a seal.
pub(crate) const fn length(field: u64) -> u64 {
    field & ((1 << LENGTH_BITS) - 1)
}

/// The field of a row that is encoded with its bare length.
pub(crate) fn seal<V: Value>(id: u64, length: u64, bare: &V::SelfType<'_>) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_le_bytes());
    crc.update(V::as_bytes(bare).as_ref());
    u64::from(crc.finalize().max(1)) << LENGTH_BITS | length
}

/// Whether a row is what was written.
pub(crate) fn is_whole<V: Value>(id: u64, field: u64, bare: &V::SelfType<'_>) -> bool {
    field >> LENGTH_BITS == 0 || seal::<V>(id, length(field), bare) == field
}

/// Copies a payload if it has the length and the CRC-32 of the one that was written.
pub(crate) fn check(payload: &[u8], bytes: u64, crc: u32) -> Result<Bytes, SpoolError> {
    if payload.len() as u64 == bytes && crc32fast::hash(payload) == crc {
        Ok(Bytes::copy_from_slice(payload))
    } else {
        Err(SpoolError::Damaged)
    }
}
