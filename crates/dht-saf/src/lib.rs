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
//! - [`check`], [`settle`]: what is accepted of an answer; [`Fault`] says who is blamed for what.
//! - [`Asking`]: who was asked and who owes an answer; [`Ledger`]: what came, for as long as anybody keeps it.
//! - [`Saf`]: all of it in a running node; [`StoreLayer`] and [`SafLayer`] go into its inbound stack.
//!
//! # The promise
//!
//! A message that one node of ours has acknowledged reaches the recipient's *node* at least once, while one of the
//! nodes that hold it survives and the message has not expired. The *application* gets it at most once: what was
//! handed over is remembered, across restarts, for longer than any store keeps mail.

mod accept;
mod admission;
mod ask;
mod bucket;
mod config;
mod disk;
mod error;
mod fairness;
mod fault;
mod handler;
mod ledger;
mod metrics;
mod outlets;
mod paging;
mod query;
mod receipts;
mod receive;
mod record;
mod saf;
mod serve;
mod store;
mod store_layer;

pub use accept::{Checks, Outline, Settled, Sound, check, settle};
pub use admission::{Candidate, Decision, Skip, Surroundings, decide};
pub use ask::{AskConfig, AskRule, Asking, Brought, FirstReceived, MAX_ASKED, Round, Unasked};
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
pub use fault::{FAULT_RULES, Fault, FaultRule, Ruling};
pub use handler::{SafFuture, SafHandler, SafLayer};
pub use ledger::{Ledger, MAX_RECEIVED, MAX_RESPONDERS};
pub use metrics::describe_metrics;
pub use outlets::{BanSink, Done, Duplicates, Outbox, OutboxFull};
pub use paging::{MAX_REQUESTERS, Pager, PagerConfig, Plan, Request};
pub use query::{DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Query};
pub use record::{
    Inserted, Neighbour, NewRecord, Position, Recipient, Retention, RowId, StoredRecord,
};
pub use saf::{EVENT_CAPACITY, NEIGHBOURS_ASKED, Saf, SafConfig, SafEvent, SafParts};
pub use store::{Inspection, RowInfo, Store, StoreStats, Ticket};
pub use store_layer::{Keep, KeepFuture, StoreLayer};

/// Doubles for the tests of this and other crates.
#[cfg(any(test, feature = "test-util"))]
pub mod test_util {
    pub use crate::disk::faulty::{Faults, FaultyDisk};
}
