//! The DHT's own messages, and messages for others.

mod answer;
mod claim;
mod dht;
mod discovery;
mod forward;
mod hook;
mod join;
mod response;

pub use self::{
    answer::AnswerCheck,
    claim::{ClaimParts, convert_claim},
    dht::Protocol,
    forward::Forward,
    hook::{DiscoveryAnswer, DiscoveryHook},
};
