//! A batch while it is being put together.

use super::{
    format::{BATCH_HEAD, batch_head},
    record::{KIND_DELETION, KIND_MESSAGE, Meta, message_head, record_head},
};
use crate::record::RowId;

/// The bytes of a batch for one segment.
#[derive(Debug, Default)]
pub(crate) struct BatchBuffer {
    bytes: Vec<u8>,
    salt: u32,
    records: u32,
    /// Rows that come or go.
    rows: u64,
}

impl BatchBuffer {
    /// Begins a batch for a segment with this salt.
    pub(crate) fn begin(&mut self, salt: u32) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; BATCH_HEAD]);
        (self.salt, self.records, self.rows) = (salt, 0, 0);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of the batch, its head included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Rows that come or go with this batch.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a message; returns where it starts within the batch and how many bytes it takes.
    pub(crate) fn message(
        &mut self,
        id: RowId,
        meta: &Meta,
        header: &[u8],
        body: &[u8],
    ) -> (usize, usize) {
        let head = message_head(meta, header.len().try_into().unwrap_or(u32::MAX));
        self.rows = self.rows.saturating_add(1);
        self.record(KIND_MESSAGE, id.0, &[&head, header, body])
    }

    /// Adds the record that these rows are gone.
    pub(crate) fn deletion(&mut self, rows: &[RowId]) {
        let payload: Vec<u8> = rows.iter().flat_map(|row| row.0.to_le_bytes()).collect();
        let count = rows.len().try_into().unwrap_or(u64::MAX);
        self.rows = self.rows.saturating_add(count);
        self.record(KIND_DELETION, count, &[&payload]);
    }

    /// The finished batch for this segment.
    pub(crate) fn seal(&mut self, segment: u32) -> &[u8] {
        let length = self.bytes.len().saturating_sub(BATCH_HEAD);
        // The limit of a batch keeps it far below 4 GiB.
        let length = length.try_into().unwrap_or(u32::MAX);
        let head = batch_head(segment, self.salt, length, self.records);
        if let Some(target) = self.bytes.first_chunk_mut() {
            *target = head;
        }
        &self.bytes
    }

    fn record(&mut self, kind: u8, number: u64, payload: &[&[u8]]) -> (usize, usize) {
        let start = self.bytes.len();
        let head = record_head(self.salt, kind, number, payload);
        self.bytes.extend_from_slice(&head);
        for part in payload {
            self.bytes.extend_from_slice(part);
        }
        self.records = self.records.saturating_add(1);
        (start, self.bytes.len().saturating_sub(start))
    }
}
