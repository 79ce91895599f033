//! The segment log: its bytes, how a batch is put together, how a segment is read, and the files.

mod buffer;
mod format;
mod record;
mod segments;
mod walk;

pub(crate) use buffer::BatchBuffer;
pub(crate) use format::{
    Format, LOG_FORMAT, LogPosition, Place, SEGMENT_HEAD, SegmentHead, read_segment_head, take,
};
pub(crate) use record::{Entry, Meta, message_length, stored_record};
pub(crate) use segments::{Log, Segment, Segments, segment_name, segment_number};
pub(crate) use walk::{detect, walk};

#[cfg(test)]
mod tests;
