//! The node itself.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use bytes::Bytes;
use dht_node::{Event, EventStream, FetchError, FetchSummary, SafEvent};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::sleep,
};

use super::{
    super::{
        error::{ApiError, json},
        extract::NoBody,
        http::stopped,
        mailboxes::Mailboxes,
        state::{Api, Parts},
        stream::{self, ALIVE, ALIVE_EVERY, END, Source},
    },
    peers::ban_entry,
};
use crate::types::{
    DamagedFiles, ErrorBody, ErrorCode, FetchReport, InboxUsage, NodeConfig, NodeEvent,
    NodeEventKind, OutboxUsage, Status, StoreReport, StoreUsage, Totals, Version,
};

/// Status of the node now.
#[utoipa::path(
    get, path = "/v1/status", tag = "node", operation_id = "status",
    responses(
        (status = 200, description = "The node", body = Status),
        (status = "default", description = "No answer", body = ErrorBody),
    )
)]
pub(in super::super) async fn status(State(api): State<Arc<Api>>) -> Response {
    let parts = &api.parts;
    let (node, stats) = (&parts.node, parts.node.stats());
    let (health, config) = (parts.health(), node.config());
    let status = Status {
        version: Version,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        now_at: api.now().0,
        started_at: api.started_at.0,
        public_key: *node.public_key(),
        node_id: node.public_key().node_id(),
        peer_address: node.peer_address().to_string(),
        network: config.network.to_string(),
        listen: node
            .listen_addresses()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ready: health.ok,
        problems: health.problems,
        connections: stats.connections as u64,
        known_peers: stats.known_peers as u64,
        totals: Totals {
            handshakes: stats.handshakes,
            bytes_received: stats.bytes_received,
            bytes_sent: stats.bytes_sent,
            messages_received: stats.messages_received,
            delivered: stats.delivered,
            forwarded: stats.forwarded,
            stored: stats.stored,
            duplicates_dropped: stats.duplicates_dropped,
            dropped: stats.dropped,
            drops: stats
                .drops
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
            unsent: stats.unsent,
            memory_used_bytes: stats.memory_used_bytes as u64,
            memory_limit_bytes: stats.memory_limit_bytes as u64,
            queued_bytes: stats.queued_bytes as u64,
        },
        inbox: inbox_usage(parts),
        outbox: outbox_usage(parts),
        store: store_usage(parts),
        damaged_files: damaged_files(parts),
    };
    json(StatusCode::OK, &status)
}

fn damaged_files(parts: &Parts) -> DamagedFiles {
    let files = parts.node.damaged_files();
    DamagedFiles {
        peers: files.peers,
        seen: files.seen,
        ledgers: files.ledgers,
    }
}

fn inbox_usage(parts: &Parts) -> Option<InboxUsage> {
    let stats = parts.inbox.as_ref()?.stats();
    Some(InboxUsage {
        messages: stats.rows,
        bytes: stats.bytes,
        full: stats.full,
        refused: stats.refused,
        over_share: stats.over_share,
        expired: stats.expired,
        damaged: stats.damaged,
        damaged_files: stats.damaged_files,
        newest: stats.newest,
    })
}

fn outbox_usage(parts: &Parts) -> Option<OutboxUsage> {
    let stats = parts.node.outbox()?.stats();
    Some(OutboxUsage {
        messages: stats.rows,
        bytes: stats.bytes,
        waiting: stats.waiting,
        ended: stats.ended,
        full: stats.full,
        refused: stats.refused,
        damaged_files: stats.damaged_files,
    })
}

fn store_usage(parts: &Parts) -> Option<StoreUsage> {
    Some(Mailboxes::new(parts.node.mailboxes()?).usage())
}

/// Statistics of the messages that the node stores now.
#[utoipa::path(
    get, path = "/v1/store", tag = "node", operation_id = "store",
    responses(
        (status = 200, description = "Counts", body = StoreReport),
        (status = "default", description = "No answer", body = ErrorBody),
    )
)]
pub(in super::super) async fn store(State(api): State<Arc<Api>>) -> Response {
    let report = StoreReport {
        version: Version,
        store: store_usage(&api.parts),
        inbox: inbox_usage(&api.parts),
        outbox: outbox_usage(&api.parts),
        remembered: api.parts.node.remembered().map(|count| count as u64),
    };
    json(StatusCode::OK, &report)
}

