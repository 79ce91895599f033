//! What a store tells of itself.

use dht_core::UnixSeconds;

use crate::record::{Position, Retention};

/// What one mailbox holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Number of rows.
    pub rows: u64,
    /// Bytes, as [`crate::Room`] counts them.
    pub bytes: u64,
    /// Of the rows, those of class [`Retention::Low`].
    pub low_rows: u64,
}

/// How much a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Number of rows.
    pub rows: u64,
    /// Bytes, as [`crate::Room`] counts them.
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

/// What is known of a row without reading the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowInfo {
    /// Its place in the mailbox.
    pub position: Position,
    /// The last second in which it is served.
    pub keep_until: UnixSeconds,
    /// Its class.
    pub retention: Retention,
    /// Bytes it takes, as [`crate::Room`] counts them.
    pub bytes: u64,
}

/// What [`crate::Store::verify`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Number of rows.
    pub rows: u64,
    /// Rows whose bytes are there and check.
    pub readable: u64,
    /// What does not agree, in words; empty if all is well.
    pub faults: Vec<String>,
}
