//! Access to the fields of a case.

use std::fmt::Debug;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use dht_core::{PublicKey, SecretKey};
use serde_json::Value;

/// Twice what fits a frame of the network.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// `Err` says what was expected and what came instead.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// One case of a vector file, or an object within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a>(&'a Value);

impl<'a> Case<'a> {
    pub(super) const fn new(value: &'a Value) -> Self {
        Self(value)
    }

    /// ` (name)` or ` (kind)`, for messages.
    pub(super) fn label(&self) -> String {
        let name = self
            .0
            .get("name")
            .or_else(|| self.0.get("kind"))
            .and_then(Value::as_str);
        name.map(|name| format!(" ({name})")).unwrap_or_default()
    }

    /// The field exists, be it null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some()
    }

    /// The field is missing or null.
    pub(super) fn is_null(&self, field: &str) -> bool {
        self.0.get(field).is_none_or(Value::is_null)
    }

    pub(super) fn text(&self, field: &str) -> Outcome<&'a str> {
        self.value(field)?
            .as_str()
            .ok_or_else(|| format!("{field} is no string"))
    }

    pub(super) fn flag(&self, field: &str) -> Outcome<bool> {
        self.value(field)?
            .as_bool()
            .ok_or_else(|| format!("{field} is neither true nor false"))
    }

    /// A whole number of whatever type is wanted, given as a number or as a decimal string.
    pub(super) fn number<T: TryFrom<i128>>(&self, field: &str) -> Outcome<T> {
        let value = self.value(field)?;
        let number = match value {
            Value::String(text) => text.parse().ok(),
            _ => value
                .as_i64()
                .map(i128::from)
                .or_else(|| value.as_u64().map(i128::from)),
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{field} is out of range: {value}"))
    }

    pub(super) fn list(&self, field: &str) -> Outcome<Vec<Self>> {
        let list = self
            .value(field)?
            .as_array()
            .ok_or_else(|| format!("{field} is no list"))?;
        Ok(list.iter().map(Self).collect())
    }

    pub(super) fn object(&self, field: &str) -> Outcome<Self> {
        self.value(field).map(Self)
    }

    pub(super) fn hex(&self, field: &str) -> Outcome<Bytes> {
        decode_hex(self.text(field)?).map_err(|error| format!("{field}: {error}"))
    }

    /// The hex of a list element or of the case itself.
    pub(super) fn own_hex(&self) -> Outcome<Bytes> {
        decode_hex(self.own_text()?)
    }

    pub(super) fn own_text(&self) -> Outcome<&'a str> {
        self.0
            .as_str()
            .ok_or_else(|| format!("no string: {}", self.0))
    }

    pub(super) fn array<const N: usize>(&self, field: &str) -> Outcome<[u8; N]> {
        let bytes = self.hex(field)?;
        bytes[..]
            .try_into()
            .map_err(|_| format!("{field} has {} bytes instead of {N}", bytes.len()))
    }

    pub(super) fn secret(&self, field: &str) -> Outcome<SecretKey> {
        SecretKey::from_bytes(&self.hex(field)?).map_err(|error| format!("{field}: {error}"))
    }

    pub(super) fn key(&self, field: &str) -> Outcome<PublicKey> {
        PublicKey::from_bytes(&self.hex(field)?).map_err(|error| format!("{field}: {error}"))
    }

    /// `None` for null; a case that has nothing to say says null.
    pub(super) fn optional_key(&self, field: &str) -> Outcome<Option<PublicKey>> {
        if self.value(field)?.is_null() {
            Ok(None)
        } else {
            self.key(field).map(Some)
        }
    }

    /// The bytes a vector gives by length and seed: byte i is `seed + 31·i` modulo 256.
    pub(super) fn generated(&self, length: &str, seed: &str) -> Outcome<Bytes> {
        Ok(generate(self.length(length)?, self.number(seed)?))
    }

    /// A length that something may be made of: no declared number takes all the memory there is.
    pub(super) fn length(&self, field: &str) -> Outcome<usize> {
        match self.number(field)? {
            length if length > MAX_BYTES => Err(format!("{field} is over {MAX_BYTES}")),
            length => Ok(length),
        }
    }

    fn value(&self, field: &str) -> Outcome<&'a Value> {
        self.0
            .get(field)
            .ok_or_else(|| format!("the case has no {field}"))
    }
}

pub(super) fn generate(length: usize, seed: u8) -> Bytes {
    std::iter::successors(Some(seed), |byte| Some(byte.wrapping_add(31)))
        .take(length)
        .collect()
}

/// Fails unless both are equal. Bytes are best given as [`hex`].
pub(super) fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, ours: T, expected: U) -> Outcome {
    if ours == expected {
        Ok(())
    } else {
        Err(format!("{what} is {ours:?}, expected {expected:?}"))
    }
}

/// Like [`same`], for bytes.
pub(super) fn same_bytes(what: &str, ours: &[u8], expected: &[u8]) -> Outcome {
    if ours == expected {
        return Ok(());
    }
    let at = ours
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let lengths = (ours.len(), expected.len());
    Err(format!(
        "{what} differs from byte {at} of {lengths:?}: {}, expected {}",
        excerpt(ours),
        excerpt(expected)
    ))
}

fn excerpt(bytes: &[u8]) -> String {
    match bytes.get(..48) {
        Some(start) => format!("{}…", HEXLOWER.encode(start)),
        None => HEXLOWER.encode(bytes),
    }
}

fn decode_hex(text: &str) -> Outcome<Bytes> {
    HEXLOWER
        .decode(text.as_bytes())
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}
