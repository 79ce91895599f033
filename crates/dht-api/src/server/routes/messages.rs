//! Sending.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use dht_core::{Destination, PublicKey};
use dht_node::{Delivery, MAX_PAYLOAD_BYTES, Message, SendOptions};
use dht_spool::{Entry, EntryFilter, SendState, StateKind};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::super::{
    error::{ApiError, json},
    extract::{Id, JsonBody, Parameters, in_range},
    http::stopped,
    memory,
    state::Api,
};
use crate::types::{
    ErrorBody, ErrorCode, GossipReport, MAX_TTL_SECONDS, MessageList, MessageState, NewGossip,
    NewMessage, OutgoingMessage, Version, text,
};

/// Time for which a request waits for another state: 25 s, less than a client or proxy waits for an answer.
const WAIT_LIMIT: Duration = Duration::from_secs(25);
/// Messages of one page.
const DEFAULT_PAGE: usize = 100;
/// Most messages of one page.
const MAX_PAGE: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Wait {
    /// Answer once the message is in another state than this or has ended, or after 25 s as it is.
    unlike: Option<MessageState>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Only messages in this state.
    state: Option<MessageState>,
    /// Only messages for this public key.
    #[serde(default, with = "text::option")]
    #[param(value_type = Option<String>)]
    to: Option<PublicKey>,
    /// Only messages with a larger id.
    after: Option<u64>,
    /// Most messages, 1 to 1 000. Defaults to 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Queue a message for a recipient. It is durable once this answers; see its state with `GET /v1/messages/{id}`.
#[utoipa::path(
    post, path = "/v1/messages", tag = "messages", operation_id = "send",
    request_body = NewMessage,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, description = "1 to 128 bytes: the same message with the same key is sent once and answered with the same id")),
    responses(
        (status = 202, description = "Queued, now or earlier with the same idempotency key", body = OutgoingMessage),
        (status = "default", description = "Not queued", body = ErrorBody),
    )
)]
pub(in super::super) async fn send(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    JsonBody(mut message, _memory): JsonBody<NewMessage>,
) -> Result<Response, ApiError> {
    let payload = message
        .content()
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    if payload.len() > MAX_PAYLOAD_BYTES {
        let message = format!("the payload has more than {MAX_PAYLOAD_BYTES} bytes");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let ttl_seconds = message.ttl_seconds.unwrap_or(MAX_TTL_SECONDS);
    let ttl_seconds = in_range("ttl_seconds", ttl_seconds, 1..=MAX_TTL_SECONDS)?;
    // Without a home nothing would tell what became of the message.
    api.outbox()?;
    let options = SendOptions {
        ttl_seconds,
        direct_only: message.direct_only,
        replicas: message.replicas.map(NonZeroU8::get),
        key: idempotency_key(&headers, message.key)?,
    };
    let content = Message {
        message_type: message.message_type,
        payload,
    };
    let delivery = api.parts.node.send(&message.to, content, options).await?;
    let message = match delivery.entry() {
        Some(entry) => outgoing(entry.clone(), &delivery),
        None => find(&api, delivery.id(), &delivery).await?,
    };
    Ok(json(StatusCode::ACCEPTED, &message))
}

fn idempotency_key(headers: &HeaderMap, field: Option<String>) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(field);
    };
    if values.next().is_some() {
        let message = "`Idempotency-Key` is given more than once";
        return Err(ApiError::bad_request(message));
    }
    let header = value
        .to_str()
        .map_err(|_| ApiError::bad_request("`Idempotency-Key` is not printable ASCII"))?;
    if field.is_some_and(|field| field != header) {
        let message = "`Idempotency-Key` and `key` name different keys";
        return Err(ApiError::bad_request(message));
    }
    Ok(Some(header.to_owned()))
}

