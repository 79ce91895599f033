//! Queries to a mailbox and their pages (05 sections 5 and 14).

use dht_core::UnixSeconds;

use crate::record::{Position, Recipient, RowId, StoredRecord};

/// Rows a response holds (`saf.max_returned_messages`, 05 section 11).
pub const DEFAULT_MAX_RETURNED: usize = 50;
/// Bytes of stored messages a response holds: 4 MiB, half of the 8 MiB frame (defect D9).
pub const DEFAULT_RESPONSE_BYTES: usize = 4 << 20;

/// Which rows a limit leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// The newest; the requester's next request begins where this answer ends.
    #[default]
    OldestFirst,
    /// The oldest, as in the reference: they are lost to a requester that goes by the newest second (defect D1).
    NewestFirst,
}

/// A question to one mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Recipient whose mailbox is read.
    pub recipient: Recipient,
    /// Only rows of this second and later.
    pub from: Option<UnixSeconds>,
    /// Only rows behind this place.
    pub after: Option<Position>,
    /// At most so many rows; 0 means none.
    pub limit: usize,
    /// At most so many bytes, but at least one row.
    pub max_bytes: usize,
    /// Which rows the limits leave out, and the order of the others.
    pub order: Order,
    /// The present; rows past their time are not served.
    pub now: UnixSeconds,
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The rows, in the order asked for.
    pub records: Vec<StoredRecord>,
    /// Whether a limit left rows out.
    pub more: bool,
    /// Bytes the rows take in the store.
    pub bytes: usize,
}

impl Query {
    /// Everything in a mailbox, up to the default limits.
    #[must_use]
    pub const fn all(recipient: Recipient, now: UnixSeconds) -> Self {
        Self {
            recipient,
            from: None,
            after: None,
            limit: DEFAULT_MAX_RETURNED,
            max_bytes: DEFAULT_RESPONSE_BYTES,
            order: Order::OldestFirst,
            now,
        }
    }

    /// The first and the last place asked for; no first place if `after` is the very last one.
    pub(crate) fn bounds(&self) -> (Option<Position>, Position) {
        let from = Position {
            stored_at: self.from.unwrap_or_default(),
            id: RowId(0),
        };
        let first = match self.after {
            None => Some(from),
            Some(after) => after.next().map(|next| next.max(from)),
        };
        let stored_at = UnixSeconds(u64::MAX);
        let id = RowId(u64::MAX);
        (first, Position { stored_at, id })
    }
}
