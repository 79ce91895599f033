//! The log on the disk: one segment being written, others being read.

use std::{io, sync::Arc};

use super::{
    books::LogPosition,
    log::{BatchBuffer, SEGMENT_HEAD, segment_head},
    shared::Shared,
};
use crate::disk::{Disk, DiskFile};

/// Longest segment, in bytes: places in it are 32-bit numbers, and the last batch may reach beyond.
const MAX_SEGMENT_BYTES: u32 = 1 << 31;

/// The writing end of the log.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    active: Option<Active>,
    /// The number of the next segment.
    next: u32,
    segment_bytes: u32,
}

#[derive(Debug)]
struct Active {
    number: u32,
    file: DiskFile,
    tail: u32,
}

/// A batch that was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: DiskFile,
    /// Whether the segment is new, and its name not durable.
    pub(super) begun: bool,
}

impl Log {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        next: u32,
        segment_bytes: u32,
    ) -> Self {
        Self {
            disk,
            shared,
            active: None,
            next,
            segment_bytes: segment_bytes.min(MAX_SEGMENT_BYTES),
        }
    }

    /// Where the next batch will begin.
    pub(super) fn position(&self) -> LogPosition {
        match &self.active {
            Some(active) if active.tail < self.segment_bytes => LogPosition {
                segment: active.number,
                offset: active.tail,
            },
            _ => LogPosition {
                segment: self.next,
                offset: SEGMENT_HEAD,
            },
        }
    }

    /// The segment being written.
    pub(super) fn active(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.number)
    }

    /// Writes a batch at [`Log::position`]. After a failure nothing of it counts.
    pub(super) fn write(&mut self, batch: &mut BatchBuffer) -> io::Result<Written> {
        let position = self.position();
        let begun = self
            .active
            .as_ref()
            .is_none_or(|active| active.number != position.segment);
        if begun {
            self.active = None;
            let file = self.disk.open(&segment_name(position.segment))?;
            // Numbers are not used twice, also not after a failure below: what lies in the file is not known.
            self.next = position.segment.saturating_add(1);
            if let Err(error) = file.write(0, &segment_head(position.segment)) {
                let _ = self.disk.remove(&segment_name(position.segment));
                return Err(error);
            }
            self.shared.add_segment(position.segment, file.clone());
            self.active = Some(Active {
                number: position.segment,
                file,
                tail: SEGMENT_HEAD,
            });
        }
        let Some(active) = &mut self.active else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let bytes = batch.seal(active.number);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        if let Err(error) = active.file.write(active.tail.into(), bytes) {
            self.cut();
            return Err(error);
        }
        active.tail = active.tail.saturating_add(length);
        Ok(Written {
            file: active.file.clone(),
            begun,
        })
    }

    /// Gives up the last batch, and the segment from there on.
    ///
    /// What was written may or may not be there after a restart; shortening the file makes it not. If that fails
    /// too, a batch that was refused may come back with a restart, whole or not at all.
    pub(super) fn retract(&mut self, to: LogPosition) {
        if let Some(active) = &mut self.active
            && active.number == to.segment
        {
            active.tail = to.offset;
        }
        self.cut();
    }

    fn cut(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        if active.tail > SEGMENT_HEAD {
            let _ = active.file.set_len(active.tail.into());
        } else {
            self.shared.remove_segment(active.number);
            let _ = self.disk.remove(&segment_name(active.number));
        }
    }
}

/// The file of a segment.
pub(super) fn segment_name(number: u32) -> String {
    format!("segment-{number:010}.log")
}

/// The segment in a file of that name.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?
        .strip_suffix(".log")?
        .parse()
        .ok()
}