/// The state of a message, at once or when it changes.
#[utoipa::path(
    get, path = "/v1/messages/{id}", tag = "messages", operation_id = "message",
    params(("id" = u64, Path, description = "Id of the message"), Wait),
    responses(
        (status = 200, description = "The message", body = OutgoingMessage),
        (status = "default", description = "No such message, or it ended and left", body = ErrorBody),
    )
)]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Parameters(wait): Parameters<Wait>,
) -> Result<Response, ApiError> {
    let deadline = Instant::now() + WAIT_LIMIT;
    let mut changes = api.outbox()?.changes();
    let mut stopping = api.stopping.clone();
    let mut delivery = delivery(&api, id).await?;
    loop {
        changes.mark_unchanged();
        let message = find(&api, id, &delivery).await?;
        let has_ended = message.state.has_ended() || message.ended_at.is_some();
        if wait.unlike != Some(message.state) || has_ended {
            return Ok(json(StatusCode::OK, &message));
        }
        let changed = async {
            tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                Some(_) = delivery.next() => true,
                () = stopped(&mut stopping) => false,
            }
        };
        if !matches!(timeout_at(deadline, changed).await, Ok(true)) {
            return Ok(json(StatusCode::OK, &message));
        }
    }
}

/// Withdraw a message: it is not tried any more, and its state becomes `failed`. A copy that has left is not called back. A
/// message that has ended, or that holders store and will deliver, is not withdrawn.
#[utoipa::path(
    delete, path = "/v1/messages/{id}", tag = "messages", operation_id = "withdraw",
    params(("id" = u64, Path, description = "Id of the message")),
    responses(
        (status = 200, description = "Withdrawn: the message as it is now", body = OutgoingMessage),
        (status = 409, description = "It is stored or has ended, and stays so", body = ErrorBody),
        (status = "default", description = "No such message, or not withdrawn", body = ErrorBody),
    )
)]
pub(in super::super) async fn withdraw(
    State(api): State<Arc<Api>>,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let delivery = delivery(&api, id).await?;
    let is_withdrawn = api.parts.node.withdraw(id).await?;
    let message = find(&api, id, &delivery).await?;
    match is_withdrawn {
        true => Ok(json(StatusCode::OK, &message)),
        false => Err(not_withdrawn(&message)),
    }
}

/// Why a message cannot be withdrawn any more.
fn not_withdrawn(message: &OutgoingMessage) -> ApiError {
    let id = message.id;
    let why = match message.state {
        MessageState::Queued => format!("message {id} is not tried any more: the node stops"),
        MessageState::Sent => format!("message {id} was sent to a peer that gives no receipts"),
        MessageState::Stored => {
            let holders = message.holders.unwrap_or(1);
            format!("message {id} is stored by {holders} other nodes, which deliver it")
        }
        MessageState::Received => format!("message {id} was received"),
        MessageState::Expired => format!("message {id} has expired already"),
        MessageState::Failed => {
            let reason = message.reason.as_deref().unwrap_or("no reason given");
            format!("message {id} has failed already: {reason}")
        }
    };
    ApiError::new(ErrorCode::Conflict, why)
        .with_hint("only a message that is queued, or sent and still tried, can be withdrawn")
}

/// Messages in order of their ids.
#[utoipa::path(
    get, path = "/v1/messages", tag = "messages", operation_id = "messages",
    params(ListQuery),
    responses(
        (status = 200, description = "A page", body = MessageList),
        (status = "default", description = "No page", body = ErrorBody),
    )
)]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, ApiError> {
    let limit = page(query.limit)?;
    let filter = EntryFilter {
        state: query.state.map(kind),
        recipient: query.to,
    };
    let (outbox, after) = (api.outbox()?.clone(), query.after);
    let memory = api.list_memory(limit).await;
    let entries = api
        .blocking(move || outbox.list(filter, after, limit))
        .await?;
    let next = (entries.len() == limit)
        .then(|| entries.last().map(|entry| entry.id))
        .flatten();
    let list = MessageList {
        version: Version,
        messages: entries.into_iter().map(listed).collect(),
        next,
    };
    Ok(memory::list(memory, &list))
}

