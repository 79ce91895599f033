//! The RPC protocol of the Tari messaging DHT (specification 02, section 8), over any [`AsyncRead`] and [`AsyncWrite`].
//!
//! A session runs on one byte stream, usually a substream whose protocol id names the service. [`Client`] makes unary
//! and server-streaming calls on it, one at a time. [`Server`] answers any number of sessions with one tower service;
//! [`Router`] is such a service, made of typed methods.
//!
//! [`AsyncRead`]: tokio::io::AsyncRead
//! [`AsyncWrite`]: tokio::io::AsyncWrite
//!
//! # Wire format
//!
//! Each message is one frame: its length in 4 bytes, big-endian, then so many bytes of protobuf (`comms_rpc.proto`).
//!
//! | Frame | Direction | At most | Content |
//! |---|---|---|---|
//! | session | client to server | 1 KiB | versions that the client speaks; only 0 exists: `0a 01 00` |
//! | session reply | server to client | 1 KiB | accepted version `08 00`, or rejection and [reason](RejectReason) `10 01 18 rr` |
//! | request | client to server | 4 MiB | id, method, flags, deadline in seconds, payload |
//! | response | server to client | 4 MiB | id, [status](StatusCode), flags, payload |
//!
//! Flags are FIN 1 and ACK 2. A unary call is answered by one response with FIN. A streaming call is answered by
//! responses without FIN, then one with FIN and no payload; a status other than ok ends it, with its text as payload.
//! A request with FIN cancels the streaming call of the same id. A request with ACK, id 0 and method 0 is a ping,
//! answered by a response with ACK. There are no chunks: a payload is in one frame.
//!
//! # Example
//!
//! ```
//! use dht_proto::dht_rpc::{GetPeersRequest, GetPeersResponse};
//! use dht_rpc::{Caller, Client, ClientConfig, Router, Server, ServerConfig, Status};
//! use futures::{StreamExt as _, stream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! type Peer = Caller<&'static str, &'static str>;
//! let router = Router::new().streaming(10, |caller: Peer, request: GetPeersRequest| async move {
//!     if request.n > 1_000 {
//!         return Err(Status::bad_request("n is over 1000"));
//!     }
//!     println!("{} asks for {} peers", caller.peer, request.n);
//!     Ok(stream::iter([Ok(GetPeersResponse::default())]))
//! });
//! let server = Server::new(router, ServerConfig::default());
//!
//! let (near, far) = tokio::io::duplex(4096);
//! let caller = Caller { peer: "alice", source: "192.0.2.0/24" };
//! let serving = tokio::spawn(server.serve(stream::iter([(caller, far)]).chain(stream::pending())));
//!
//! let mut client = Client::connect(near, ClientConfig::default()).await?;
//! let mut peers = client.stream::<_, GetPeersResponse>(10, &GetPeersRequest::default()).await?;
//! assert!(peers.next().await?.is_some());
//! assert!(peers.next().await?.is_none());
//! # serving.abort();
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod frame;
mod message;
mod metrics;
mod router;
mod server;
mod status;

pub use client::{
    Client, ClientConfig, DEFAULT_DEADLINE, DEFAULT_GRACE, DEFAULT_HANDSHAKE_WAIT, MAX_LATE_BYTES,
    Responses,
};
pub use error::{CallError, HandshakeError, ProtocolError, RejectReason};
pub use message::{MAX_PAYLOAD_BYTES, VERSION};
pub use metrics::describe_metrics;
pub use router::{Reply, Request, Router};
pub use server::{
    Caller, DEFAULT_HANDSHAKE_LIMIT, DEFAULT_IDLE_LIMIT, DEFAULT_MAX_DEADLINE,
    DEFAULT_MAX_PEER_SESSIONS, DEFAULT_MAX_SESSIONS, DEFAULT_REPLY_LIMIT, DEFAULT_WRITE_LIMIT,
    Server, ServerConfig, SessionError,
};
pub use status::{MAX_STATUS_TEXT_BYTES, Status, StatusCode};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
