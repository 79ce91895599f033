//! Public-key work: verify, count occurrences, open. In that order, so that an invalid copy never takes the place of a
//! valid one, and so that a repeat is not opened.

mod batch;
mod commit;
mod dedup;
mod log;
mod open;
mod rebroadcast;
mod verify;

pub use self::{
    batch::{BatchOpener, BatchVerifier},
    commit::{Commit, CommitFuture, CommitLayer},
    dedup::{DEFAULT_ALLOWED_OCCURRENCES, Dedup},
    log::Log,
    open::Open,
    rebroadcast::Rebroadcast,
    verify::Verify,
};
