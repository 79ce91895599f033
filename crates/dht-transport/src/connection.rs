//! Connections to peers: admission, upgrade, identity, the table of live connections, dialling, listening.

pub(crate) mod admission;
mod cause;
mod contest;
mod dialler;
pub(crate) mod dials;
mod eviction;
mod handle;
mod identity;
mod life;
pub(crate) mod listener;
mod liveness;
pub(crate) mod names;
mod room;
pub(crate) mod table;
pub(crate) mod targets;
pub(crate) mod upgrade;

pub use cause::DialCause;
pub(crate) use cause::Requester;
pub use handle::Connection;
pub use identity::{IdentityError, IdentityRules, PeerInfo, check_identity, encode_identity};
pub use table::new_connection_wins;
