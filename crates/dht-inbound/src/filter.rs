//! Filters: what is dropped before any public-key operation. Each is a [`Check`](dht_stack::Check).

mod convert;
mod decode;
mod exact_copy;
mod expiry;
mod flood;
mod rate;
mod role;

pub use self::{
    convert::Convert,
    decode::Decode,
    exact_copy::ExactCopy,
    expiry::Expiry,
    flood::{
        DEFAULT_FLOOD_MESSAGES, DEFAULT_FLOOD_SECONDS, FloodLimits, FloodMeter, Flooder,
        MAX_METERED_PEERS, MIN_IDLE_SECONDS, Meter,
    },
    rate::{Bucket, RateLimit, RateLimiter, RateLimits, UNDECODABLE_FRAME_BYTES},
    role::Role,
};
