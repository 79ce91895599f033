//! Reading a segment from one end to the other, past whatever is damaged.
//!
//! A message counts by itself, a deletion only in a batch that is whole: a batch that was never acknowledged, as it was
//! cut off by a power failure, must not take away a row that was.

use super::{
    format::{Format, SegmentHead, read_batch_head, read_segment_head},
    record::{Entry, Frame, read_frame},
};

/// A record in a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) entry: Entry,
}

/// The format of a segment whose bytes are these; `None` if no part of it can be read.
pub(crate) fn detect(bytes: &[u8], segment: u32) -> Option<Format> {
    if let SegmentHead::Readable(format) = read_segment_head(bytes, segment) {
        return Some(format);
    }
    (0..bytes.len()).find_map(|at| {
        let head = read_batch_head(bytes.get(at..)?, segment, None)?;
        Some(head.format)
    })
}

/// Reads the records of a segment from `from` on and hands over those that count, in order. Returns how many records
/// are damaged.
///
/// Unreadable bytes at the end of the segment are a write that was not finished, not damage.
pub(crate) fn walk(
    bytes: &[u8],
    segment: u32,
    format: Format,
    from: usize,
    mut apply: impl FnMut(Found),
) -> u64 {
    let mut walk = Walk {
        bytes,
        format,
        damaged: 0,
    };
    let mut at = from.max(format.segment_head());
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(head) = read_batch_head(rest, segment, Some(format)) else {
            at = walk.resume(at, segment, &mut apply);
            continue;
        };
        let start = at.saturating_add(head.head);
        let end = start.saturating_add(head.length);
        let found = walk.records(start, end.min(bytes.len()));
        let whole = end <= bytes.len() && found.len() == head.count;
        if end <= bytes.len() {
            let missing = head.count.saturating_sub(found.len());
            walk.damaged = walk.damaged.saturating_add(missing as u64);
        }
        found
            .into_iter()
            .filter(|found| whole || matches!(found.entry, Entry::Message { .. }))
            .for_each(&mut apply);
        at = end;
    }
    walk.damaged
}

struct Walk<'a> {
    bytes: &'a [u8],
    format: Format,
    damaged: u64,
}

impl Walk<'_> {
    /// The records that check between two places.
    fn records(&self, start: usize, end: usize) -> Vec<Found> {
        let mut records = Vec::new();
        let mut at = start;
        while at < end {
            let Some((frame, found)) = self.record(at, end) else {
                // Its length may be what is damaged: the next record is where the next one checks.
                at = at.saturating_add(1);
                continue;
            };
            records.extend(found);
            at = at.saturating_add(frame.length);
        }
        records
    }

    /// The record at a place, if its head checks; and what it says, if all of it does.
    fn record(&self, at: usize, end: usize) -> Option<(Frame, Option<Found>)> {
        let bytes = self.bytes.get(at..end)?;
        let frame = read_frame(bytes, self.format)?;
        let found = frame.entry(bytes).and_then(|entry| {
            Some(Found {
                offset: at.try_into().ok()?,
                length: frame.length.try_into().ok()?,
                entry,
            })
        });
        Some((frame, found))
    }

    /// Where a batch head does not check: hands over the messages up to the next one that does, and returns where that
    /// is.
    fn resume(&mut self, from: usize, segment: u32, apply: &mut impl FnMut(Found)) -> usize {
        let mut at = from;
        let mut anything = false;
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if at > from && read_batch_head(rest, segment, Some(self.format)).is_some() {
                anything = true;
                break;
            }
            match self.record(at, self.bytes.len()) {
                Some((frame, found)) => {
                    anything |= found.is_some();
                    found
                        .into_iter()
                        .filter(|found| matches!(found.entry, Entry::Message { .. }))
                        .for_each(&mut *apply);
                    at = at.saturating_add(frame.length);
                }
                None => at = at.saturating_add(1),
            }
        }
        self.damaged = self.damaged.saturating_add(anything.into());
        at
    }
}
