//! Statistics of a store, and the report of its self-check.

use dht_core::UnixSeconds;

use crate::record::{Position, Retention};

/// Rows and bytes of one mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Number of rows stored.
    pub rows: u64,
    /// Bytes, as [`crate::Quota`] counts them.
    pub bytes: u64,
    /// Of the rows, those of class [`Retention::Low`].
    pub low_rows: u64,
}

/// How much a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Number of rows stored.
    pub rows: u64,
    /// Bytes, as [`crate::Quota`] counts them.
    pub bytes: u64,
    /// Of the rows, those of class [`Retention::Low`].
    pub low_rows: u64,
    /// Number of mailboxes that hold a row.
    pub mailboxes: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes of memory that the index takes, as [`crate::StoreConfig::index_bytes`] bounds them.
    pub index_bytes: u64,
    /// Records found damaged since the store was opened; they are not served.
    pub damaged: u64,
}

/// A row without its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowInfo {
    /// Its place in the mailbox.
    pub position: Position,
    /// The last second in which it is served.
    pub keep_until: UnixSeconds,
    /// Retention class of the message.
    pub retention: Retention,
    /// Bytes it takes, as [`crate::Quota`] counts them.
    pub bytes: u64,
}

/// Report of the self-check [`crate::Store::verify`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Number of rows stored.
    pub rows: u64,
    /// Rows whose bytes are there and check.
    pub readable: u64,
    /// Faults in words; empty if there are none.
    pub faults: Vec<String>,
}
