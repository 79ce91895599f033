//! Behaviour tests on real parts. A name such as `b028_…` covers that row of docs/protocol/behaviours.md.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod bans;
mod claims;
mod crash;
mod cryptography;
mod damage;
mod delivery;
mod discovery;
mod echo;
mod gossip;
mod hostile;
mod interop;
mod messages;
mod net;
mod outbox;
mod overlay;
mod overload;
mod padding;
mod peer_sync;
mod pressure;
mod restart;
mod saf;
mod saf_stack;
mod shutdown;
mod stock;
mod twins;
mod vectors;
