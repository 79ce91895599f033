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

/// A row with a field for a length and its seal.
pub(crate) trait Sealed: Value + 'static {
    fn field<'a>(row: &'a mut Self::SelfType<'_>) -> &'a mut u64;
}

/// Seals a row that has the bare length.
pub(crate) fn seal_row<V: Sealed>(id: u64, row: &mut V::SelfType<'_>) {
    let seal = seal_of::<V>(id, row);
    *V::field(row) |= seal;
}

/// The row with the bare length, if it is what was written.
pub(crate) fn check_row<V: Sealed>(
    id: u64,
    mut row: V::SelfType<'_>,
) -> Result<V::SelfType<'_>, SpoolError> {
    let field = *V::field(&mut row);
    *V::field(&mut row) = length(field);
    let seal = field - length(field);
    match seal == 0 || seal == seal_of::<V>(id, &row) {
        true => Ok(row),
        false => Err(SpoolError::Damaged),
    }
}

/// Whether an encoded row, whose field lies at `at`, has a seal and is what was written.
pub(crate) fn is_sealed(id: u64, row: &[u8], at: usize) -> bool {
    let Some((before, rest)) = row.split_at_checked(at + 4) else {
        return false;
    };
    let Some((seal, behind)) = rest.split_first_chunk() else {
        return false;
    };
    let mut crc = crc32fast::Hasher::new();
    for part in [&id.to_le_bytes(), before, &[0; 4], behind] {
        crc.update(part);
    }
    u32::from_le_bytes(*seal) == crc.finalize().max(1)
}

fn seal_of<V: Value>(id: u64, bare: &V::SelfType<'_>) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_le_bytes());
    crc.update(V::as_bytes(bare).as_ref());
    u64::from(crc.finalize().max(1)) << LENGTH_BITS
}

/// Copies a payload if it has the length and the CRC-32 of the one that was written.
pub(crate) fn check(payload: &[u8], bytes: u64, crc: u32) -> Result<Bytes, SpoolError> {
    if payload.len() as u64 == bytes && crc32fast::hash(payload) == crc {
        Ok(Bytes::copy_from_slice(payload))
    } else {
        Err(SpoolError::Damaged)
    }
}
