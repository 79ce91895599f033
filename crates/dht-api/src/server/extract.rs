//! Extractors of the handlers, with errors in JSON.

mod plain;

use std::{error::Error as _, fmt::Display, iter::successors, ops::RangeInclusive, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, rejection::QueryRejection},
    http::{Request, header::CONTENT_ENCODING, request::Parts},
};
use bytes::Bytes;
use dht_stack::BytePermit;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{error::ApiError, state::Api};
use crate::types::ErrorCode;

/// A body, and its share of the memory for bodies.
pub(super) struct JsonBody<T>(pub(super) T, pub(super) BytePermit);

/// A body that says nothing: none, or an object without fields.
pub(super) struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The parameters behind `?`.
pub(super) struct Parameters<T>(pub(super) T);

/// Checks a number of a request.
pub(super) fn in_range<T: PartialOrd + Display>(
    field: &str,
    number: T,
    range: RangeInclusive<T>,
) -> Result<T, ApiError> {
    if range.contains(&number) {
        return Ok(number);
    }
    let (min, max) = (range.start(), range.end());
    let message = format!("`{field}` is not in the range {min} to {max}");
    Err(ApiError::bad_request(message).with_hint("see GET /v1/openapi.json"))
}

/// The variable part of a path, decoded.
pub(super) struct Name(pub(super) String);

/// The variable part of a path as an id.
pub(super) struct Id(pub(super) u64);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (body, permit) = receive(request, api).await?;
        Ok(Self(parse(&body)?, permit))
    }
}

impl FromRequest<Arc<Api>> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (body, _permit) = receive(request, api).await?;
        if !body.trim_ascii().is_empty() {
            let Nothing {} = parse(&body)?;
        }
        Ok(Self)
    }
}

/// The whole body of a request, and its share of the memory for bodies.
async fn receive(request: Request<Body>, api: &Api) -> Result<(Bytes, BytePermit), ApiError> {
    let encoding = request.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let message = "the body has a content encoding; it is taken as plain JSON only";
        return Err(ApiError::new(ErrorCode::UnsupportedEncoding, message)
            .with_hint("send it without `Content-Encoding`"));
    }
    let (body, limit) = (request.into_body(), api.limits.body_bytes);
    let too_large = || {
        let message = format!("the body has more than {limit} bytes");
        ApiError::new(ErrorCode::TooLarge, message)
    };
    let announced = body.size_hint().upper();
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large());
    }
    let bytes = announced.and_then(|bytes| bytes.try_into().ok());
    let permit = api.bodies.acquire(bytes.unwrap_or(limit)).await;
    match timeout(api.limits.body(), Limited::new(body, limit).collect()).await {
        Err(_) => {
            let message = "the body did not come in time";
            Err(ApiError::new(ErrorCode::RequestTimeout, message))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body is not complete")),
        Ok(Ok(collected)) => Ok((collected.to_bytes(), permit)),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(body_error::<T>(body, &error)).with_hint("see GET /v1/openapi.json")
    })
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
            ApiError::bad_request(query_error(&error)).with_hint("see GET /v1/openapi.json")
        })?;
        Ok(Self(value))
    }
}

/// Why the parameters are refused, with the one that is to blame.
fn query_error(error: &QueryRejection) -> String {
    type AtPath = serde_path_to_error::Error<serde::de::value::Error>;
    let cause = successors(error.source(), |error| (*error).source());
    let mut found = cause.filter_map(|cause| cause.downcast_ref::<AtPath>());
    found.next().map_or_else(
        || error.body_text(),
        |error| plain::describe(&error.path().to_string(), &error.inner().to_string()),
    )
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
