//! Server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde::Serialize;

/// Time after which a stream without events shows that it lives: 15 s.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// The comment that is sent every [`ALIVE_EVERY`].
pub(super) const ALIVE: Bytes = Bytes::from_static(b": alive\n\n");

/// Says that the node stops in order.
pub(super) const END: Bytes = Bytes::from_static(b"event: end\ndata: {}\n\n");

/// Something that brings one piece of a stream after another.
pub(super) trait Source: Send + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// A response that is written as fast as the client reads: no piece is made before there is room for it.
pub(super) fn response(source: impl Source) -> Response {
    let pieces = futures::stream::unfold(source, |mut source| async move {
        let piece = source.next().await?;
        Some((Ok::<_, Infallible>(piece), source))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// One event.
pub(super) fn event(name: &'static str, data: &impl Serialize) -> Bytes {
    let mut event = Vec::with_capacity(256);
    push(&mut event, name, None, data);
    event.into()
}

/// Adds an event. JSON has no line breaks, so its data is one line.
pub(super) fn push(
    events: &mut Vec<u8>,
    name: &'static str,
    id: Option<u64>,
    data: &impl Serialize,
) {
    if let Some(id) = id {
        events.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    events.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    // As in `json`: cannot fail.
    let _ = serde_json::to_writer(&mut *events, data);
    events.extend_from_slice(b"\n\n");
}
