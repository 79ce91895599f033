//! Hostile peers against a node that serves honest ones.
//!
//! The node is the real one, with its default settings, in a process of its own ([`crate::target`]). Hostile peers have the real
//! transport, do the real handshake and then misbehave; some speak below it. All sockets are on loopback, between
//! addresses that the node takes for public ones ([`crate::loopback`]): 256 groups of 256 networks.
//!
//! A [`Scenario`] is one attack. Two honest nodes send the node messages all the time, which it sends back: at
//! least 999 of 1 000 must come back, in every scenario; memory must stay within the bound of the scenario; and no honest
//! node may have banned another. What else must hold are the [checks](Check) of the scenario.

mod honest;
mod outcome;
mod scenarios;
mod stage;

pub use outcome::{Check, Outcome};
pub use scenarios::SCENARIOS;
pub use stage::{Scenario, run};