/// Ask connected peers for the messages they store for this node. They come to the inbox.
#[utoipa::path(
    post, path = "/v1/fetch", tag = "node", operation_id = "fetch",
    responses(
        (status = 200, description = "Every peer answered, or was given up", body = FetchReport),
        (status = "default", description = "Not fetched", body = ErrorBody),
    )
)]
pub(in super::super) async fn fetch(
    State(api): State<Arc<Api>>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let fetched = api.parts.node.fetch_stored().await;
    let summary = fetched.map_err(|error| {
        let code = match error {
            FetchError::Disabled => ErrorCode::Disabled,
            FetchError::NobodyToAsk => {
                let message = "no node is connected that could store messages";
                return ApiError::nobody_connected(message);
            }
            _ => ErrorCode::PeerFailed,
        };
        ApiError::new(code, error.to_string())
    })?;
    Ok(json(StatusCode::OK, &fetch_report(summary)))
}

const fn fetch_report(summary: FetchSummary) -> FetchReport {
    FetchReport {
        version: Version,
        asked: summary.asked,
        answered: summary.answered,
        silent: summary.silent,
        new: summary.new,
        known: summary.known,
        refused: summary.refused,
    }
}

/// Settings in force, with those that were read again.
#[utoipa::path(
    get, path = "/v1/config", tag = "node", operation_id = "config",
    responses(
        (status = 200, description = "The settings", body = NodeConfig),
        (status = "default", description = "No answer", body = ErrorBody),
    )
)]
pub(in super::super) async fn config(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let config = serde_json::to_value(api.parts.node.config())
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let config = NodeConfig {
        version: Version,
        config,
    };
    Ok(json(StatusCode::OK, &config))
}

/// Events from now on: messages dropped, bans, fetches, as server-sent events. A client that reads too slowly is
/// told how many events it missed.
#[utoipa::path(
    get, path = "/v1/events", tag = "node", operation_id = "events",
    responses(
        (status = 200, description = "Events `node`; `end` when the node stops", body = NodeEvent, content_type = "text/event-stream"),
        (status = "default", description = "No stream", body = ErrorBody),
    )
)]
pub(in super::super) async fn events(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let place = api.open_stream()?;
    Ok(stream::response(Events {
        events: api.parts.node.events(),
        stopping: api.stopping.clone(),
        api,
        is_open: false,
        has_ended: false,
        _place: place,
    }))
}

/// One stream of events.
struct Events {
    api: Arc<Api>,
    events: EventStream,
    stopping: watch::Receiver<bool>,
    /// Whether a first piece was handed out.
    is_open: bool,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Source for Events {
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        if !std::mem::replace(&mut self.is_open, true) {
            return Some(ALIVE);
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => {}
                event = self.events.recv() => match event.map(kind) {
                    Some(Some(kind)) => {
                        let event = NodeEvent {
                            version: Version,
                            at: self.api.now().0,
                            kind,
                        };
                        return Some(stream::event("node", &event));
                    }
                    Some(None) => continue,
                    None => {}
                },
                () = sleep(ALIVE_EVERY) => return Some(ALIVE),
            }
            self.has_ended = true;
            return Some(END);
        }
    }
}

fn kind(event: Event) -> Option<NodeEventKind> {
    Some(match event {
        Event::Dropped { from, reason } => NodeEventKind::Dropped {
            from,
            reason: reason.name().to_owned(),
        },
        Event::Unsent { to, reason, .. } => NodeEventKind::Unsent {
            to,
            reason: reason.to_string(),
        },
        Event::Banned(ban) => NodeEventKind::Banned {
            ban: Box::new(ban_entry(&ban)),
        },
        Event::Saf(SafEvent::CaughtUp(summary)) => NodeEventKind::Fetched {
            summary: fetch_report(summary),
        },
        Event::InboxRefused(error) => NodeEventKind::InboxRefused {
            reason: error.to_string(),
        },
        Event::Missed { events } => NodeEventKind::Missed { events },
        _ => return None,
    })
}
