//! Extractors of the handlers, with errors in JSON.

mod plain;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query},
    http::{Request, request::Parts},
};
use bytes::Bytes;
use dht_stack::BytePermit;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{error::ApiError, state::Api};
use crate::types::ErrorCode;

/// A body, and its share of the memory for bodies.
pub(super) struct JsonBody<T>(pub(super) T, pub(super) BytePermit);

/// The parameters behind `?`.
pub(super) struct Parameters<T>(pub(super) T);

/// The variable part of a path, decoded.
pub(super) struct Name(pub(super) String);

/// The variable part of a path as an id.
pub(super) struct Id(pub(super) u64);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (body, limit) = (request.into_body(), api.limits.body_bytes);
        let too_large = || {
            ApiError::new(
                ErrorCode::TooLarge,
                format!("the body has more than {limit} bytes"),
            )
        };
        let announced = body.size_hint().upper();
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large());
        }
        let bytes = announced.and_then(|bytes| bytes.try_into().ok());
        let permit = api.bodies.acquire(bytes.unwrap_or(limit)).await;
        let received = timeout(api.limits.body(), Limited::new(body, limit).collect()).await;
        let received: Bytes = match received {
            Err(_) => {
                let message = "the body did not come in time";
                return Err(ApiError::new(ErrorCode::RequestTimeout, message));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => return Err(ApiError::bad_request("the body is not complete")),
            Ok(Ok(collected)) => collected.to_bytes(),
        };
        let value = serde_json::from_slice(&received).map_err(|error| {
            ApiError::bad_request(body_error::<T>(&received, &error))
                .with_hint("see GET /v1/openapi.json")
        })?;
        Ok(Self(value, permit))
    }
}

/// Why a body is refused. It is read once more, to learn where.
fn body_error<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> String {
    if body.trim_ascii().is_empty() {
        return "the body is empty; it takes a JSON object".to_owned();
    }
    if !error.is_data() {
        let (line, column) = (error.line(), error.column());
        return format!("the body is not JSON: see line {line}, column {column}");
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => plain::describe(&error.path().to_string(), &error.inner().to_string()),
        Ok(_) => error.to_string(),
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _api: &Arc<Api>) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        let Query(value) = query.map_err(|error| {
            ApiError::bad_request(query_error(&error.body_text()))
                .with_hint("see GET /v1/openapi.json")
        })?;
        Ok(Self(value))
    }
}

/// Why the parameters are refused. Axum says `prefix: parameter: error`; without the parameter if none is to blame.
fn query_error(text: &str) -> String {
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(text);
    match text.split_once(": ") {
        Some((name, error)) if !name.contains(' ') => plain::describe(name, error),
        _ => plain::describe("", text),
    }
}

impl FromRequestParts<Arc<Api>> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, api).await;
        let Path(name) =
            path.map_err(|_| ApiError::bad_request("the path is not UTF-8 in percent encoding"))?;
        Ok(Self(name))
    }
}

impl FromRequestParts<Arc<Api>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Name(text) = Name::from_request_parts(parts, api).await?;
        let id = text.parse().map_err(|_| {
            ApiError::bad_request("an id is a whole number, 1 or larger")
                .with_hint("see GET /v1/messages")
        })?;
        Ok(Self(id))
    }
}
