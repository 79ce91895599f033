//! Durable mailboxes for sealed messages, without any network.
//!
//! A [`Store`] keeps messages by recipient until they are deleted or expire: durable when it acknowledges them,
//! bounded in rows and bytes, fair between mailboxes. Section numbers refer to
//! `docs/protocol/05-store-and-forward.md`.
//!
//! ```
//! # use bytes::Bytes;
//! # use dht_core::{DedupHash, UnixSeconds};
//! use dht_mailbox::{MemoryDisk, Neighbour, NewRecord, Query, Recipient, Retention, Store, StoreConfig};
//!
//! let store = Store::open_on(MemoryDisk::new(), StoreConfig::default())?;
//! let (bob, now) = (Recipient::from_bytes([1; 32]), UnixSeconds(1_700_000_000));
//! let ticket = store.submit(
//!     NewRecord {
//!         recipient: bob,
//!         neighbour: Neighbour::from_bytes([2; 32]),
//!         hash: DedupHash([3; 32]),
//!         retention: Retention::High,
//!         expires: None,
//!         header: Bytes::from_static(b"header"),
//!         body: Bytes::from_static(b"sealed"),
//!     },
//!     now,
//! )?;
//! ticket.wait()?; // committed
//! assert_eq!(store.fetch(&Query::all(bob, now))?.records.len(), 1);
//! # Ok::<(), dht_mailbox::StoreError>(())
//! ```
//!
//! - [`Store`]: insertion, retrieval, deletion, expiry.
//! - [`Limits`], [`Lifetimes`], [`Usage`]: who may hold how much, for how long.
//! - [`Disk`]: where the files are; [`Directory`] and [`MemoryDisk`] implement it.
//!
//! # Durability
//!
//! A [`Store`] is a log and an index of it.
//!
//! - **The segment log is the truth.** A commit takes what waits, at most 512 requests or 4 MiB, and appends it as
//!   one batch of checksummed records, insertions and deletions alike. With [`Durability::Immediate`] it is synced,
//!   and only then acknowledged. A batch counts whole or not at all, so that a torn write is no write.
//! - **The index follows.** It is a redb file: rows by recipient and time and by expiry, and the accounts of who holds
//!   how much, changed in one transaction with each batch. What redb writes is kept in memory until the next
//!   **checkpoint** ([`StoreConfig::checkpoint_bytes`] of the log, 2 500 rows, or [`Store::checkpoint`]), when the
//!   log is synced first and the index after it. So an insertion costs one sync of one file.
//! - **A restart** opens the index as the last checkpoint left it and reads the log from there on. Without an index
//!   file it reads the whole log.
//!
//! What each end takes:
//!
//! | | [`Durability::Immediate`] | [`Durability::Eventual`] |
//! |---|---|---|
//! | `kill -9` | nothing acknowledged | nothing acknowledged |
//! | power failure | nothing acknowledged | what was acknowledged since the last background sync: 50 ms as a rule, [`EVENTUAL_LOSS_BYTES`] at most |
//! | deletions, at a power failure | done for good once acknowledged | the last ones may be undone: such a message is served again, and known to who has it |
//!
//! With [`Durability::Eventual`] the index may reach the device before the end of the log. Opening finds rows whose
//! bytes are not there, takes them out and counts them (`dht_mailbox_lost_total`); what is left is whole.
//!
//! A write that fails is answered with the error ([`StoreError::DiskFull`] if that is the cause), is cut off the log,
//! and leaves everything as it was; reading goes on, and the next insertion tries again. A store that redb has given up is opened again by
//! itself. One case is not decided: if the device refuses to shorten the file, too, a batch that was answered with an
//! error may be there after a restart, whole; being stored once more than promised harms nobody.

mod config;
mod copy;
mod disk;
mod error;
mod index;
mod log;
mod metrics;
mod query;
mod record;
mod stats;
mod store;

pub use config::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_CHECKPOINT_BYTES, DEFAULT_HIGH_SECONDS,
    DEFAULT_HONOUR_EXPIRES, DEFAULT_INDEX_BYTES, DEFAULT_LOW_SECONDS, DEFAULT_MAX_BODY_BYTES,
    DEFAULT_NEIGHBOUR_BYTES, DEFAULT_NEIGHBOUR_ROWS, DEFAULT_QUEUE_BYTES, DEFAULT_RECIPIENT_BYTES,
    DEFAULT_RECIPIENT_ROWS, DEFAULT_SEGMENT_BYTES, Durability, EVENTUAL_LOSS_BYTES, Lifetimes,
    Limits, Room, StoreConfig,
};
pub use disk::{Directory, Disk, DiskFile, MemoryDisk};
pub use error::{Refusal, StoreError};
pub use metrics::describe_metrics;
pub use query::{DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Query};
pub use record::{
    Inserted, Neighbour, NewRecord, Position, Recipient, Retention, RowId, StoredRecord,
};
pub use stats::{Account, Inspection, RowInfo, StoreStats};
pub use store::{Store, Ticket};

/// Doubles for the tests of this and other crates.
#[cfg(any(test, feature = "test-util"))]
pub mod test_util {
    pub use crate::disk::faulty::{Faults, FaultyDisk};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
