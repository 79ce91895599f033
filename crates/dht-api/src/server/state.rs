//! State of the routes.

use std::sync::Arc;

use dht_core::{SharedClock, SystemClock, UnixSeconds};
use dht_node::Node;
use dht_spool::{Inbox, Outbox};
use dht_stack::{ByteBudget, BytePermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{error::ApiError, memory};
use crate::{
    limits::Limits,
    types::{ErrorCode, Health, Problem, Version},
};

/// Node and settings that a server serves.
#[derive(Clone)]
pub struct Parts {
    /// Node whose API is served.
    pub node: Arc<Node>,
    /// Its durable inbox; `None` without a home.
    pub inbox: Option<Inbox>,
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
    /// Memory for lists and streamed messages.
    pub(super) responses: ByteBudget,
    pub(super) stopping: watch::Receiver<bool>,
    blocking: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Parts {
    /// A node and its inbox, with the clock of the operating system.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            inbox: node.inbox().cloned(),
            node,
            clock: Arc::new(SystemClock),
        }
    }

    /// Parts of the node that have stopped for good: only a restart helps.
    pub(super) fn failures(&self) -> impl Iterator<Item = Problem> + use<> {
        let failures = self.node.failures().into_iter();
        failures
            .map(|(part, reason)| problem("part_failed", format!("{part} has stopped: {reason}")))
    }

    /// Whether the node can do its work, and every problem it has. Without peers it cannot, unless none is configured: then
    /// it is the first of its network, and waits until others connect.
    pub(super) fn health(&self) -> Health {
        let mut problems: Vec<_> = self.failures().collect();
        let mut add = |is_so: bool, code: &str, message: &str| {
            if is_so {
                problems.push(problem(code, message));
            }
        };
        let inbox = self.inbox.as_ref().map(Inbox::stats);
        add(
            inbox.as_ref().is_some_and(|stats| stats.full),
            "inbox_full",
            "the inbox is full: senders and holders keep what is for this node",
        );
        let outbox = self.node.outbox().map(Outbox::stats);
        add(
            outbox.as_ref().is_some_and(|stats| stats.full),
            "outbox_full",
            "the outbox is full: nothing more is taken for sending",
        );
        add(
            inbox.is_some_and(|stats| stats.last_commit_failed),
            "inbox_unwritable",
            "the last commit to the inbox failed (is the disk full?): senders and holders keep what is for this node",
        );
        add(
            outbox.is_some_and(|stats| stats.last_commit_failed),
            "outbox_unwritable",
            "the last commit to the outbox failed (is the disk full?)",
        );
        if let Some(message) = self.node.onion_problem() {
            problems.push(problem("onion_service", message));
        }
        let is_alone = self.node.stats().connections == 0;
        let waits = is_alone && self.node.config().has_no_bootstrap();
        let ok = problems.is_empty() && (waits || !is_alone);
        let message = if waits {
            "no peer is connected, and none is configured: the node waits until others connect"
        } else {
            "no peer is connected"
        };
        if is_alone {
            problems.push(problem("nobody_connected", message));
        }
        Health {
            version: Version,
            ok,
            problems,
        }
    }
}

pub(super) fn problem(code: &str, message: impl Into<String>) -> Problem {
    Problem {
        code: code.to_owned(),
        message: message.into(),
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
            responses: ByteBudget::new(limits.responses_bytes),
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

    /// Waits for the memory of a list of so many entries.
    pub(super) async fn list_memory(&self, entries: usize) -> BytePermit {
        let bytes = entries.saturating_mul(memory::ENTRY_BYTES);
        self.responses.acquire(bytes).await
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
