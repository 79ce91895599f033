//! Connections that are kept between requests.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

use super::ClientError;
use crate::socket_path::SocketPath;

/// Idle connections kept: 32, half of what a server takes. Those in use are as many as there are requests.
const MAX_IDLE: usize = 32;

type Body = Full<Bytes>;

/// Where the node listens.
pub(super) enum Target {
    Unix(PathBuf),
    Tcp {
        address: SocketAddr,
        authorization: HeaderValue,
    },
}

/// Connections to one node.
pub(super) struct Connections {
    target: Target,
    idle: Mutex<Vec<SendRequest<Body>>>,
    /// Tasks that drive the connections; dropping the set aborts them.
    drivers: Mutex<JoinSet<()>>,
}

/// A connection in use. Dropped, it closes once the response is read.
pub(super) struct Lease {
    connections: Arc<Connections>,
    sender: SendRequest<Body>,
}

impl Connections {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
            drivers: Mutex::default(),
        }
    }

    /// Sends a request over an idle connection, or else a new one. An idle connection that the node closed before it
    /// read anything of the request is replaced.
    pub(super) async fn request(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Lease), ClientError> {
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().insert(HOST, host);
        if let Target::Tcp { authorization, .. } = &self.target {
            let value = authorization.clone();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        loop {
            let idle = self.idle.lock().pop();
            let is_new = idle.is_none();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            if let Err(error) = sender.ready().await {
                if is_new {
                    return Err(ClientError::Connection(error));
                }
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let connections = Arc::clone(self);
                    let lease = Lease {
                        connections,
                        sender,
                    };
                    return Ok((response, lease));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(ClientError::Connection(failed.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let refused = |source: io::Error| ClientError::Connect {
            at: self.target.to_string(),
            source,
        };
        match &self.target {
            Target::Unix(path) => {
                let path = SocketPath::new(path).map_err(refused)?;
                let stream = UnixStream::connect(&path).await.map_err(refused)?;
                self.start(stream).await
            }
            Target::Tcp { address, .. } => {
                let stream = TcpStream::connect(address).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                self.start(stream).await
            }
        }
    }

    async fn start(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<Body>, ClientError> {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Connection)?;
        let mut drivers = self.drivers.lock();
        while drivers.try_join_next().is_some() {}
        // Ends with the sender and the last response, at the latest with the client; its error is the request's.
        drivers.spawn(async move {
            let _reported = connection.await;
        });
        Ok(sender)
    }
}

impl Lease {
    /// Keeps the connection for the next request.
    pub(super) fn give_back(self) {
        if !self.sender.is_closed() {
            let mut idle = self.connections.idle.lock();
            if idle.len() < MAX_IDLE {
                idle.push(self.sender);
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { address, .. } => address.fmt(f),
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        f.debug_struct("Connections")
            .field("target", &format_args!("{}", self.target))
            .finish_non_exhaustive()
    }
}
