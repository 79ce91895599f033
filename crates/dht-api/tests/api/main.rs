//! The client and raw sockets against a server over real nodes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod inbox;
mod limits;
mod messages;
mod nodes;
mod openapi;
mod served;
mod sockets;
