//! The OpenAPI document.

use axum::{http::StatusCode, response::Response};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    error::json,
    routes::{inbox, messages, node, peers, store},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dht-node",
        description = "The local API of a node: send, receive, and see what it does. Served on the unix socket of its home, or on loopback TCP with a bearer token.",
    ),
    paths(
        messages::send, messages::list, messages::get, messages::withdraw, messages::gossip,
        inbox::list, inbox::ack, inbox::stream,
        inbox::consumers, inbox::add_consumer, inbox::remove_consumer,
        peers::list, peers::get, peers::remove, peers::bans, peers::ban, peers::lift_ban,
        peers::allowed, peers::allow, peers::disallow, peers::discover, peers::ping,
        store::list, store::messages, store::purge,
        node::store, node::fetch, node::events, node::status, node::config, openapi_json,
    ),
    tags(
        (name = "messages", description = "Sending"),
        (name = "inbox", description = "Receiving"),
        (name = "peers", description = "Peers and bans"),
        (name = "store", description = "Messages for offline peers"),
        (name = "node", description = "The node itself"),
    ),
    // The unix socket asks for nothing.
    security((), ("bearerAuth" = [])),
    modifiers(&BearerToken),
)]
struct Document;

/// Adds the scheme with which a client on TCP shows the token.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Content of the node's token file; only over TCP"))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearerAuth", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI document of the API, as it is served and as `docs/openapi.json` holds it.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The OpenAPI document of this API.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "node", operation_id = "openapi",
    responses((status = 200, description = "This document", body = Object))
)]
pub(super) async fn openapi_json() -> Response {
    json(StatusCode::OK, &openapi())
}
