//! Connections to peers: admission, upgrade, identity, the table of live connections, dialling, listening.

pub(crate) mod admission;
mod contest;
mod dialler;
pub(crate) mod dials;
mod handle;
mod identity;
mod life;
pub(crate) mod listener;
mod liveness;
pub(crate) mod table;
pub(crate) mod upgrade;

pub use handle::Connection;
pub use identity::{IdentityError, IdentityRules, PeerInfo, check_identity, encode_identity};
pub use table::new_connection_wins;
