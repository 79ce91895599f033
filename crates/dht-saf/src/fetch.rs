//! Fetching the messages that other nodes store for this one: whom to ask, what is accepted of a response, and when
//! everything is here.

mod check;
mod clock_skew;
mod fault;
mod fetcher;
mod first_responses;
mod hang_ups;
mod left_behind;
mod outcome;
mod receive;
mod tracker;

pub(crate) use self::fetcher::{FetchParts, Fetcher};
pub use self::{
    fetcher::{EVENT_CAPACITY, PEERS_ASKED, SafEvent},
    tracker::FetchSummary,
};
