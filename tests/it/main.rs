//! Behaviour tests on real parts. A name such as `b028_…` covers that row of docs/protocol/behaviours.md.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod claims;
mod cryptography;
mod padding;
mod vectors;
