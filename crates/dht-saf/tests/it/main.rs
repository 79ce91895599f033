//! Behaviour tests on a real store. A name such as `sf05_…` covers that row of
//! `docs/protocol/05-store-and-forward.md` section 12, `b113_…` that row of `docs/protocol/behaviours.md`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod abuse;
mod accepting;
mod asking;
mod paging;
mod receipts;
mod serving;
mod storing;
mod taking;
mod world;
