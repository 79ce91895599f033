//! The answering side: any number of sessions, with one service.

use std::{sync::Arc, time::Duration};

use dht_proto::limits;
use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tower_service::Service;

use crate::{
    error::RejectReason,
    frame::FrameWriter,
    message::rejected,
    metrics,
    router::{Reply, Request},
    status::Status,
};

mod session;
mod table;

pub use session::SessionError;

use session::Session;
use table::{Limits, Sessions};

/// Sessions of all peers (specification 02, section 16).
pub const DEFAULT_MAX_SESSIONS: usize = 100;
/// Sessions of one peer (specification 02, section 16).
pub const DEFAULT_MAX_PEER_SESSIONS: usize = 10;
/// Time for the handshake of a session (specification 02, section 8.1).
pub const DEFAULT_HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
/// Time between two requests after which a session is closed (specification 02, section 16).
pub const DEFAULT_IDLE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Longest deadline that a client gets (specification 02, section 16).
pub const DEFAULT_MAX_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Time for all responses to one call: the longest deadline.
pub const DEFAULT_REPLY_LIMIT: Duration = DEFAULT_MAX_DEADLINE;
/// Time in which the client must take what is written at one time (specification 02, section 16).
pub const DEFAULT_WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Rejections that are written at one time; the streams of further ones are dropped without a reason.
const MAX_REJECTIONS: usize = 32;

/// Limits of a [`Server`].
///
/// # Security
/// A session may take [`max_request_bytes`](Self::max_request_bytes) while a request arrives, and 32 KiB and a response
/// while responses wait for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Most sessions of all peers, those in their handshake included. Defaults to [`DEFAULT_MAX_SESSIONS`].
    pub max_sessions: usize,
    /// Most sessions of one peer. Defaults to [`DEFAULT_MAX_PEER_SESSIONS`].
    pub max_peer_sessions: usize,
    /// Bytes of the longest request that is read. Defaults to 4 MiB, the longest there may be.
    pub max_request_bytes: usize,
    /// Time for the handshake. Defaults to [`DEFAULT_HANDSHAKE_LIMIT`].
    pub handshake_limit: Duration,
    /// Time between two requests after which a session is closed. Defaults to [`DEFAULT_IDLE_LIMIT`].
    pub idle_limit: Duration,
    /// Longest deadline that a client gets; a longer one is shortened. Defaults to [`DEFAULT_MAX_DEADLINE`].
    pub max_deadline: Duration,
    /// Time for all responses to one call. Defaults to [`DEFAULT_REPLY_LIMIT`].
    pub reply_limit: Duration,
    /// Time in which the client must take what is written at one time. Defaults to [`DEFAULT_WRITE_LIMIT`].
    pub write_limit: Duration,
}

/// The peer that opens a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller<P, G> {
    /// Authenticated peer, by whose sessions [`ServerConfig::max_peer_sessions`] goes.
    pub peer: P,
    /// Source group from which the peer is connected, by whose sessions a full server makes room.
    pub source: G,
}

/// Answers sessions with a tower service of [`Request`]s, such as a [`Router`](crate::Router).
///
/// When there is no room for a session, the one that has been idle longest makes it: one of the same peer if the peer has
/// [too many](ServerConfig::max_peer_sessions), else one of the source with most sessions. If none is idle, a source with at
/// least two more sessions than the newcomer's loses its oldest. A source never takes a session from one that has
/// fewer: then the newcomer is rejected with [`RejectReason::NoServerSessions`], without being read.
#[derive(Clone, Debug)]
pub struct Server<S> {
    service: S,
    config: ServerConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_peer_sessions: DEFAULT_MAX_PEER_SESSIONS,
            max_request_bytes: limits::MAX_RPC_FRAME_BYTES,
            handshake_limit: DEFAULT_HANDSHAKE_LIMIT,
            idle_limit: DEFAULT_IDLE_LIMIT,
            max_deadline: DEFAULT_MAX_DEADLINE,
            reply_limit: DEFAULT_REPLY_LIMIT,
            write_limit: DEFAULT_WRITE_LIMIT,
        }
    }
}

// === impl Server ===

impl<S> Server<S> {
    /// A server of this service. Each session has a clone of it.
    pub const fn new(service: S, config: ServerConfig) -> Self {
        Self { service, config }
    }

    /// Answers every stream as one session, until `streams` ends; sessions then under way are dropped. Each stream comes
    /// with the peer that opened it, past the negotiation of its protocol. A service that panics ends its session.
    ///
    /// # Cancel safety
    /// Dropping the future drops all sessions.
    pub async fn serve<P, G, T>(self, streams: impl Stream<Item = (Caller<P, G>, T)>)
    where
        S: Service<Request<Caller<P, G>>, Response = Reply, Error = Status>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        P: Clone + Ord + Send + Sync + 'static,
        G: Clone + Ord + Send + Sync + 'static,
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { service, config } = self;
        let table = Sessions::new(Limits {
            total: config.max_sessions,
            peer: config.max_peer_sessions,
        });
        let rejections = Arc::new(Semaphore::new(MAX_REJECTIONS));
        let mut streams = std::pin::pin!(streams);
        let mut tasks = JoinSet::new();
        loop {
            let (caller, stream) = tokio::select! {
                biased;
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                stream = streams.next() => match stream {
                    Some(stream) => stream,
                    None => return,
                },
            };
            if let Some((slot, culled)) = table.admit(caller.clone()) {
                let session = Session::new(stream, caller, service.clone(), config);
                tasks.spawn(async move {
                    let ended = tokio::select! {
                        biased;
                        // Nothing is sent: the end of the wait is the drop of the sender.
                        _ = culled => Err(SessionError::Culled),
                        ended = session.run(&slot) => ended,
                    };
                    let cause = ended
                        .as_ref()
                        .map_or_else(SessionError::name, |()| "closed");
                    metrics::session_ended(cause);
                    if let Err(error) = ended {
                        tracing::debug!(?error, "session ended");
                    }
                });
            } else {
                metrics::session_refused();
                if let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() {
                    tasks.spawn(async move {
                        let mut writer = FrameWriter::new(tokio::io::split(stream).1);
                        writer.push(&rejected(RejectReason::NoServerSessions));
                        let _ = timeout(config.write_limit, writer.close()).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}
