//! How a node learns of others: specification 06.
//!
//! [`sync`] is the peer-sync service `t/dht/1`, both roles: a node asks a connected one for peers, at random or closest to an id.
//! What it is told is hearsay, for the heard-of table of a [`Directory`](dht_peers::Directory); what it tells is proven.

mod metrics;
pub mod sync;

pub use metrics::describe_metrics;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
