//! Store-and-forward: a mailbox store on redb and the layers that fill and serve it.
//!
//! A message for a peer that is away arrives when it returns. This crate keeps it until then: durable when it is
//! acknowledged, bounded in rows and bytes, fair between mailboxes, and usable without any network (see the
//! `mailbox` example). Section numbers refer to `docs/protocol/05-store-and-forward.md`.
//!
//! ```
//! # use bytes::Bytes;
//! # use dht_core::{DedupHash, UnixSeconds};
//! use dht_saf::{MemoryDisk, Neighbour, NewRecord, Query, Recipient, Retention, Store, StoreConfig};
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
//! # Ok::<(), dht_saf::StoreError>(())
//! ```
//!
//! - [`decide`]: whether a message in transit is kept.
//! - [`Store`]: insertion, retrieval, deletion, expiry; [`Limits`], [`Holders`] and [`NeighbourBuckets`] say who
//!   may hold how much.
//! - [`Pager`]: what a request is answered with, and what a later request proves to have arrived.

mod admission;
mod bucket;
mod config;
mod disk;
mod error;
mod fairness;
mod metrics;
mod paging;
mod query;
mod record;
mod store;

pub use admission::{Candidate, Decision, Skip, Surroundings, decide};
pub use bucket::{MAX_BUCKETS, NeighbourBuckets, Rate, TokenBucket};
pub use config::{
    DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_ROWS, DEFAULT_CHECKPOINT_BYTES, DEFAULT_HIGH_SECONDS,
    DEFAULT_LOW_SECONDS, DEFAULT_MAX_BODY_BYTES, DEFAULT_NEIGHBOUR_BYTES, DEFAULT_NEIGHBOUR_ROWS,
    DEFAULT_QUEUE_BYTES, DEFAULT_RECIPIENT_BYTES, DEFAULT_RECIPIENT_ROWS, DEFAULT_SEGMENT_BYTES,
    Durability, EVENTUAL_LOSS_BYTES, Lifetimes, Limits, Room, StoreConfig,
};
pub use disk::{Directory, Disk, DiskFile, MemoryDisk};
pub use error::{Refusal, StoreError};
pub use fairness::{Account, Holders};
pub use metrics::describe_metrics;
pub use paging::{MAX_REQUESTERS, Pager, PagerConfig, Plan, Request};
pub use query::{DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Query};
pub use record::{
    Inserted, Neighbour, NewRecord, Position, Recipient, Retention, RowId, StoredRecord,
};
pub use store::{Inspection, RowInfo, Store, StoreStats, Ticket};

/// Doubles for the tests of this and other crates.
#[cfg(any(test, feature = "test-util"))]
pub mod test_util {
    pub use crate::disk::faulty::{Faults, FaultyDisk};
}
