//! A writer of the mailbox that is killed at random moments, and the check of what it leaves.
//!
//! [`run`] starts this program again as the writer ([`stream`]), lets it insert, delete and expire, kills it without
//! warning, opens the store and compares what is there with what the writer had acknowledged. Everything is kept in
//! one directory from round to round, so that later rounds begin with what the earlier kills left.
//!
//! The moments come from a seed. The same seed asks for the same moments; what the writer is doing then is up to
//! the machine.

mod account;
mod message;
mod rounds;
mod stream;

pub use account::{Account, Check};
pub use message::{Plan, message, plan};
pub use rounds::{Outcome, Rounds, run};
pub use stream::{Line, stream};

use dht_mailbox::{Durability, Limits, Quota, StoreConfig};

/// The store under test: small files, so that a kill meets segments being begun, checkpoints under way and rows
/// being moved, and no bound that would make rows give way.
#[must_use]
pub fn store_config(durability: Durability) -> StoreConfig {
    let room = Quota {
        rows: 10_000_000,
        bytes: 1 << 40,
    };
    let limits = Limits {
        capacity: room,
        per_recipient: room,
        per_deliverer: room,
        ..Limits::default()
    };
    StoreConfig {
        durability,
        limits,
        segment_bytes: 1 << 20,
        checkpoint_bytes: 2 << 20,
        index_bytes: u64::MAX,
        ..StoreConfig::default()
    }
}
