//! Shared harness of the behaviour tests.
//!
//! - [`chain`] kills a sender, a holder and a recipient: `cargo xtask crash --chain`.
//! - [`crash`] kills a writer of the mailbox: `cargo xtask crash`.
//! - [`interop`] lets our nodes talk to nodes of the reference implementation: `cargo xtask interop`.
//! - [`vectors`] checks golden vectors: `cargo xtask vectors DIR`.
//! - [`load`] sends one node more than it can carry: `cargo xtask load`.
//! - [`attack`] lets hostile peers at a node that serves honest ones: `cargo xtask attack`.
//!
//! ```no_run
//! let report = dht_tests::vectors::check_directory("crates/dht-core/tests/vectors".as_ref())?;
//! assert_eq!(report.failed(), 0, "{report}");
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod attack;
pub mod chain;
pub mod crash;
pub mod frames;
pub mod interop;
pub mod load;
pub mod loopback;
pub mod target;
pub mod vectors;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migration.md")]
struct Migration;
