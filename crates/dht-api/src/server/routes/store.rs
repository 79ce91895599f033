//! Messages stored for offline peers.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use dht_core::PublicKey;
use dht_mailbox::Store;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    super::{
        error::{ApiError, json},
        extract::{JsonBody, Name, Parameters},
        mailboxes::Mailboxes,
        memory,
        state::Api,
    },
    messages::page,
};
use crate::types::{ErrorBody, MailboxList, Purge, Purged, StoredMessages};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Most entries, 1 to 1 000. Defaults to 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

fn store(api: &Api) -> Result<Store, ApiError> {
    let store = api.parts.node.mailboxes().cloned();
    store.ok_or_else(ApiError::no_store)
}

/// Mailboxes with messages for offline peers.
#[utoipa::path(
    get, path = "/v1/store/mailboxes", tag = "store", operation_id = "mailboxes",
    params(ListQuery),
    responses(
        (status = 200, description = "Mailboxes", body = MailboxList),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, store) = (page(query.limit)?, store(&api)?);
    let memory = api.list_memory(limit).await;
    let list = api
        .blocking(move || Mailboxes::new(&store).list(limit))
        .await?;
    Ok(memory::list(memory, &list))
}

/// Messages of one mailbox, oldest first; never contents.
#[utoipa::path(
    get, path = "/v1/store/mailboxes/{recipient}", tag = "store", operation_id = "mailbox",
    params(("recipient" = String, Path, description = "Public key of the recipient"), ListQuery),
    responses(
        (status = 200, description = "Messages", body = StoredMessages),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn messages(
    State(api): State<Arc<Api>>,
    Name(recipient): Name,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, store) = (page(query.limit)?, store(&api)?);
    let recipient: PublicKey = recipient
        .parse()
        .map_err(|_| ApiError::bad_request("not a public key of 64 hexadecimal digits"))?;
    let memory = api.list_memory(limit).await;
    let list = api
        .blocking(move || Mailboxes::new(&store).messages(&recipient, limit))
        .await?;
    Ok(memory::list(memory, &list))
}

/// Delete messages stored for offline peers. They are deleted for good once this answers.
#[utoipa::path(
    post, path = "/v1/store/purge", tag = "store", operation_id = "purge",
    request_body = Purge,
    responses(
        (status = 200, description = "Deleted", body = Purged),
        (status = "default", description = "Not all deleted", body = ErrorBody),
    )
)]
pub(in super::super) async fn purge(
    State(api): State<Arc<Api>>,
    JsonBody(what, _memory): JsonBody<Purge>,
) -> Result<Response, ApiError> {
    let given = [what.all, what.expired, what.recipient.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = "give one of `all`, `expired` and `recipient`";
        return Err(ApiError::bad_request(message));
    }
    let store = store(&api)?;
    let purged = Mailboxes::new(&store).purge(&what, api.now()).await?;
    Ok(json(StatusCode::OK, &purged))
}
