//! Serving stored messages to the peers they are for: paging, proof of receipt, and the bytes of responses in flight.

mod in_flight;
mod paging;
mod server;

pub(crate) use self::server::Server;
