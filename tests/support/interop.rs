//! Nodes of the reference implementation beside ours, over TCP: `cargo xtask interop`.
//!
//! Every node is a process of its own, driven in JSON lines ([`Command`], [`Event`]): ours by [`ours`], the stock ones by the
//! programs under `tests/interop/reference`. A [`Scenario`] starts some, lets them talk, and checks what each received and that
//! nobody banned anybody.

mod control;
mod exchange;
mod handshake;
pub mod ours;
mod peer;
mod recording;
mod report;
mod scenarios;
mod tap;
mod wire;
mod world;

pub use control::{
    Command, Event, Form, Known, Message, Reply, Role, Send, Setup, fingerprint, payload,
};
pub use exchange::{ANSWERS, Answer, Exchange, Opening, Streams, stranger};
pub use handshake::Handshake;
pub use peer::{Peer, Program};
pub use recording::{Content, Frame, Recording};
pub use report::Report;
pub use scenarios::SCENARIOS;
pub use wire::Wire;
pub use world::{Scenario, Version, World};
