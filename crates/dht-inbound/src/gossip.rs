//! The application's side: it validates gossip, and gets its messages.

mod deliver;
mod validator;

pub use self::{
    deliver::Deliver,
    validator::{
        Acceptance, DEFAULT_VALIDATION_DEADLINE, Gossip, GossipValidator, Validate,
        ValidationFuture,
    },
};
