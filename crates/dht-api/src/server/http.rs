//! Accepts connections and serves them within limits.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::guard::WriteGuard;
use crate::limits::{Limits, MAX_HEAD_BYTES, MAX_HEADERS};

/// Pause after the operating system refused to accept, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
pub(super) trait Listen: Send + Sync + 'static {
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

impl Listen for UnixListener {
    type Socket = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Socket> {
        Ok(Self::accept(self).await?.0)
    }
}

impl Listen for TcpListener {
    type Socket = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Socket> {
        let (socket, _) = Self::accept(self).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

/// Serves until told to stop and every connection has ended.
pub(super) async fn serve(
    listener: impl Listen,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections.max(1)));
    // Aborts them when dropped.
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Correctness: the semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            // An error means that the server was dropped.
            () = stopped(&mut stopping) => break,
            Some(_ended) = connections.join_next() => {}
            (place, socket) = accepted => match socket {
                Ok(socket) => {
                    let serving = connection(socket, router.clone(), limits.clone(), stopping.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "connection to the API was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let socket = TokioIo::new(WriteGuard::new(socket, limits.write()));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head())
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(socket, TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to the API failed");
    }
}

/// Waits until the server stops or was dropped.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The guard that a success returns must not live on; an error means that the server was dropped.
    let _ = stopping.wait_for(|stop| *stop).await.map(drop);
}
