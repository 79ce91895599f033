//! Memory of responses: a permit is taken before a list or messages are read, and given back once they are written.

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use dht_stack::BytePermit;
use serde::Serialize;

use super::error::json_bytes;

/// Bytes that one entry of a list takes, at most, as it is read and as JSON: 4 KiB.
pub(super) const ENTRY_BYTES: usize = 4 << 10;

/// Bytes of a response that hold their memory until the last of them is written.
struct Held<M> {
    bytes: Vec<u8>,
    _memory: M,
}

impl<M> AsRef<[u8]> for Held<M> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes, which keep `memory` until they are dropped.
pub(super) fn hold(bytes: Vec<u8>, memory: impl Send + 'static) -> Bytes {
    Bytes::from_owner(Held {
        bytes,
        _memory: memory,
    })
}

/// A list as JSON. Of the memory it keeps what the JSON takes, until it is written.
pub(super) fn list(mut memory: BytePermit, list: &impl Serialize) -> Response {
    // As in `json`: cannot fail.
    let Ok(mut body) = serde_json::to_vec(list) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    body.shrink_to_fit();
    let kept = memory.split(body.len());
    json_bytes(StatusCode::OK, hold(body, kept))
}

#[cfg(test)]
mod tests {
    use dht_stack::ByteBudget;
    use http_body_util::BodyExt as _;

    use super::*;

    /// A client that does not read keeps the memory of its response, and no more.
    #[tokio::test]
    async fn written_responses_return_their_memory() {
        let budget = ByteBudget::new(64 << 10);
        let memory = budget.acquire(64 << 10).await;
        let response = list(memory, &"x".repeat(1022));
        assert_eq!(budget.available(), 63 << 10);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 1024);
        assert_eq!(budget.available(), 63 << 10);
        drop(body);
        assert_eq!(budget.available(), 64 << 10);
    }
}
