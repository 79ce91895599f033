//! Public keys in JSON, as [`text`](super::text). The same few keys come again and again: each is decoded once.

use std::{borrow::Cow, sync::LazyLock};

use dht_core::{CompressedKey, KeyCache, ParseError, PublicKey};
use serde::{Deserialize, Deserializer, de::Error as _};

pub(crate) use super::text::serialize;

/// Keys that were read last.
static KEYS: LazyLock<KeyCache> = LazyLock::new(KeyCache::new);

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<PublicKey, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// As the [`FromStr`](std::str::FromStr) of a key.
fn parse(text: &str) -> Result<PublicKey, ParseError> {
    let encoding: CompressedKey = text.parse()?;
    match KEYS.decode(encoding.as_bytes())? {
        key if key.is_identity() => Err(ParseError::NobodysKey),
        key => Ok(key),
    }
}

pub(crate) mod option {
    use super::{Cow, Deserialize, Deserializer, PublicKey, parse};

    pub(crate) use super::super::text::option::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PublicKey>, D::Error> {
        use serde::de::Error as _;
        let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|text| parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_as_their_text() {
        let key = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";
        let (upper, identity) = (format!(" 0x{}", key.to_uppercase()), "00".repeat(32));
        let none = "ff".repeat(32);
        for text in [key, &upper, "6a", "", &identity, &none, key] {
            assert_eq!(parse(text), text.parse::<PublicKey>(), "{text}");
        }
    }
}
