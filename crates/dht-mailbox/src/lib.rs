//! Durable mailboxes for sealed messages, without any network.
//!
//! A [`Store`] keeps messages by recipient until they are deleted or expire: durable when it acknowledges them,
//! bounded in rows and bytes, fair between mailboxes. Section numbers refer to
//! `docs/protocol/05-store-and-forward.md`.
//!
//! ```
//! # use bytes::Bytes;
//! # use dht_core::{DedupHash, Deliverer, UnixSeconds};
//! use dht_mailbox::{MemoryDisk, NewRecord, Query, Recipient, Retention, Store, StoreConfig};
//!
//! let store = Store::open_on(MemoryDisk::new(), StoreConfig::default())?;
//! let (bob, now) = (Recipient::from_bytes([1; 32]), UnixSeconds(1_700_000_000));
//! let ticket = store.submit(
//!     NewRecord {
//!         recipient: bob,
//!         deliverer: Deliverer::from_bytes([2; 32]),
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
//! - [`StoreConfig`]: when an insertion is acknowledged, who may hold how much ([`Limits`]), for how long ([`Lifetimes`]).
//! - [`Disk`]: where the files are; [`FileDisk`] and [`MemoryDisk`] implement it.
//!
//! # Durability
//!
//! A store is a log, and an index of it in memory.
//!
//! - **The segment log is the truth.** A commit takes what waits, at most 512 requests or 4 MiB, and appends it as one batch
//!   of checked records, insertions and deletions alike. With [`Durability::Immediate`] the log is synced. Only then the
//!   index changes, readers see the rows, and callers are answered.
//! - **A copy of the index** is written beside the log now and then, by a thread of its own: after
//!   [`StoreConfig::checkpoint_bytes`] of the log (or twice the bytes of the copy, if that is more), after 100 000 rows, at
//!   [`Store::checkpoint`] and when the store is closed. The order is: sync the log, write the copy to a new file, sync it,
//!   rename it, sync the directory, then remove segments without rows.
//! - **Opening** reads the copy, and the log from where the copy ends. A copy that is missing, damaged or of another time is
//!   made again from the whole log. Deleted rows may come back then, if the segment with their deletion is gone.
//!
//! Costs of each end:
//!
//! | | [`Durability::Immediate`] | [`Durability::Eventual`] |
//! |---|---|---|
//! | `kill -9` | nothing acknowledged | nothing acknowledged |
//! | power failure | nothing acknowledged | what was acknowledged since the last background sync: 50 ms as a rule, [`EVENTUAL_LOSS_BYTES`] at most |
//! | deletions, at a power failure | done for good once acknowledged | the last ones may be undone: such a message is served again |
//! | a changed byte in the log | one message | one message |
//!
//! Every record has a check of its own, and one of its head, which begin with a secret number of the segment. So the reader
//! finds the next record behind a damaged one, and a message cannot pose as a record. Damaged records are skipped and counted
//! ([`StoreStats::damaged`], `dht_mailbox_damaged_total`). A deletion counts only in a batch that is whole: of a batch that a
//! power failure tore, messages may remain, but it takes no row away.
//!
//! A write that fails is answered with the error ([`StoreError::DiskFull`] if that is the cause), is cut off the log, and
//! leaves everything as it was; reading goes on, and the next insertion tries again. After a background sync that failed no
//! insertion is acknowledged until one succeeds. If the device refuses to shorten the file, too, messages that were answered
//! with an error may be there after a restart; a message that is stored once more does no harm. If the thread that writes
//! dies, every call fails with [`StoreError::WriterDied`].

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
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use config::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_CHECKPOINT_BYTES,
    DEFAULT_DELIVERER_BYTES, DEFAULT_DELIVERER_ROWS, DEFAULT_HIGH_SECONDS, DEFAULT_HONOUR_EXPIRES,
    DEFAULT_INDEX_BYTES, DEFAULT_LOW_SECONDS, DEFAULT_MAX_BODY_BYTES, DEFAULT_QUEUE_BYTES,
    DEFAULT_RECIPIENT_BYTES, DEFAULT_RECIPIENT_ROWS, DEFAULT_SEGMENT_BYTES, Durability,
    EVENTUAL_LOSS_BYTES, Lifetimes, Limits, Quota, StoreConfig,
};
pub use disk::{Disk, DiskFile, FileDisk, MemoryDisk};
pub use error::{Refusal, StoreError};
pub use metrics::describe_metrics;
pub use query::{DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Query};
pub use record::{Inserted, NewRecord, Position, Recipient, Retention, RowId, StoredRecord};
pub use stats::{Account, Inspection, RowInfo, StoreStats};
pub use store::{Store, Ticket};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
