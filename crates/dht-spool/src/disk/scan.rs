//! Rows of a file whose tables cannot be found any more, as the page that names them is damaged.
//!
//! Redb's leaves are recognised by their layout, wherever they lie in the file, also those that are no longer part of a table: what is
//! found is only believed with its own checksum, and may be older than what was in the table. A checksum is no signature, and a
//! large value may have the bytes of a leaf in it: this is for values only that no peer chooses the bytes of.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    ops::Range,
};

use crate::error::SpoolError;

/// Pages begin at multiples of this (redb's `docs/design.md`).
const PAGE: usize = 4096;
/// First byte of a leaf; then one that is not used, and the number of entries.
const LEAF: u8 = 1;
/// Longest leaf that is read; a row is shorter.
const MAX_LEAF: usize = 16 << 20;
const KEY: usize = 8;
/// Length of the place of a value, or of a seal.
const WORD: usize = 4;

/// Visits the entries of everything that has the layout of a leaf with ids as keys. `width` is the length of the values; `None` if
/// they have several.
pub(crate) fn leaves(
    pages: &mut File,
    width: Option<usize>,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    let mut offset = 0;
    let mut leaf = Vec::new();
    loop {
        pages.seek(SeekFrom::Start(offset))?;
        leaf.resize(PAGE, 0);
        match pages.read_exact(&mut leaf) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let values = values(&leaf, width).unwrap_or_default();
        let length = values.last().map_or(0, |value| value.end);
        if length > PAGE {
            leaf.resize(length, 0);
            // Of a leaf in which the file ends, the values are not what was written.
            let _ = pages.read_exact(leaf.get_mut(PAGE..).unwrap_or_default());
        }
        let keys = leaf.get(keys_at(width, values.len())..).unwrap_or_default();
        for (key, value) in keys.as_chunks::<KEY>().0.iter().zip(values) {
            if let Some(value) = leaf.get(value) {
                visit(u64::from_le_bytes(*key), value)?;
            }
        }
        offset += PAGE as u64;
    }
}

/// Where the values of the leaf lie that begins with this page; `None` if it is none.
fn values(page: &[u8], width: Option<usize>) -> Option<Vec<Range<usize>>> {
    let (&[LEAF, _, low, high], _) = page.split_first_chunk()? else {
        return None;
    };
    let count = usize::from(u16::from_le_bytes([low, high]));
    let start = keys_at(width, count) + count * KEY;
    let mut from = start;
    let mut values = Vec::with_capacity(count);
    for at in 0..count {
        let end = match width {
            Some(width) => from + width,
            None => u32::from_le_bytes(*page.get(WORD * (at + 1)..)?.first_chunk()?) as usize,
        };
        if end < from || end > MAX_LEAF {
            return None;
        }
        values.push(from..end);
        from = end;
    }
    (start <= PAGE).then_some(values)
}

const fn keys_at(width: Option<usize>, count: usize) -> usize {
    match width {
        Some(_) => WORD,
        None => WORD + count * WORD,
    }
}
