//! Giving back the room of rows that are gone: a segment that is mostly dead is read through, and what lives in it
//! is written once more at the end of the log.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    batch::Batch,
    books::Books,
    log::{BATCH_HEAD, Entry, SEGMENT_HEAD, read_batch_head, read_record},
    shared::Shared,
};
use crate::{disk::DiskFile, error::StoreError, record::RowId};

/// Bytes read in one commit.
const STEP_BYTES: u64 = 1 << 20;
/// Dead bytes in a hundred that the log may hold before a segment is read through.
const GARBAGE_PERCENT: u64 = 25;
/// Live bytes in a hundred above which reading a segment through is not worth it.
const LIVE_PERCENT: u64 = 75;

/// The segment being read through, if any.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    reading: Option<Reading>,
    /// Segments that could not be read; their rows stay until they expire.
    avoid: BTreeSet<u32>,
    /// Whether to look for a segment.
    due: bool,
}

#[derive(Debug)]
struct Reading {
    segment: u32,
    offset: u64,
    end: u64,
    /// Where the batch ends whose records are being read.
    batch_end: u64,
}

impl Compaction {
    pub(super) const fn has_work(&self) -> bool {
        self.reading.is_some()
    }

    /// The segment that must not be removed now.
    pub(super) fn reading(&self) -> Option<u32> {
        self.reading.as_ref().map(|reading| reading.segment)
    }

    /// Looks for a segment at the next occasion.
    pub(super) const fn set_due(&mut self) {
        self.due = true;
    }

    /// Stops; after a failure. What was moved stays moved.
    pub(super) fn abandon(&mut self) {
        self.reading = None;
    }

    /// Chooses the segment with the least alive, if the log holds too much that is dead.
    pub(super) fn choose(
        &mut self,
        books: &Books,
        shared: &Shared,
        active: Option<u32>,
        segment_bytes: u32,
    ) {
        if self.reading.is_some() || !std::mem::take(&mut self.due) {
            return;
        }
        let (mut total, mut live) = (0_u64, 0_u64);
        let mut best: Option<(u64, Reading)> = None;
        for (number, used) in &books.segments {
            // Without rows it goes anyway.
            if used.rows == 0 || Some(*number) == active || self.avoid.contains(number) {
                continue;
            }
            let Some(length) = shared.segment(*number).and_then(|file| file.len().ok()) else {
                continue;
            };
            total = total.saturating_add(length);
            live = live.saturating_add(used.bytes);
            let alive = used
                .bytes
                .saturating_mul(100)
                .checked_div(length)
                .unwrap_or(100);
            if alive < best.as_ref().map_or(LIVE_PERCENT, |(least, _)| *least) {
                let start = u64::from(SEGMENT_HEAD);
                best = Some((
                    alive,
                    Reading {
                        segment: *number,
                        offset: start,
                        end: length,
                        batch_end: start,
                    },
                ));
            }
        }
        let garbage = total.saturating_sub(live);
        let allowed = (total / 100)
            .saturating_mul(GARBAGE_PERCENT)
            .saturating_add(segment_bytes.into());
        if garbage > allowed {
            self.reading = best.map(|(_, reading)| reading);
        }
    }

    /// Reads on and moves what lives.
    pub(super) fn step(
        &mut self,
        batch: &mut Batch<'_, '_>,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let Some(file) = shared.segment(reading.segment) else {
            self.reading = None;
            return Ok(());
        };
        let chunk = reading.chunk(&file)?;
        let mut taken = 0_usize;
        while let Some(length) = reading.next(&chunk, taken, batch)? {
            taken = taken.saturating_add(length);
            reading.offset = reading
                .offset
                .saturating_add(length.try_into().unwrap_or(u64::MAX));
        }
        if reading.offset >= reading.end {
            self.reading = None;
            self.due = true;
        } else if taken == 0 {
            // Damaged. Its rows are found out one by one when somebody asks for them.
            self.avoid.insert(reading.segment);
            self.reading = None;
            self.due = true;
        }
        Ok(())
    }
}

impl Reading {
    fn chunk(&self, file: &DiskFile) -> Result<Bytes, StoreError> {
        let length = self.end.saturating_sub(self.offset).min(STEP_BYTES);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read(self.offset, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Deals with what lies at `at` in the chunk; how long it is, or `None` if it is not whole.
    fn next(
        &mut self,
        chunk: &Bytes,
        at: usize,
        batch: &mut Batch<'_, '_>,
    ) -> Result<Option<usize>, StoreError> {
        if at >= chunk.len() {
            return Ok(None);
        }
        let rest = chunk.slice(at..);
        if self.offset >= self.batch_end {
            let Some(length) = read_batch_head(&rest, self.segment) else {
                return Ok(None);
            };
            let head = u64::try_from(BATCH_HEAD).unwrap_or(u64::MAX);
            self.batch_end = self
                .offset
                .saturating_add(head)
                .saturating_add(length.into());
            return Ok(Some(BATCH_HEAD));
        }
        let Some((entry, length)) = read_record(&rest) else {
            return Ok(None);
        };
        if let Entry::Message {
            id, header, body, ..
        } = entry
        {
            self.keep(id, &header, &body, batch)?;
        }
        Ok(Some(length))
    }

    fn keep(
        &self,
        id: RowId,
        header: &[u8],
        body: &[u8],
        batch: &mut Batch<'_, '_>,
    ) -> Result<(), StoreError> {
        match batch.tables.row(id)? {
            Some(row)
                if row.place.segment == self.segment
                    && u64::from(row.place.offset) == self.offset =>
            {
                batch.relocate(id, &row, header, body)
            }
            _ => Ok(()),
        }
    }
}
