//! Store-and-forward: the layers that fill and serve the mailboxes of `dht-mailbox`.
//!
//! A message for a peer that is away arrives when it returns. This crate keeps it until then: durable when it is
//! acknowledged, bounded in rows and bytes, fair between mailboxes (see the `keeper` example). Section numbers refer to `docs/protocol/05-store-and-forward.md`.
//!
//! - [`decide`]: whether a message in transit is kept.
//! - `dht_mailbox::Store` holds the messages; [`NeighbourBuckets`] bounds how fast one neighbour fills it.
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
//!
//! - A stored message is written down as received, durably, before the application has it ([`Ledger::receive`]): a
//!   process that ends in between does not hand it over again, nor at all.
//! - A message that came live, by way of others, is written down within a second ([`Ledger::note`]); only a process
//!   that is killed within that second may be given it again out of a store.
//! - While the disk refuses writes, both are remembered in memory, and written once it takes them.
//! - A requester of the 1.x line can prove receipt only by a later second, and asks once a connection. It is given
//!   an answer that lies within one second twice, on two connections, before it is given what follows; and an answer
//!   that moved its watermark nowhere, four times. Nothing of such an answer is deleted before its time. See
//!   [`Pager`].

mod accept;
mod admission;
mod ask;
mod bucket;
mod fault;
mod handler;
mod ledger;
mod metrics;
mod outlets;
mod paging;
mod receipts;
mod receive;
mod saf;
mod serve;
mod store_layer;

pub use accept::{Checks, Outline, Settled, Sound, check, settle};
pub use admission::{Candidate, Decision, Skip, Surroundings, decide};
pub use ask::{AskConfig, AskRule, Asking, Brought, FirstReceived, MAX_ASKED, Round, Unasked};
pub use bucket::{MAX_BUCKETS, NeighbourBuckets, Rate, TokenBucket};
pub use fault::{FAULT_RULES, Fault, FaultRule, Ruling, TOO_MANY_MESSAGES};
pub use handler::{SafFuture, SafHandler, SafLayer};
pub use ledger::{Ledger, MAX_RECEIVED, MAX_RESPONDERS};
pub use metrics::describe_metrics;
pub use outlets::{BanSink, Duplicates};
pub use paging::{MAX_REQUESTERS, Pager, PagerConfig, Plan, Request};
pub use saf::{EVENT_CAPACITY, NEIGHBOURS_ASKED, Saf, SafConfig, SafEvent, SafParts};
pub use store_layer::{Keep, KeepFuture, StoreLayer};
