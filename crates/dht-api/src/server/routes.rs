//! The routes.

pub(super) mod inbox;
pub(super) mod messages;
pub(super) mod node;
pub(super) mod peers;
pub(super) mod store;

use std::sync::Arc;

use axum::{
    Router,
    routing::{delete, get, post},
};

use super::{error::ApiError, openapi::openapi_json, state::Api};
use crate::types::ErrorCode;

/// All routes.
pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/messages", post(messages::send).get(messages::list))
        .route(
            "/v1/messages/{id}",
            get(messages::get).delete(messages::withdraw),
        )
        .route("/v1/gossip", post(messages::gossip))
        .route("/v1/inbox", get(inbox::list))
        .route("/v1/inbox/ack", post(inbox::ack))
        .route("/v1/inbox/stream", get(inbox::stream))
        .route(
            "/v1/inbox/consumers",
            post(inbox::add_consumer).get(inbox::consumers),
        )
        .route("/v1/inbox/consumers/{name}", delete(inbox::remove_consumer))
        .route("/v1/peers", get(peers::list))
        .route("/v1/peers/{peer}", get(peers::get).delete(peers::remove))
        .route("/v1/bans", post(peers::ban).get(peers::bans))
        .route("/v1/bans/{peer}", delete(peers::lift_ban))
        .route("/v1/allowed", post(peers::allow).get(peers::allowed))
        .route("/v1/allowed/{peer}", delete(peers::disallow))
        .route("/v1/discover", post(peers::discover))
        .route("/v1/ping", post(peers::ping))
        .route("/v1/store", get(node::store))
        .route("/v1/store/mailboxes", get(store::list))
        .route("/v1/store/mailboxes/{recipient}", get(store::messages))
        .route("/v1/store/purge", post(store::purge))
        .route("/v1/fetch", post(node::fetch))
        .route("/v1/events", get(node::events))
        .route("/v1/status", get(node::status))
        .route("/v1/config", get(node::config))
        .route("/v1/openapi.json", get(openapi_json))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "no such route").with_hint("see GET /v1/openapi.json")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "the route has no such method")
        .with_hint("see GET /v1/openapi.json")
}
