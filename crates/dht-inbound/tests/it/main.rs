//! The composed stack, from received bytes to what became of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod behaviours;
mod garbage;
mod observed;
mod panics;
mod pool;
mod stack;
mod structure;
