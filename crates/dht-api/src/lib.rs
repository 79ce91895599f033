//! The local HTTP API of a node.
//!
//! An application sends and receives through the node of its machine: it talks HTTP with JSON over the unix socket of
//! the node's home, or over loopback TCP with a bearer token.
//!
//! - [`types`]: the JSON of every request and response.
//! - [`Client`] (feature `client`): a typed method for each route, and streams that resume.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod client;
pub mod types;

#[cfg(feature = "client")]
pub use client::{Client, ClientError, EventReader, InboxReader, TokenError};
