//! Store-and-forward: a message for an offline peer waits at other nodes until the peer fetches it.
//!
//! This crate is the protocol of `docs/protocol/05-store-and-forward.md` over a `dht_mailbox::Store`. A node stores
//! messages for offline peers of its region, serves each peer the messages stored for it, and fetches its own messages
//! from other nodes. [`Saf`] joins these; [`StoreLayer`] and [`SafLayer`] are the two layers of the inbound stack. The
//! receipt protocol tells the sender of a message whether a node stores it. The parts without I/O (admission rule,
//! paging, checks, request tracking) are tested without any.
//!
//! # The promise
//!
//! A message that a node of this implementation has acknowledged reaches the recipient's *application* at least once, if
//! one of the nodes that store it survives and the message has not expired, and again only if the recipient ends between
//! delivery and record: the recipient remembers what it received, across restarts, for longer than any node stores
//! messages.
//!
//! - A stored message is recorded in the [`Ledger`] once the inner service has delivered it. A message it refuses is asked
//!   for again: no watermark passes it. A durable inbox as inner service drops the copies of its own.
//! - The ledger is a file with the feature `redb`, which is on by default; without it, it ends with the process.
//! - The ledger is written before the request that proves the messages received, and within a second.
//! - While the disk refuses writes, both are remembered in memory, and written once the disk takes them.
//! - A 1.x requester can prove receipt only by a later second, and asks once a connection. A response within one second
//!   is sent on two connections before the next page is; a response that does not move the requester's watermark, on
//!   four. No row of such a response is deleted before it expires.

mod blocking;
mod config;
mod fetch;
mod keep;
mod layer;
mod ledger;
mod metrics;
mod rates;
mod receipt;
mod saf;
mod send;
mod serve;

pub use config::{
    Config, DEFAULT_ANSWER_SECONDS, DEFAULT_DELIVERER_BURST, DEFAULT_DELIVERER_PERCENT,
    DEFAULT_DELIVERER_RATE, DEFAULT_MAILBOX_PERCENT, DEFAULT_MARGIN_SECONDS,
    DEFAULT_MAX_AGE_SECONDS, DEFAULT_NEIGHBOURING_NODES, DEFAULT_PATIENCE_SECONDS,
    DEFAULT_REQUESTER_BURST, DEFAULT_REQUESTER_RATE,
};
pub use fetch::{EVENT_CAPACITY, FetchSummary, PEERS_ASKED, SafEvent};
pub use keep::{StoreFuture, StoreLayer, StoreService};
pub use layer::{SafFuture, SafLayer, SafService};
pub use ledger::Ledger;
pub use metrics::describe_metrics;
pub use receipt::{
    IDLE_LIMIT, MAX_UNANSWERED, RECEIPT_LIMIT, RECEIPT_PROTOCOL, RECEIPT_QUESTIONS, Receipt,
    ReceiptAsker,
};
pub use saf::{Saf, SafParts};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
