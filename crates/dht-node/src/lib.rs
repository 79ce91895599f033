//! A messaging DHT node: the dht crates put together.
//!
//! Two nodes, and an encrypted message from one to the other:
//!
//! ```
//! use dht_core::{Entropy, SecretKey};
//! use dht_node::{Message, Node, OsEntropy, SendOptions, StateKind};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listen = "/ip4/127.0.0.1/tcp/0".parse()?;
//! let alice = Node::builder(SecretKey::random(&mut OsEntropy.rng())).start().await?;
//! let bob = Node::builder(SecretKey::random(&mut OsEntropy.rng())).listen(listen).start().await?;
//! let mut inbox = bob.subscribe();
//!
//! alice.add_peer(&bob.peer_address());
//! let message = Message { message_type: 1, payload: "hello".into() };
//! let mut delivery = alice.send(bob.public_key(), message.clone(), SendOptions::default()).await?;
//! delivery.wait(StateKind::Sent).await?;
//!
//! let received = inbox.recv().await.ok_or("bob stopped")?;
//! assert_eq!(received.sender, Some(*alice.public_key()));
//! assert_eq!(received.message, message);
//!
//! alice.shutdown().await;
//! bob.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod adapters;
mod builder;
mod channels;
mod compose;
mod config;
mod config_error;
mod connection_mirror;
mod context;
mod counters;
mod discovery;
#[cfg(any(feature = "dns-seeds", feature = "lan"))]
mod dns_packet;
#[cfg(feature = "dns-seeds")]
mod dns_seeds;
#[cfg(feature = "spool")]
mod durable_inbox;
mod events;
mod expiry_clock;
mod home;
mod inbox;
mod interfaces;
mod known_peers;
#[cfg(feature = "lan")]
mod lan;
#[cfg(feature = "spool")]
mod losses;
mod memory;
mod metrics;
mod node;
#[cfg(feature = "tor")]
mod onion;
mod outbox;
#[cfg(feature = "overlay")]
mod overlay;
mod own_addresses;
#[cfg(feature = "overlay")]
mod probe;
mod received;
mod saf;
mod supervise;
mod tasks;
mod validator;

pub use builder::{Builder, StartError};
pub use channels::{EVENT_CAPACITY, INBOX_CAPACITY, channels};
pub use config::{Config, DEFAULT_LISTEN, DEFAULT_MEMORY_MIB, MAX_CONFIGURED_SEEDS, RELOADABLE};
pub use config_error::ConfigError;
pub use counters::{Drops, Stats};
pub use dht_core::{DeliveryError, DialFailure};
pub use dht_core::{Message, OsEntropy, SystemClock};
pub use dht_inbound::{Acceptance, RateLimits};
#[cfg(feature = "saf")]
pub use dht_mailbox::StoreStats;
pub use dht_outbound::{SearchError, SendError};
#[cfg(feature = "overlay")]
pub use dht_overlay::{
    Config as OverlayConfig, DEFAULT_NEIGHBOURS, Notice as OverlayNotice, Status as OverlayStatus,
    Summary as OverlaySummary,
};
pub use dht_peers::policy::AttributionProfile;
#[cfg(feature = "saf")]
pub use dht_saf::{Config as SafConfig, FetchSummary, SafEvent};
pub use dht_spool::{EntryId, SendState, SpoolError, StateKind};
pub use dht_stack::Rate;
#[cfg(feature = "dns-seeds")]
pub use dns_seeds::DEFAULT_DNS_SEEDS;
#[cfg(feature = "spool")]
pub use durable_inbox::inbox_file;
pub use events::{Event, EventStream};
pub use home::MemoryHome;
pub use inbox::{MAX_PAYLOAD_BYTES, Subscription, WhenFull};
#[cfg(feature = "interfaces")]
pub use interfaces::interface_addresses;
pub use metrics::describe_metrics;
#[cfg(feature = "spool")]
pub use node::DamagedFiles;
#[cfg(feature = "saf")]
pub use node::FetchError;
pub use node::{AllowError, Node, PingError, Pong, SHUTDOWN_LIMIT};
#[cfg(feature = "tor")]
pub use onion::TorConfig;
pub use outbox::{Delivery, SendOptions, SubmitError, Undelivered};
#[cfg(feature = "overlay")]
pub use probe::{
    ProbeFailure, ProbeLimits, ProbeProgress, ProbeReport, ProbeVisit, ProbedPeer, ReachedPeer,
};
pub use received::Received;
#[cfg(feature = "saf")]
pub use saf::{ledger_file, saf_folder};
