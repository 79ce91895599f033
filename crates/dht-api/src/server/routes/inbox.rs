//! Receiving.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use dht_spool::{Inbox, Limit, Row, RowId, SpoolError, Start};
use dht_stack::BytePermit;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::sleep,
};
use utoipa::IntoParams;

use super::{
    super::{
        error::{ApiError, json},
        extract::{JsonBody, Name, Parameters},
        memory,
        state::Api,
        stream::{self, ALIVE, ALIVE_EVERY, END, Source},
    },
    messages::page,
};
use crate::types::{
    Ack, Arrival, Base64, ConsumerList, ConsumerState, DEFAULT_CONSUMER, Done, ErrorBody,
    ErrorCode, InboxMessage, InboxPage, MAX_TEXT_BYTES, NewConsumer, StartAt, Version,
};

/// Payload bytes of one page: 1 MiB; the first message comes whatever its size.
const PAGE_BYTES: usize = 1 << 20;
/// Page that a stream reads at once: 64 messages or 64 KiB; the first message comes whatever its size.
const STREAM_LIMIT: Limit = Limit {
    rows: 64,
    bytes: 64 << 10,
};
/// Bytes of a message as JSON without its payload, at most.
const HEAD_BYTES: usize = 512;
/// Messages that one request acks one by one.
const MAX_ACKS: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Name of the consumer. Defaults to `default`.
    consumer: Option<String>,
    /// Only messages with a larger id; 404 if no message has had this id or a larger one.
    after: Option<u64>,
    /// Most messages, 1 to 1 000. Defaults to 100. A page ends at 1 MiB as well.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct StreamQuery {
    /// Name of the consumer. Defaults to `default`.
    consumer: Option<String>,
    /// Only messages with a larger id; 404 if no message has had this id or a larger one. `Last-Event-ID` goes before it.
    after: Option<u64>,
}

fn or_default(consumer: Option<String>) -> String {
    consumer.unwrap_or_else(|| DEFAULT_CONSUMER.to_owned())
}

/// Refuses a place behind the newest message: what is received next would be skipped.
fn check_place(inbox: &Inbox, after: Option<RowId>) -> Result<(), ApiError> {
    let newest = inbox.stats().newest;
    match after {
        Some(id) if id > newest => Err(ApiError::from(SpoolError::UnknownId)
            .with_hint("the inbox was begun anew: begin without `after` and `Last-Event-ID`")),
        _ => Ok(()),
    }
}

async fn read(
    api: &Api,
    consumer: &str,
    after: Option<RowId>,
    limit: Limit,
) -> Result<(Vec<Row>, BytePermit), ApiError> {
    let inbox = api.inbox()?;
    loop {
        let Some(first) = inbox.next_bytes(consumer, after)? else {
            return Ok((Vec::new(), BytePermit::none()));
        };
        let memory = api.responses.acquire(page_memory(first, limit)).await;
        let (inbox, consumer) = (inbox.clone(), consumer.to_owned());
        let rows = api
            .blocking(move || inbox.read(&consumer, after, limit))
            .await?;
        let read: usize = rows.iter().map(|row| row.message.payload.len()).sum();
        // Unless a message that was acked meanwhile has left the first place to a larger one.
        if read <= limit.bytes.max(first) {
            return Ok((rows, memory));
        }
    }
}

/// Bytes of memory that a page takes, at most, as rows and as JSON: a payload is repeated in base64, a short one as text,
/// too, of which JSON makes six times as many bytes.
fn page_memory(first: usize, limit: Limit) -> usize {
    let texts = limit.bytes.min(limit.rows.saturating_mul(MAX_TEXT_BYTES));
    let heads = limit.rows.saturating_mul(HEAD_BYTES);
    // A message over the limit comes alone.
    let payloads = limit.bytes.max(first).saturating_mul(3);
    payloads
        .saturating_add(texts.saturating_mul(6))
        .saturating_add(heads)
}

