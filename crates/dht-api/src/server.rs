//! The server: routes over a running node.

mod error;
mod extract;
mod guard;
mod http;
mod keep_alive;
mod mailboxes;
mod memory;
mod metrics;
mod newcomers;
mod openapi;
#[expect(unused_qualifications, reason = "in what `utoipa::path` expands to")]
mod routes;
mod serving;
mod socket;
mod state;
mod stream;
mod token;

use std::{io, net::SocketAddr, path::Path};

use tokio::{net::TcpListener, sync::watch};

pub use self::{
    mailboxes::Mailboxes,
    metrics::{Metrics, MetricsError, MetricsServer},
    openapi::openapi,
    serving::STOP_LIMIT,
    state::Parts,
};
use self::{serving::Serving, socket::SocketFile, state::Api, token::Token};
use crate::limits::Limits;

/// Serves the API until it is shut down or dropped.
///
/// ```no_run
/// use std::{path::Path, sync::Arc};
/// use dht_api::{ApiServer, Limits, Parts};
///
/// # async fn example(node: dht_node::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let parts = Parts::new(Arc::new(node));
/// let server = ApiServer::bind_unix(Path::new("home/api.sock"), parts, Limits::default()).await?;
/// // …
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ApiServer {
    address: Option<SocketAddr>,
    serving: Serving,
    /// Removed once the server stops.
    _socket: Option<SocketFile>,
}

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process serves at the socket.
    #[error("another process serves at {0}; stop it, or use another home")]
    InUse(String),
    /// The path belongs to something that is no socket.
    #[error("{0} exists and is no socket; move it away")]
    NotASocket(String),
    /// Somebody else could replace the socket.
    #[error("{0} can be written by other users; `chmod go-w` it, or use another folder")]
    SharedFolder(String),
    /// The address is not of this machine.
    #[error("{0} is not a loopback address; the API is served on this machine only")]
    NotLoopback(SocketAddr),
    /// Other users can read the token.
    #[error(
        "{0} can be read by other users; `chmod 600` it, and replace the token if they may have read it"
    )]
    SharedToken(String),
    /// The file holds no usable token.
    #[error(
        "{0} holds no token of 16 to 256 printable ASCII characters; remove it, and a new one is made"
    )]
    BadToken(String),
    /// The operating system refused.
    #[error("cannot serve at {at}")]
    Io {
        /// Path or address.
        at: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl BindError {
    fn io(at: impl ToString, source: io::Error) -> Self {
        Self::Io {
            at: at.to_string(),
            source,
        }
    }
}

impl ApiServer {
    /// Serves on a unix socket that only this user can connect to. Its folder is made if it is missing; a socket that
    /// a dead process left is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind_unix(path: &Path, parts: Parts, limits: Limits) -> Result<Self, BindError> {
        let (listener, socket) = SocketFile::bind(path).await?;
        Ok(Self::start(
            listener,
            None,
            parts,
            limits,
            None,
            Some(socket),
        ))
    }

    /// Serves on a loopback address to those who show the token in this file, which is made if it is missing.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind_tcp(
        address: SocketAddr,
        token_file: &Path,
        parts: Parts,
        limits: Limits,
    ) -> Result<Self, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let token = Token::load_or_make(token_file)?;
        let refused = |source| BindError::io(address, source);
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (token, address) = (Some(token), Some(address));
        Ok(Self::start(listener, token, parts, limits, address, None))
    }

    fn start(
        listener: impl http::Listen,
        token: Option<Token>,
        parts: Parts,
        limits: Limits,
        address: Option<SocketAddr>,
        socket: Option<SocketFile>,
    ) -> Self {
        let (stopping, stop) = watch::channel(false);
        let service = http::Service {
            router: routes::router(Api::new(parts, limits.clone(), stop.clone())),
            token,
            keep_alive: true,
            limits,
        };
        Self {
            address,
            serving: Serving::start(stopping, http::serve(listener, service, stop)),
            _socket: socket,
        }
    }

    /// Address served on, with its real port; `None` for a unix socket.
    #[must_use]
    pub const fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends when the server serves no more, which it does before [`shutdown`](Self::shutdown) only if its task panicked.
    pub async fn ended(&self) {
        self.serving.ended().await;
    }

    /// Stops in order, within [`STOP_LIMIT`]: no new connections; requests under way are answered; streams end.
    pub async fn shutdown(self) {
        self.serving.stop().await;
    }
}
