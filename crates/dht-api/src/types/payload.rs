//! Payloads in JSON.

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

/// Longest payload that a response repeats as `text`, in bytes: 64 KiB. A longer one is not transmitted twice.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// Bytes that are base64 with padding in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToSchema)]
#[schema(value_type = String, format = Byte, example = "aGVsbG8=")]
pub struct Base64(pub Bytes);

/// Why a request has no payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Neither `text` nor `payload` is given.
    #[error("give the content as `text`, or in base64 as `payload`")]
    Missing,
    /// Both are given.
    #[error("`text` and `payload` exclude each other")]
    Both,
}

impl Base64 {
    /// The payload as text, if it is UTF-8 and at most [`MAX_TEXT_BYTES`] long.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.0.len() > MAX_TEXT_BYTES {
            return None;
        }
        std::str::from_utf8(&self.0).ok().map(str::to_owned)
    }
}

/// The content of a request, from its two fields.
pub(super) fn content(
    text: Option<String>,
    payload: Option<Base64>,
) -> Result<Bytes, PayloadError> {
    match (text, payload) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(Base64(payload))) => Ok(payload),
        (None, None) => Err(PayloadError::Missing),
        (Some(_), Some(_)) => Err(PayloadError::Both),
    }
}

impl From<Bytes> for Base64 {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map(|bytes| Self(bytes.into()))
            .map_err(|error| D::Error::custom(format_args!("not base64: {error}")))
    }
}