fn message(row: Row) -> InboxMessage {
    let payload = Base64(row.message.payload);
    InboxMessage {
        version: Version,
        id: row.id,
        received_at: row.message.received_at.0,
        from: row.message.origin,
        message_type: row.message.message_type,
        text: payload.text(),
        payload,
        via: row.message.via,
        arrival: match row.message.arrival {
            dht_spool::Arrival::Live => Arrival::Live,
            dht_spool::Arrival::Stored => Arrival::Stored,
        },
    }
}

/// Messages that a consumer has not acked, oldest first. They come again until they are acked.
#[utoipa::path(
    get, path = "/v1/inbox", tag = "inbox", operation_id = "inbox",
    params(ListQuery),
    responses(
        (status = 200, description = "A page", body = InboxPage),
        (status = "default", description = "No page", body = ErrorBody),
    )
)]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, ApiError> {
    let (rows, consumer) = (page(query.limit)?, or_default(query.consumer));
    let limit = Limit {
        rows,
        bytes: PAGE_BYTES,
    };
    check_place(api.inbox()?, query.after)?;
    let (rows, memory) = read(&api, &consumer, query.after, limit).await?;
    let page = InboxPage {
        version: Version,
        next: rows.last().map(|row| row.id),
        messages: rows.into_iter().map(message).collect(),
        consumer,
    };
    Ok(memory::list(memory, &page))
}

/// Tell that a consumer is done with messages. They are durably acked once this answers. Acking again is no error. If no
/// message has had some of `ids`, the error names them, and the others are acked.
#[utoipa::path(
    post, path = "/v1/inbox/ack", tag = "inbox", operation_id = "ack",
    request_body = Ack,
    responses(
        (status = 200, description = "Acked", body = ConsumerState),
        (status = "default", description = "Not acked", body = ErrorBody),
    )
)]
pub(in super::super) async fn ack(
    State(api): State<Arc<Api>>,
    JsonBody(ack, _memory): JsonBody<Ack>,
) -> Result<Response, ApiError> {
    let (inbox, now) = (api.inbox()?, api.now());
    match (ack.up_to, ack.ids.len()) {
        (Some(up_to), 0) => inbox.ack(&ack.consumer, up_to, now).await?,
        (None, 1..=MAX_ACKS) => {
            // Asked for together, so that they share a commit.
            let tickets = ack
                .ids
                .iter()
                .map(|id| inbox.ack_one(&ack.consumer, *id, now));
            let acked = futures::future::join_all(tickets).await;
            let mut unknown = Vec::new();
            for (id, acked) in ack.ids.iter().zip(acked) {
                match acked {
                    Err(SpoolError::UnknownId) => unknown.push(id.to_string()),
                    acked => acked?,
                }
            }
            if !unknown.is_empty() {
                let others = match ack.ids.len() > unknown.len() {
                    true => "; the others are acked",
                    false => "",
                };
                let (error, unknown) = (SpoolError::UnknownId, unknown.join(", "));
                let message = format!("{error}: {unknown}{others}");
                return Err(ApiError::new(ErrorCode::NotFound, message));
            }
        }
        (None, 0) | (Some(_), _) => {
            return Err(ApiError::bad_request("give either `up_to` or `ids`"));
        }
        (None, _) => {
            let message = format!("`ids` has more than {MAX_ACKS} ids");
            return Err(ApiError::bad_request(message));
        }
    }
    let state = states(inbox).find(|state| state.name == ack.consumer);
    let state = state.ok_or(SpoolError::UnknownConsumer)?;
    Ok(json(StatusCode::OK, &state))
}

fn states(inbox: &Inbox) -> impl Iterator<Item = ConsumerState> {
    let consumers = inbox.stats().consumers;
    consumers.into_iter().map(|consumer| ConsumerState {
        version: Version,
        name: consumer.name,
        cursor: consumer.cursor,
        pending: consumer.pending,
    })
}

