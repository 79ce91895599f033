//! Protocol-agnostic parts of tower stacks: filters, steps that wait for another service, natural batches, tables for
//! keys that strangers choose, and memory handed out as permits.
//!
//! | Part | What it does |
//! |---|---|
//! | [`Filter`] | asks a synchronous [`Check`] whether a request goes on, and as what |
//! | [`Then`] | asks another service first, then [decides](Decide) |
//! | [`Batch`] | does together what several callers ask for at the same time; no timer |
//! | [`PriorityAdmission`] | room for requests, with a part for each level of importance, each cause and each party |
//! | [`ByteBudget`] | hands out memory as permits; callers wait in order of arrival |
//! | [`FairQueue`] | entries of many owners, of which the owner with most makes room |
//! | [`Sharded`] | a hash table with a lock per shard and a seeded hash |
//! | [`TokenBuckets`] | holds each key to its rates, in constant space; [`TokenBucket`] is one of them |
//! | [`off_thread`] | runs what blocks on another thread, and what does not on this one |
//! | [`Watch`] | a value that several tasks wait for, who are woken in order |
//! | [`Channel`] | a bounded channel declared as data, so that cycles of waiting are found by a test |
//!
//! Composition, boxed errors and optional layers are tower's: `ServiceBuilder`, `BoxError`, `option_layer`.

mod admission;
mod batch;
mod blocking;
mod budget;
mod channel;
mod fair_queue;
mod filter;
mod sharded;
mod then;
mod tokens;
mod watch;

pub use admission::{LEVELS, NoPlace, Place, PriorityAdmission, Room, RoomAsk, reserved};
pub use batch::{Batch, BatchFuture, BatchLost, BatchWork};
pub use blocking::off_thread;
pub use budget::{ByteBudget, BytePermit};
pub use channel::{Channel, WhenFull, waiting_cycle};
pub use fair_queue::FairQueue;
pub use filter::{Check, CheckFn, Filter, FilterFuture, FilterLayer, check_fn};
pub use sharded::{Shard, Sharded, Slot};
pub use then::{Ask, Decide, Then, ThenFuture, ThenLayer};
pub use tokens::{Rate, TokenBucket, TokenBuckets};
pub use watch::Watch;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
