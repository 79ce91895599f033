//! Nodes of the reference implementation beside ours, over TCP: `cargo xtask interop`.
//!
//! Every node is a process of its own, driven in JSON lines ([`Command`], [`Event`]): ours by [`ours`], the stock ones by the
//! programs under `tests/interop/reference`. A [`Scenario`] starts some, lets them talk, and checks what each received and that
//! nobody banned anybody.

mod control;
pub mod ours;
mod peer;
mod recording;
mod scenarios;
mod tap;
mod world;

pub use control::{Command, Event, Form, Known, Message, Reply, Send, Setup, fingerprint, payload};
pub use peer::{Peer, Program};
pub use recording::{Content, Frame, Recording};
pub use scenarios::SCENARIOS;
pub use world::{Role, Scenario, Version, World};
