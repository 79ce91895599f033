//! How a node learns of others, and whom it stays connected to: specification 06.
//!
//! [`Overlay`] decides: an event and a [`View`] of the node go in, dials, requests and joins come out. It consists of machines
//! without I/O, of which each can be used alone: [`Pools`] (whom to stay connected to), [`NetworkDiscovery`] and
//! [`SyncOnConnect`] (whom to ask for peers), [`JoinTimer`] (when to announce the node), [`Bootstrap`] (anchors and seeds),
//! [`Feelers`] (tests of peers that others told of), [`Density`] (whether somebody surrounds the node). [`Driver`] does what it
//! decides over the [`Ports`] of a node.
//!
//! [`sync`] is the peer-sync service `t/dht/1`, both roles: a node asks a connected one for peers, at random or closest to an id.
//! [`lookup`] finds a node by asking nodes ever closer to it. What a node is told is hearsay, for the heard-of table of a [`Directory`](dht_peers::Directory); what it tells is proven.

mod bootstrap;
mod config;
mod density;
mod driver;
mod feeler;
mod join;
pub mod lookup;
mod metrics;
mod network_discovery;
mod on_connect;
mod overlay;
mod pace;
mod pools;
mod status;
pub mod sync;
#[cfg(test)]
mod test_util;
mod view;

pub use bootstrap::{Bootstrap, BootstrapPeers};
pub use config::*;
pub use density::Density;
pub use driver::{Driver, Ports};
pub use feeler::Feelers;
pub use join::JoinTimer;
pub use metrics::describe_metrics;
pub use network_discovery::{NetworkDiscovery, PeersAdded};
pub use on_connect::SyncOnConnect;
pub use overlay::{DialOutcome, Notice, Overlay, OverlayAction, OverlayEvent, Summary};
pub use pools::{Member, Pool, PoolAction, PoolEvent, Pools, TENURE};
pub use status::Status;
pub use view::View;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
