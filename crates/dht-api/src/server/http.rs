//! Accepts connections and serves them within limits.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header::AUTHORIZATION},
    response::IntoResponse as _,
};
use futures::{
    FutureExt as _,
    future::{Either, ready},
};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::{
    error::ApiError,
    guard::WriteGuard,
    keep_alive::{IdleConnections, KeepAlive},
    newcomers::{Newcomer, Newcomers},
    token::Token,
};
use crate::limits::{Limits, MAX_HEAD_BYTES, MAX_HEADERS};

/// Pause after the operating system refused to accept, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
pub(super) trait Listen: Send + Sync + 'static {
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

impl Listen for TcpListener {
    type Socket = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Socket> {
        let (socket, _) = Self::accept(self).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

/// Service, its users, and its limits.
pub(super) struct Service {
    pub(super) router: Router,
    /// Shown by every request; `None` if everybody who can connect is admitted.
    pub(super) token: Option<Token>,
    /// Whether a connection may carry several requests. One that may not stays a newcomer until its answer is written, so
    /// that it holds no place that another one needs.
    pub(super) keep_alive: bool,
    pub(super) limits: Limits,
}

/// Serves until told to stop and every connection has ended. Without a free place, one is closed for the next: the oldest
/// on which no request was admitted (or, without a second request, none was answered), or else the one that has waited longest for its next request.
pub(super) async fn serve(
    listener: impl Listen,
    service: Service,
    mut stopping: watch::Receiver<bool>,
) {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(service.limits.connections.max(1)));
    let (newcomers, idle) = (Newcomers::default(), IdleConnections::default());
    // Aborts them when dropped.
    let mut connections = JoinSet::new();
    // Accepted, and waits for a place.
    let mut arrived = None;
    // A newcomer was ended for it.
    let mut is_awaited = false;
    loop {
        let placed = async {
            if arrived.is_none() {
                arrived = Some(listener.accept().await?);
                is_awaited = false;
            }
            let mut place = std::pin::pin!(Arc::clone(&places).acquire_owned());
            loop {
                if !is_awaited && places.available_permits() == 0 {
                    is_awaited = newcomers.evict();
                    if !is_awaited {
                        idle.evict();
                    }
                }
                tokio::select! {
                    biased;
                    // Correctness: the semaphore is never closed.
                    place = place.as_mut() => return io::Result::Ok(place.ok()),
                    () = idle.changed() => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(_ended) = connections.join_next() => {}
            placed = placed => match (placed, arrived.take()) {
                (Ok(place), Some(socket)) => {
                    let newcomer = newcomers.enter(service.limits.first_request());
                    let seat = (newcomer, idle.enter());
                    let serving = connection(socket, Arc::clone(&service), seat, stopping.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    tracing::warn!(%error, "connection to the API was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop((listener, arrived));
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Arc<Service>,
    ((newcomer, given_up), keep_alive): ((Newcomer, impl Future<Output = ()>), KeepAlive),
    mut stopping: watch::Receiver<bool>,
) {
    let limits = &service.limits;
    let output = keep_alive.output();
    let guard = WriteGuard::new(socket, limits.write(), move || output.flushed());
    let socket = TokioIo::new(guard);
    let router = TowerToHyperService::new(service.router.clone());
    let admitted = service_fn(|request: Request<Incoming>| {
        let shown = request.headers().get(AUTHORIZATION);
        let shown = shown.map(HeaderValue::as_bytes);
        match &service.token {
            Some(token) if !token.is_shown_by(shown) => {
                Either::Left(ready(Ok(ApiError::unauthorized().into_response())))
            }
            _ => {
                if service.keep_alive {
                    newcomer.admit();
                }
                let busy = keep_alive.begin();
                Either::Right(router.call(request).map(|answered| {
                    // Dropped with the body, when all of it is handed to the connection.
                    let hold = move |error| {
                        let _busy = &busy;
                        error
                    };
                    answered.map(|response| response.map(|body| Body::new(body.map_err(hold))))
                }))
            }
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head())
            .keep_alive(service.keep_alive)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(socket, admitted)
    );
    let mut given_up = std::pin::pin!(given_up);
    let ended = tokio::select! {
        // A request that has come is begun before it is asked who is to end.
        biased;
        () = given_up.as_mut() => return,
        ended = connection.as_mut() => ended,
        () = async {
            tokio::select! {
                () = stopped(&mut stopping) => {}
                () = keep_alive.evicted() => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = given_up.as_mut() => return,
                ended = connection => ended,
                () = keep_alive.overdue() => return,
            }
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

#[cfg(test)]
mod tests;