/// The size of a page that a request asks for.
pub(super) fn page(limit: Option<usize>) -> Result<usize, ApiError> {
    in_range("limit", limit.unwrap_or(DEFAULT_PAGE), 1..=MAX_PAGE)
}

async fn delivery(api: &Api, id: u64) -> Result<Delivery, ApiError> {
    api.outbox()?;
    let delivery = api.parts.node.delivery(id).await?;
    delivery.ok_or_else(no_message)
}

/// A message in the state of its delivery, which is written to the outbox only when an attempt is over.
async fn find(api: &Api, id: u64, delivery: &Delivery) -> Result<OutgoingMessage, ApiError> {
    let outbox = api.outbox()?.clone();
    let entry = api.blocking(move || outbox.get(id)).await?;
    Ok(outgoing(entry.ok_or_else(no_message)?, delivery))
}

fn outgoing(mut entry: Entry, delivery: &Delivery) -> OutgoingMessage {
    let state = delivery.state();
    if state.kind() > entry.state.kind() {
        entry.state = state;
    }
    if entry.ended_at.is_none() {
        let error = delivery.last_error().map(|error| error.to_string());
        entry.last_error = error.or(entry.last_error);
    }
    listed(entry)
}

fn no_message() -> ApiError {
    let message = "no such message, or it ended long ago";
    ApiError::new(ErrorCode::NotFound, message)
}

fn listed(entry: Entry) -> OutgoingMessage {
    let (state, holders, reason) = match entry.state {
        SendState::Sent => (MessageState::Sent, None, None),
        SendState::Stored { holders } => (MessageState::Stored, Some(holders), None),
        SendState::Failed { reason } => (MessageState::Failed, None, Some(reason)),
        SendState::Expired => (MessageState::Expired, None, None),
        SendState::Received => (MessageState::Received, None, None),
        _ => (MessageState::Queued, None, None),
    };
    OutgoingMessage {
        version: Version,
        id: entry.id,
        key: entry.key,
        to: entry.recipient,
        message_type: entry.message_type,
        payload_bytes: entry.payload_bytes,
        state,
        holders,
        reason,
        created_at: entry.created_at.0,
        expires_at: entry.expires_at.0,
        ended_at: entry.ended_at.map(|at| at.0),
        attempts: entry.attempts,
        next_attempt_at: entry.next_attempt.map(|at| at.0),
        last_error: entry.last_error,
    }
}

const fn kind(state: MessageState) -> StateKind {
    match state {
        MessageState::Queued => StateKind::Queued,
        MessageState::Sent => StateKind::Sent,
        MessageState::Stored => StateKind::Stored,
        MessageState::Failed => StateKind::Failed,
        MessageState::Expired => StateKind::Expired,
        MessageState::Received => StateKind::Received,
    }
}

/// Send a clear, unsigned message to connected peers, which may pass it on.
#[utoipa::path(
    post, path = "/v1/gossip", tag = "messages", operation_id = "gossip",
    request_body = NewGossip,
    responses(
        (status = 202, description = "Queued", body = GossipReport),
        (status = "default", description = "Not queued", body = ErrorBody),
    )
)]
pub(in super::super) async fn gossip(
    State(api): State<Arc<Api>>,
    JsonBody(mut gossip, _memory): JsonBody<NewGossip>,
) -> Result<Response, ApiError> {
    let payload = gossip
        .content()
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let message = Message {
        message_type: gossip.message_type,
        payload,
    };
    let node = &api.parts.node;
    let copies = node
        .propagate(Destination::Unknown, message, Vec::new())
        .await?;
    let report = GossipReport {
        version: Version,
        peers: copies.len() as u64,
    };
    Ok(json(StatusCode::ACCEPTED, &report))
}
