//! Giving back the room of rows that are gone: what lives in a segment that is mostly dead is written once more at the
//! end of the log.

use std::collections::BTreeSet;

use super::{batch::Batch, reader, shared::Shared};
use crate::{error::StoreError, record::RowId};

/// Bytes written in one commit.
const STEP_BYTES: u64 = 1 << 20;
/// Rows of the index looked at in one commit, some 500 microseconds.
const STEP_ROWS: usize = 8_192;
/// Dead bytes in a hundred that the log may hold before a segment is emptied.
const GARBAGE_PERCENT: u64 = 25;
/// Live bytes in a hundred above which emptying a segment is not worth it.
const LIVE_PERCENT: u64 = 75;

/// The segment being emptied, if any.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    emptying: Option<Emptying>,
    /// Segments that could not be read; their rows stay until they expire.
    avoid: BTreeSet<u32>,
    /// Whether to look for a segment.
    due: bool,
}

#[derive(Debug)]
struct Emptying {
    segment: u32,
    /// Where to go on looking for its rows.
    next: Option<RowId>,
    /// Its rows that are found and not moved, by place; the last is moved first.
    rows: Vec<(u32, RowId)>,
}

impl Compaction {
    pub(super) const fn has_work(&self) -> bool {
        self.emptying.is_some()
    }

    /// Looks for a segment at the next occasion.
    pub(super) const fn set_due(&mut self) {
        self.due = true;
    }

    /// Stops after a failure. Rows that were moved stay moved.
    pub(super) fn abandon(&mut self) {
        self.emptying = None;
    }

    /// Chooses the segment with the least alive, if the log holds too much that is dead.
    pub(super) fn choose(&mut self, shared: &Shared, active: Option<u32>, segment_bytes: u32) {
        if self.emptying.is_some() || !std::mem::take(&mut self.due) {
            return;
        }
        let lengths = shared.segments.lengths();
        let index = shared.index.read();
        let (mut total, mut live) = (0_u64, 0_u64);
        let mut best: Option<(u64, u32)> = None;
        for (number, length) in lengths {
            let used = index.segments().get(&number).copied().unwrap_or_default();
            // Without rows it goes anyway.
            if used.rows == 0 || Some(number) == active || self.avoid.contains(&number) {
                continue;
            }
            total = total.saturating_add(length);
            live = live.saturating_add(used.bytes);
            let alive = used
                .bytes
                .saturating_mul(100)
                .checked_div(length)
                .unwrap_or(100);
            if alive < best.map_or(LIVE_PERCENT, |(least, _)| least) {
                best = Some((alive, number));
            }
        }
        let garbage = total.saturating_sub(live);
        let allowed = (total / 100)
            .saturating_mul(GARBAGE_PERCENT)
            .saturating_add(segment_bytes.into());
        if garbage > allowed {
            self.emptying = best.map(|(_, segment)| Emptying {
                segment,
                next: Some(RowId(0)),
                rows: Vec::new(),
            });
        }
    }

    /// Finds rows of the segment, or moves some of them.
    ///
    /// # Errors
    /// When the segment cannot be read; it is left alone from then on.
    pub(super) fn step(
        &mut self,
        batch: &mut Batch<'_>,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let Some(emptying) = &mut self.emptying else {
            return Ok(());
        };
        if let Some(from) = emptying.next {
            emptying.find(from, shared);
            return Ok(());
        }
        let moved = emptying.move_rows(batch, shared);
        if moved.is_err() {
            self.avoid.insert(emptying.segment);
        }
        if moved.is_err() || emptying.rows.is_empty() {
            self.emptying = None;
            self.due = true;
        }
        moved
    }
}

impl Emptying {
    fn find(&mut self, from: RowId, shared: &Shared) {
        let index = shared.index.read();
        let (places, next) = index.places_from(from, STEP_ROWS);
        drop(index);
        self.next = next;
        let here = places
            .into_iter()
            .filter(|(_, place)| place.segment == self.segment);
        self.rows.extend(here.map(|(id, place)| (place.offset, id)));
        if next.is_none() {
            // The last first.
            self.rows.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    fn move_rows(&mut self, batch: &mut Batch<'_>, shared: &Shared) -> Result<(), StoreError> {
        let segment = shared.segments.get(self.segment);
        let mut bytes = 0_u64;
        while bytes < STEP_BYTES
            && let Some((_, id)) = self.rows.last().copied()
        {
            let row = shared.index.read().row(id);
            if let Some((meta, place)) = row
                && place.segment == self.segment
            {
                match reader::read(segment.as_ref(), id, place)? {
                    Some(record) => batch.relocate(id, &meta, &record),
                    None => {
                        shared.note_damage(id);
                        batch.drop_damaged(id);
                    }
                }
                bytes = bytes.saturating_add(place.length.into());
            }
            self.rows.pop();
        }
        Ok(())
    }
}
