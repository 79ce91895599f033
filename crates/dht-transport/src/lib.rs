//! Dial, listen, Noise XX on Ristretto, identity exchange, yamux and the messaging protocol.

pub mod limits;
pub mod messaging;
pub mod negotiate;
pub mod noise;

mod admission;
mod book;
mod config;
mod connection;
mod dialer;
mod error;
mod event;
mod identity;
mod listener;
mod liveness;
mod medium;
#[cfg(feature = "memory")]
mod memory;
mod metrics;
mod mux;
mod shared;
mod socket;
mod table;
mod tasks;
#[cfg(feature = "tcp")]
mod tcp;
mod transport;
mod upgrade;

pub use book::{AddressBook, NoBook};
pub use config::Config;
pub use connection::{Connection, Direction};
pub use error::{
    DeliveryError, DialError, DialFailure, Offence, OpenError, SendError, UpgradeError,
};
pub use event::Event;
pub use identity::{IdentityError, IdentityRules, PeerInfo, check_identity, encode_identity};
pub use medium::{Accepted, Acceptor, BoxFuture, Medium};
#[cfg(feature = "memory")]
pub use memory::Memory;
pub use messaging::{Delivery, InboundMessage, MESSAGING_PROTOCOL};
pub use metrics::describe_metrics;
pub use mux::Substream;
pub use socket::{Socket, Source, Stream};
pub use table::new_connection_wins;
#[cfg(feature = "tcp")]
pub use tcp::Tcp;
pub use transport::{Builder, InboundStream, Outlets, Stats, Transport};
