//! Sessions over streams in memory, on a paused clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod client;
mod random;
mod server;
mod sessions;
mod support;
