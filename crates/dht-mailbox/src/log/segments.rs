//! The files of the log: one segment that is written, others that are read.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io,
    sync::Arc,
};

use parking_lot::RwLock;

use super::{
    buffer::BatchBuffer,
    format::{Format, LogPosition, SEGMENT_HEAD, segment_head},
};
use crate::disk::{Disk, DiskFile};

/// Longest segment, in bytes: places in it are 32-bit numbers, and the last batch may reach beyond.
const MAX_SEGMENT_BYTES: u32 = 1 << 31;

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) format: Format,
    /// Bytes that are written.
    pub(crate) length: u64,
}

/// The open segments by number, for readers and the writer.
#[derive(Debug, Default)]
pub(crate) struct Segments(RwLock<BTreeMap<u32, Segment>>);

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    active: Option<Active>,
    /// The number of the next segment.
    next: u32,
    /// The salt of the next segment.
    next_salt: u32,
    segment_bytes: u32,
}

#[derive(Debug)]
struct Active {
    number: u32,
    salt: u32,
    file: Arc<dyn DiskFile>,
    tail: u32,
}

/// A batch that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) segment: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whether the segment is new, and its name not durable.
    pub(crate) begun: bool,
}

// === impl Segments ===

impl Segments {
    pub(crate) fn get(&self, number: u32) -> Option<Segment> {
        self.0.read().get(&number).cloned()
    }

    pub(crate) fn insert(&self, number: u32, segment: Segment) {
        self.0.write().insert(number, segment);
    }

    pub(crate) fn remove(&self, number: u32) {
        self.0.write().remove(&number);
    }

    /// Numbers and lengths.
    pub(crate) fn lengths(&self) -> Vec<(u32, u64)> {
        let segments = self.0.read();
        segments
            .iter()
            .map(|(number, segment)| (*number, segment.length))
            .collect()
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.0
            .read()
            .values()
            .map(|segment| segment.length)
            .fold(0, u64::saturating_add)
    }

    fn set_length(&self, number: u32, length: u32) {
        if let Some(segment) = self.0.write().get_mut(&number) {
            segment.length = length.into();
        }
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segments: Arc<Segments>,
        next: u32,
        segment_bytes: u32,
    ) -> Self {
        Self {
            disk,
            segments,
            active: None,
            next,
            next_salt: new_salt(next),
            segment_bytes: segment_bytes.min(MAX_SEGMENT_BYTES),
        }
    }

    /// Where the next batch will begin.
    pub(crate) fn position(&self) -> LogPosition {
        match self.open() {
            Some(active) => LogPosition {
                segment: active.number,
                offset: active.tail,
            },
            None => LogPosition {
                segment: self.next,
                offset: SEGMENT_HEAD,
            },
        }
    }

    /// The salt of the segment in which the next batch will lie.
    pub(crate) fn salt(&self) -> u32 {
        self.open().map_or(self.next_salt, |active| active.salt)
    }

    /// The segment being written.
    pub(crate) fn active(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.number)
    }

    /// Writes a batch at [`Log::position`]. After a failure nothing of it counts.
    pub(crate) fn write(&mut self, batch: &mut BatchBuffer) -> io::Result<Written> {
        let begun = self.open().is_none();
        if begun {
            self.begin()?;
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
        self.segments.set_length(active.number, active.tail);
        Ok(Written {
            segment: active.number,
            file: active.file.clone(),
            begun,
        })
    }

    /// Gives up the last batch, and the segment from there on.
    ///
    /// A row that was written may or may not be there after a restart; shortening the file makes it not. If that fails
    /// too, messages of a batch that was refused may come back with a restart.
    pub(crate) fn retract(&mut self, to: LogPosition) {
        if let Some(active) = &mut self.active
            && active.number == to.segment
        {
            active.tail = to.offset;
        }
        self.cut();
    }

    /// The segment being written, if the next batch goes there.
    fn open(&self) -> Option<&Active> {
        self.active
            .as_ref()
            .filter(|active| active.tail < self.segment_bytes)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.active = None;
        let (number, salt) = (self.next, self.next_salt);
        let file = self.disk.open(&segment_name(number))?;
        // Numbers are not used twice, also not after a failure below: what lies in the file is not known.
        self.next = number.saturating_add(1);
        self.next_salt = new_salt(self.next);
        if let Err(error) = file.write(0, &segment_head(number, salt)) {
            let _ = self.disk.remove(&segment_name(number));
            return Err(error);
        }
        self.segments.insert(
            number,
            Segment {
                file: file.clone(),
                format: Format::V2 { salt },
                length: SEGMENT_HEAD.into(),
            },
        );
        self.active = Some(Active {
            number,
            salt,
            file,
            tail: SEGMENT_HEAD,
        });
        Ok(())
    }

    fn cut(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        if active.tail > SEGMENT_HEAD {
            self.segments.set_length(active.number, active.tail);
            let _ = active.file.set_size(active.tail.into());
        } else {
            self.segments.remove(active.number);
            let _ = self.disk.remove(&segment_name(active.number));
        }
    }
}

/// A salt that peers cannot guess: the standard library seeds its hashers from the operating system.
fn new_salt(segment: u32) -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(segment).to_le_bytes();
    u32::from_le_bytes([a | 1, b, c, d])
}

/// The file of a segment.
pub(crate) fn segment_name(number: u32) -> String {
    format!("segment-{number:010}.log")
}

/// The segment in a file of that name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?
        .strip_suffix(".log")?
        .parse()
        .ok()
}
