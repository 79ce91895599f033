//! The whole pipeline over real parts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod outbound;
mod search;
mod stack;
mod support;