/// The consumers of the inbox. A message leaves when every consumer has acked it, or by retention.
#[utoipa::path(
    get, path = "/v1/inbox/consumers", tag = "inbox", operation_id = "consumers",
    responses(
        (status = 200, description = "The consumers", body = ConsumerList),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn consumers(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let list = ConsumerList {
        version: Version,
        consumers: states(api.inbox()?).collect(),
    };
    Ok(json(StatusCode::OK, &list))
}

/// Add a consumer.
#[utoipa::path(
    post, path = "/v1/inbox/consumers", tag = "inbox", operation_id = "add_consumer",
    request_body = NewConsumer,
    responses(
        (status = 201, description = "Added", body = Done),
        (status = 200, description = "It exists", body = Done),
        (status = "default", description = "Not added", body = ErrorBody),
    )
)]
pub(in super::super) async fn add_consumer(
    State(api): State<Arc<Api>>,
    JsonBody(consumer, _memory): JsonBody<NewConsumer>,
) -> Result<Response, ApiError> {
    let start = match consumer.start {
        StartAt::Oldest => Start::Oldest,
        StartAt::Newest => Start::Newest,
    };
    let changed = api.inbox()?.add_consumer(&consumer.name, start).await?;
    let status = if changed {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let done = Done {
        version: Version,
        changed,
    };
    Ok(json(status, &done))
}

/// Remove a consumer, and the messages that only it had not acked.
#[utoipa::path(
    delete, path = "/v1/inbox/consumers/{name}", tag = "inbox", operation_id = "remove_consumer",
    params(("name" = String, Path, description = "Name of the consumer")),
    responses(
        (status = 200, description = "Removed", body = Done),
        (status = "default", description = "Not removed", body = ErrorBody),
    )
)]
pub(in super::super) async fn remove_consumer(
    State(api): State<Arc<Api>>,
    Name(name): Name,
) -> Result<Response, ApiError> {
    api.inbox()?.remove_consumer(&name, api.now()).await?;
    let done = Done {
        version: Version,
        changed: true,
    };
    Ok(json(StatusCode::OK, &done))
}

/// Messages that a consumer has not acked, and those that come later, as server-sent events. The id of an event is
/// the id of the message; the stream continues after the header `Last-Event-ID`. What is read is not acked by it:
/// a client that is cut off because it does not read loses nothing.
#[utoipa::path(
    get, path = "/v1/inbox/stream", tag = "inbox", operation_id = "inbox_stream",
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "Id of the last message read; 404 if no message has had it or a larger one"),
    ),
    responses(
        (status = 200, description = "Events `message`; `error` with an ErrorBody; `end` when the node stops", body = InboxMessage, content_type = "text/event-stream"),
        (status = "default", description = "No stream", body = ErrorBody),
    )
)]
pub(in super::super) async fn stream(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Parameters(query): Parameters<StreamQuery>,
) -> Result<Response, ApiError> {
    let after = match headers.get("last-event-id") {
        None => query.after,
        Some(value) => {
            let id = value.to_str().ok().and_then(|text| text.parse().ok());
            let message = "`Last-Event-ID` is not the id of a message";
            Some(id.ok_or_else(|| ApiError::bad_request(message))?)
        }
    };
    check_place(api.inbox()?, after)?;
    let place = api.open_stream()?;
    let consumer = or_default(query.consumer);
    let newest = api.inbox()?.newest();
    let page = read(&api, &consumer, after, STREAM_LIMIT).await?;
    Ok(stream::response(Tail {
        stopping: api.stopping.clone(),
        api,
        consumer,
        last: after,
        page: (!page.0.is_empty()).then_some(page),
        newest,
        has_ended: false,
        is_open: false,
        _place: place,
    }))
}

