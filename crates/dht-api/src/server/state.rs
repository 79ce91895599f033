//! State of the routes.

use std::sync::Arc;

use dht_core::{SharedClock, SystemClock, UnixSeconds};
use dht_node::{Config, Node};
use dht_spool::{Inbox, Outbox};
use dht_stack::ByteBudget;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::ApiError;
use crate::{
    limits::Limits,
    types::{ErrorCode, Problem},
};

/// Node and settings that a server serves.
#[derive(Clone)]
pub struct Parts {
    /// Node whose API is served.
    pub node: Arc<Node>,
    /// Its durable inbox; `None` without a home.
    pub inbox: Option<Inbox>,
    /// Settings it runs with, as they are shown to clients.
    pub config: Config,
    /// Clock of the node.
    pub clock: SharedClock,
}

/// State of the routes.
pub(super) struct Api {
    pub(super) parts: Parts,
    pub(super) limits: Limits,
    pub(super) started_at: UnixSeconds,
    /// Memory for bodies of requests.
    pub(super) bodies: ByteBudget,
    pub(super) stopping: watch::Receiver<bool>,
    blocking: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Parts {
    /// A node and its inbox, with default settings and the clock of the operating system.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            inbox: node.inbox().cloned(),
            node,
            config: Config::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Parts of the node that have stopped for good: only a restart helps.
    pub(super) fn failures(&self) -> impl Iterator<Item = Problem> + use<> {
        let failures = self.node.failures().into_iter();
        failures.map(|(part, reason)| Problem {
            code: "part_failed".to_owned(),
            message: format!("{part} has stopped: {reason}"),
        })
    }

    /// Conditions that keep the node from its work.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = self.failures().collect();
        let mut add = |is_so: bool, code: &str, message: &str| {
            if is_so {
                problems.push(Problem {
                    code: code.to_owned(),
                    message: message.to_owned(),
                });
            }
        };
        let is_alone = self.node.stats().connections == 0 && !self.config.peers.is_empty();
        add(is_alone, "nobody_connected", "no peer is connected");
        let inbox = self.inbox.as_ref().map(Inbox::stats);
        add(
            inbox.is_some_and(|stats| stats.full),
            "inbox_full",
            "the inbox is full: senders and holders keep what is for this node",
        );
        let outbox = self.node.outbox().map(Outbox::stats);
        add(
            outbox.is_some_and(|stats| stats.full),
            "outbox_full",
            "the outbox is full: nothing more is taken for sending",
        );
        problems
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(parts: Parts, limits: Limits, stopping: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self {
            started_at: parts.clock.now(),
            bodies: ByteBudget::new(limits.bodies_bytes.max(limits.body_bytes)),
            blocking: Arc::new(Semaphore::new(limits.blocking.max(1))),
            streams: Arc::new(Semaphore::new(limits.streams)),
            parts,
            limits,
            stopping,
        })
    }

    pub(super) fn now(&self) -> UnixSeconds {
        self.parts.clock.now()
    }

    pub(super) fn inbox(&self) -> Result<&Inbox, ApiError> {
        self.parts.inbox.as_ref().ok_or_else(ApiError::no_home)
    }

    pub(super) fn outbox(&self) -> Result<&Outbox, ApiError> {
        self.parts.node.outbox().ok_or_else(ApiError::no_home)
    }

    /// Runs something that blocks on this server's share of the blocking pool.
    pub(super) async fn blocking<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
    {
        // Correctness: the semaphore is never closed.
        let place = Arc::clone(&self.blocking).acquire_owned().await.ok();
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        match done.await {
            Ok(done) => done.map_err(Into::into),
            // It panicked, or the runtime ends.
            Err(_) => Err(ApiError::new(ErrorCode::Internal, "the request failed")),
        }
    }

    /// A place for one more stream.
    pub(super) fn open_stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let limit = self.limits.streams;
            let message = format!("{limit} streams are open, as many as are allowed");
            ApiError::new(ErrorCode::TooManyStreams, message)
                .with_hint("close one, or read with GET /v1/inbox")
        })
    }
}
