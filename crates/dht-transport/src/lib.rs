//! Connections between nodes: from an address to authenticated messages.
//!
//! The wire is that of `docs/protocol/02-transport-and-connectivity.md`. Top to bottom of one connection:
//!
//! | Step | Module | Section |
//! |---|---|---|
//! | messages of at most 8 MiB, one stream each way | [`messaging`] | 6, 7 |
//! | which protocol a stream speaks | [`negotiate`] | 5 |
//! | streams over one connection: yamux | [`Substream`] | 4.4 |
//! | who the peer says it is, signed | [`check_identity`] | 4.3 |
//! | encryption and authentication: Noise XX on Ristretto255 | [`noise`] | 4.2 |
//! | one byte that names the network | | 4.1 |
//! | bytes: TCP, memory, or what a simulator brings | [`Medium`] | 3 |
//!
//! [`Transport`] puts them together: it listens, dials, keeps one connection a peer (02 section 9.5), queues
//! messages for each peer within bounds, and takes the bytes of inbound messages out of a budget before it
//! reads them. It finds peers in a [`Directory`](dht_peers::Directory), records there how dials
//! went, and reports offences to a [`BanPolicy`](dht_peers::policy::BanPolicy).
//!
//! Two nodes in one process:
//!
//! ```
//! # #[cfg(feature = "memory")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use dht_core::{
//!     Address, AddressPolicy, Entropy, Features, ManualClock, Network, NodeIdentity, Priority, SecretKey,
//!     SeededEntropy, UnixSeconds,
//! };
//! use dht_stack::ByteBudget;
//! use dht_transport::{Config, Memory, Outlets, Transport};
//!
//! fn node(seed: u64, memory: &Memory) -> Result<(Transport, Outlets, Arc<NodeIdentity>), dht_transport::IdentityError> {
//!     let now = UnixSeconds(1_700_000_000);
//!     let entropy = Arc::new(SeededEntropy::new(seed)); // the operating system's outside of examples
//!     let mut rng = entropy.rng();
//!     let secret = SecretKey::random(&mut rng);
//!     let identity = NodeIdentity::new(secret, Features::NODE, vec![Address::memory(seed)], now, &mut rng);
//!     let identity = Arc::new(identity);
//!     let mut config = Config::default();
//!     config.identity.addresses = AddressPolicy { allow_test: true }; // memory addresses
//!     let clock = Arc::new(ManualClock::new(now));
//!     let budget = ByteBudget::new(256 * 1024 * 1024);
//!     let (transport, outlets) =
//!         Transport::builder(identity.clone(), Network::LocalNet, entropy, clock, budget)
//!             .config(config)
//!             .medium(memory.clone())
//!             .user_agent("example/1")
//!             .start()?;
//!     Ok((transport, outlets, identity))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let memory = Memory::default();
//! let (alice, _alices, _) = node(1, &memory)?;
//! let (bob, mut bobs, bob_identity) = node(2, &memory)?;
//!
//! let address = bob.listen(&Address::memory(0)).await?;
//! alice.dial(bob_identity.public_key(), &[address]).await?;
//! let delivery = alice.send(bob_identity.node_id(), Bytes::from_static(b"hello"), Priority::Direct)?;
//!
//! let message = bobs.messages.recv().await.ok_or("bob is gone")?;
//! assert_eq!(message.frame, "hello");
//! delivery.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })
//! # }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```
//!
//! **Invariants.** No task outlives its [`Transport`], but for threads in a name lookup, at most
//! [`limits::MAX_LOOKUPS_PER_CAUSE`] for each cause; no channel or queue is unbounded, and nothing a peer
//! sends makes one grow; the task that drives a connection waits only for the socket; nothing is
//! allocated by a length that a peer declared.

pub mod limits;
pub mod messaging;
pub mod negotiate;
pub mod noise;

mod builder;
mod channels;
mod config;
mod connection;
mod error;
mod event;
mod medium;
mod metrics;
mod mux;
mod outlets;
mod state;
mod tasks;
mod transport;

pub use builder::Builder;
pub use channels::CHANNELS;
pub use config::Config;
#[cfg(feature = "socks")]
pub use config::optional_address;
pub use connection::{
    Connection, DialCause, IdentityError, IdentityRules, PeerInfo, check_identity, encode_identity,
    new_connection_wins,
};
pub use error::{DialError, EnqueueError, StreamError, UpgradeError};
pub use event::ConnectionEvent;
#[cfg(feature = "memory")]
pub use medium::Memory;
#[cfg(feature = "tcp")]
pub use medium::Tcp;
pub use medium::{Accepted, Acceptor, BoxFuture, Medium, Socket, Stream};
#[cfg(feature = "socks")]
pub use medium::{ProxyFor, Socks};
pub use messaging::{MESSAGING_PROTOCOL, Queued};
pub use metrics::describe_metrics;
pub use mux::Substream;
pub use outlets::{InboundStream, Outlets};
pub use transport::{Transport, TransportStats};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
