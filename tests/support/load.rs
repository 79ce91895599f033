//! Traffic for one node from many peers, cheaper to send than to receive.
//!
//! A [`Peer`] is a transport without stacks; its [`Traffic`] is signed beforehand, so that sending a message costs one
//! copy and the encryption of the connection. Behind `cargo xtask load`, and in the pressure tests.

mod peer;
mod probe;
mod traffic;

pub use peer::{Peer, PeerError};
pub use probe::{Answers, Probe};
pub use traffic::{Kind, MIX, Traffic};
