//! The local HTTP API of a node.
//!
//! An application sends and receives through the node of its machine: it talks HTTP with JSON over the unix socket of
//! the node's home, or over loopback TCP with a bearer token.
//!
//! - [`types`]: the JSON of every request and response.
//! - [`Client`] (feature `client`): a typed method for each route, and streams that resume.
//! - [`ApiServer`] and [`MetricsServer`] (feature `server`): the routes over a running node, and its metrics and health.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "client", feature = "server"))]
mod socket_path;
pub mod types;

#[cfg(feature = "client")]
pub use client::{Client, ClientError, EventReader, InboxReader, TokenError};
#[cfg(feature = "server")]
pub use limits::Limits;
#[cfg(feature = "server")]
pub use server::{
    ApiServer, BindError, Mailboxes, Metrics, MetricsError, MetricsServer, Parts, STOP_LIMIT,
    openapi,
};
