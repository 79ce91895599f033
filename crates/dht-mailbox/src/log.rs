//! The segment log: its bytes, how a batch is put together, how a segment is read, and the files.

mod buffer;
mod format;
mod segments;
mod walk;

pub(crate) use buffer::BatchBuffer;
pub(crate) use format::{
    Entry, Format, LOG_FORMAT, LogPosition, Meta, Place, SEGMENT_HEAD, SegmentHead, message_length,
    read_segment_head, stored_record, take,
};
pub(crate) use segments::{Log, Segment, Segments, segment_name, segment_number};
pub(crate) use walk::{detect, walk};

#[cfg(test)]
mod tests;
