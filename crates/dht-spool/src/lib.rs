//! The durable inbox and outbox of one node, each a file.
//!
//! No network and no runtime. Each has one writer thread; what waits for it is committed together, so that many
//! callers pay for one write to the device. A [`Ticket`] resolves once what was asked for is durable.
//!
//! Without the feature `redb`, which is on by default, there are no files: [`Inbox::in_memory`] and
//! [`Outbox::in_memory`] end with the process.
//!
//! - [`Inbox`]: messages that were received, until every named consumer has acked them or retention is over. A message
//!   is inserted once: its hash is remembered for days after the row left.
//! - [`Outbox`]: messages to be sent, with a state that only grows, the time of the next attempt, and idempotency keys.
//!
//! ```
//! # #[cfg(feature = "redb")] {
//! use dht_core::UnixSeconds;
//! use dht_spool::{Inbox, InboxConfig, Limit, SpoolError};
//!
//! let home = tempfile::tempdir().unwrap();
//! let now = UnixSeconds(1_700_000_000);
//! let inbox = Inbox::open(home.path().join("inbox.redb"), InboxConfig::default(), now)?;
//! assert!(inbox.read("default", None, Limit::default())?.is_empty());
//! // One file, one handle: a second one, also of another process, is refused.
//! let second = Inbox::open(home.path().join("inbox.redb"), InboxConfig::default(), now);
//! assert_eq!(second.unwrap_err(), SpoolError::Locked);
//! # }
//! # Ok::<(), dht_spool::SpoolError>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "redb"),
    expect(dead_code, reason = "memory needs less of the changes than a file")
)]

pub mod config;
#[cfg(feature = "redb")]
mod disk;
mod error;
#[cfg(feature = "redb")]
#[cfg(test)]
mod faulty;
mod inbox;
mod journal;
mod limit;
mod metrics;
mod outbox;
mod queue;
mod ticket;

pub use config::{InboxConfig, OutboxConfig, WriterConfig};
pub use error::SpoolError;
pub use inbox::{
    Arrival, ConsumerStats, DEFAULT_CONSUMER, Inbox, InboxExpiry, InboxStats, Inserted, Lost,
    NewRow, Row, RowId, Start,
};
pub use limit::Limit;
pub use metrics::describe_metrics;
pub use outbox::{
    Entry, EntryContent, EntryFilter, EntryId, EntryOptions, NewEntry, Outbox, OutboxExpiry,
    OutboxStats, Put, SendState, StateKind, Transition,
};
pub use ticket::Ticket;
