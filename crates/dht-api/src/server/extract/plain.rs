//! Plain words for what serde says of a request: the field, what it takes, what it has, and no name of a type of Rust.

/// Where a value is wrong, as a name of JSON: `to`, `ids[3]`; empty for the whole of it.
pub(super) fn describe(path: &str, error: &str) -> String {
    // Serde repeats where the value begins; the path says it better.
    let error = error
        .rsplit_once(" at line ")
        .map_or(error, |(text, _)| text);
    let at = match path {
        "." | "?" | "" => "the request".to_owned(),
        path => format!("`{}`", path.trim_end_matches(".?")),
    };
    if let Some(field) = quoted(error, "missing field ") {
        return format!("`{field}` is missing");
    }
    if let Some(field) = quoted(error, "duplicate field ") {
        return format!("`{field}` is given twice");
    }
    if let Some(field) = quoted(error, "unknown field ") {
        return match error.split_once(", expected ") {
            Some((_, known)) => format!("`{field}` is not known here; known: {}", names(known)),
            None => format!("`{field}` is not known here; nothing is taken"),
        };
    }
    if let Some(value) = quoted(error, "unknown variant ") {
        let known = error
            .split_once(", expected ")
            .map_or("", |(_, known)| known);
        return format!("{at} has the value `{value}`; it takes {}", names(known));
    }
    for prefix in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) = error
            .strip_prefix(prefix)
            .and_then(|rest| rest.rsplit_once(", expected "))
        {
            return format!("{at} takes {}; it has {}", kind(expected), value(found));
        }
    }
    if let Some((_, expected)) = error
        .strip_prefix("invalid length ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        return format!("{at} takes {}", kind(expected));
    }
    match error {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            format!("{at} takes a whole number that is not negative")
        }
        "number too large to fit in target type" => format!("{at} is too large a number"),
        "provided string was not `true` or `false`" => format!("{at} takes true or false"),
        error => format!("{at}: {error}"),
    }
}

/// The name in backticks behind `prefix`.
fn quoted<'a>(error: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = error.strip_prefix(prefix)?.strip_prefix('`')?;
    rest.split('`').next()
}

/// The list that serde makes of the names it knows.
fn names(known: &str) -> &str {
    known.strip_prefix("one of ").unwrap_or(known)
}

/// Values that a type of Rust takes, in words.
fn kind(expected: &str) -> String {
    let range = |from: i128, to: i128| format!("a whole number from {from} to {to}");
    match expected {
        "u8" => range(0, u8::MAX.into()),
        "a nonzero u8" => range(1, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => range(0, u64::MAX.into()),
        "i32" => range(i32::MIN.into(), i32::MAX.into()),
        "i64" => range(i64::MIN.into(), i64::MAX.into()),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "a borrowed string" => "a text".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

/// Value in words, from the name that serde gives it.
fn value(found: &str) -> String {
    match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        found => {
            let text = ["string ", "integer ", "floating point ", "boolean "];
            let value = text.iter().find_map(|kind| found.strip_prefix(kind));
            let value = value.unwrap_or(found).trim_matches('`');
            // A long text says no more than its beginning.
            match value.char_indices().nth(MAX_SHOWN) {
                Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
                None => value.to_owned(),
            }
        }
    }
}

/// Characters of a wrong value that an error repeats.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::types::{Ack, NewMessage};

    fn of<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> String {
        let mut json = serde_json::Deserializer::from_str(body);
        let error = serde_path_to_error::deserialize::<_, T>(&mut json).unwrap_err();
        describe(&error.path().to_string(), &error.inner().to_string())
    }

    /// Words for the errors of serde. A new wording of serde shows here.
    #[test]
    fn errors_name_field_and_range() {
        let key = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";
        let with = |rest: &str| of::<NewMessage>(&format!("{{\"to\":\"{key}\",{rest}}}"));
        assert_eq!(of::<NewMessage>("{}"), "`to` is missing");
        assert_eq!(of::<NewMessage>("[]"), "the request takes an object");
        assert_eq!(
            of::<NewMessage>("7"),
            "the request takes an object; it has 7"
        );
        for count in [0, 300] {
            assert_eq!(
                with(&format!("\"replicas\":{count}")),
                format!("`replicas` takes a whole number from 1 to 255; it has {count}")
            );
        }
        assert_eq!(
            with("\"message_type\":\"x\""),
            "`message_type` takes a whole number from -2147483648 to 2147483647; it has \"x\""
        );
        assert_eq!(
            with("\"direct_only\":1"),
            "`direct_only` takes true or false; it has 1"
        );
        assert_eq!(with("\"key\":{}"), "`key` takes a text; it has an object");
        assert_eq!(with("\"to\":\"\""), "`to` is given twice");
        assert!(with("\"payload\":\"a\"").starts_with("`payload`: not base64"));
        let unknown = with("\"txt\":\"hi\"");
        assert!(
            unknown.starts_with("`txt` is not known here; known: `to`, `message_type`, `text`"),
            "{unknown}"
        );
        assert_eq!(
            of::<Ack>("{\"ids\":[1,-2]}"),
            "`ids[1]` takes a whole number from 0 to 18446744073709551615; it has -2"
        );
        let long = with(&format!("\"ttl_seconds\":\"{}\"", "ü".repeat(100)));
        assert!(long.ends_with('…'), "{long}");
    }
}
