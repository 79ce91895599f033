//! Recognises messages that a node has seen before.
//!
//! [`DedupTable`] counts how often each validated message was seen. [`FingerprintCache`] recognises exact copies of
//! validated envelopes before any public-key operation, and names their entry in the table. With the feature `redb`,
//! `SnapshotFile` keeps the table across restarts.
//!
//! Both hold only what was validated (law 4), both are bounded, and cloning either shares it: the inbound stack counts
//! in the table, the outbound stack enters what it sends, and store-and-forward counts the stored messages it accepts.

mod deliverers;
mod fingerprint;
mod metrics;
mod retention;
#[cfg(feature = "redb")]
mod snapshot;
mod table;

#[cfg(feature = "redb")]
pub use snapshot::SnapshotFile;

pub use self::metrics::describe_metrics;
pub use self::{
    fingerprint::{DEFAULT_FINGERPRINTS, FingerprintCache},
    retention::{
        CEILING_FACTOR, DEFAULT_CAPACITY, DedupMeta, MAX_DELIVERED_SECONDS, MAX_RETENTION_SECONDS,
        MIN_RETENTION_SECONDS,
    },
    table::{DedupEntry, DedupTable, Reservation},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