/// One stream of the inbox.
struct Tail {
    api: Arc<Api>,
    consumer: String,
    /// Id of the last message handed out, or where the client wants to begin.
    last: Option<RowId>,
    /// Messages that are handed out next, and the memory of them and of the events that are made of them.
    page: Option<(Vec<Row>, BytePermit)>,
    newest: watch::Receiver<RowId>,
    stopping: watch::Receiver<bool>,
    has_ended: bool,
    /// Whether a first piece was handed out.
    is_open: bool,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    fn end(&mut self, piece: Bytes) -> Option<Bytes> {
        self.has_ended = true;
        Some(piece)
    }
}

impl Source for Tail {
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        loop {
            if *self.stopping.borrow() {
                return self.end(END);
            }
            if let Some((rows, memory)) = self.page.take() {
                self.is_open = true;
                let mut events = Vec::new();
                for row in rows {
                    self.last = Some(row.id);
                    stream::push(&mut events, "message", self.last, &message(row));
                }
                return Some(memory::hold(events, memory));
            }
            // The response begins, even if no message comes for long.
            if !std::mem::replace(&mut self.is_open, true) {
                return Some(ALIVE);
            }
            let newest = *self.newest.borrow_and_update();
            if newest > self.last.unwrap_or(0) {
                match read(&self.api, &self.consumer, self.last, STREAM_LIMIT).await {
                    // Acked by another client, or gone.
                    Ok((rows, _)) if rows.is_empty() => self.last = Some(newest),
                    Ok(page) => {
                        self.page = Some(page);
                        continue;
                    }
                    Err(error) if error.body().error.code == ErrorCode::Stopping => {
                        return self.end(END);
                    }
                    Err(error) => {
                        return self.end(stream::event("error", error.body()));
                    }
                }
            }
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() {
                    return self.end(END);
                },
                _ = self.stopping.changed() => return self.end(END),
                () = sleep(ALIVE_EVERY) => return Some(ALIVE),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dht_core::{
        Clock as _, DedupHash, Deliverer, Entropy as _, NodeId, OsEntropy, SecretKey, SystemClock,
    };
    use dht_node::Node;
    use dht_spool::NewRow;
    use http_body_util::BodyExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::{limits::Limits, server::state::Parts};

    /// A page that is not read holds the memory of the next one, not that of other requests. The clock moves once everything
    /// waits: after a second of it, the next page waits for memory and for nothing else.
    #[tokio::test(start_paused = true)]
    async fn unread_pages_hold_others_up() {
        const LARGE: usize = 6 << 20;
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder(SecretKey::random(&mut OsEntropy.rng())).home(home.path());
        let parts = Parts::new(Arc::new(node.start().await.unwrap()));
        let inbox = parts.inbox.as_ref().unwrap();
        let row = NewRow {
            received_at: SystemClock.now(),
            origin: None,
            origin_is_proven: true,
            message_type: 7,
            payload: vec![0; LARGE].into(),
            via: NodeId::default(),
            deliverer: Deliverer::from_bytes([1; 32]),
            arrival: dht_spool::Arrival::Stored,
            hash: DedupHash([1; 32]),
        };
        inbox.insert(row).await.unwrap();
        let limits = Limits {
            // One page takes all.
            responses_bytes: 1 << 20,
            ..Limits::default()
        };
        let (_stop, stopping) = watch::channel(false);
        let api = Api::new(parts, limits, stopping);
        let ask = || {
            let query = ListQuery {
                consumer: None,
                after: None,
                limit: None,
            };
            list(State(Arc::clone(&api)), Parameters(query))
        };
        let first = ask().await.ok().unwrap();
        assert_eq!(api.responses.available(), 0);
        let mut second = Box::pin(ask());
        let early = timeout(Duration::from_secs(1), &mut second).await;
        assert!(early.is_err(), "there is no memory for it");
        assert!(consumers(State(Arc::clone(&api))).await.is_ok());
        let page = first.into_body().collect().await.unwrap().to_bytes();
        assert!(page.len() > LARGE);
        drop(page);
        assert!(second.await.is_ok());
        assert_eq!(api.responses.available(), 1 << 20);
    }
}
