//! Errors of a setting, in the words of its operator.

use dht_node::ConfigError;
use toml::{Table, Value};

use super::{Settings, leaves, parse, set};
use crate::spelling::closest;

/// Characters of a line of the file that an error repeats.
const SHOWN: usize = 80;

/// Place and cause of a syntax error.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let before = before.unwrap_or_default();
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default();
    let column = column.chars().count() + 1;
    let shown: String = text
        .lines()
        .nth(line)
        .unwrap_or_default()
        .chars()
        .take(SHOWN)
        .collect();
    let (line, message) = (line + 1, error.message());
    format!("line {line}, column {column}: {message}, in `{shown}`")
}

/// Refuses keys that are no settings, and values of another kind than the default.
pub(super) fn check_keys(table: &Table, defaults: &Table, section: &str) -> Result<(), String> {
    for (key, value) in table {
        let path = match section {
            "" => key.clone(),
            section => format!("{section}.{key}"),
        };
        let Some(default) = defaults.get(key) else {
            return Err(unknown(&path, key, defaults));
        };
        match (value, default) {
            (Value::Table(inner), Value::Table(defaults)) => check_keys(inner, defaults, &path)?,
            (_, Value::Table(_)) => return Err(format!("{path} is a section, as in [{path}]")),
            (value, default) => {
                if let Some(kind) = other_kind(value, default) {
                    return Err(format!("{path} is {value}, which is not {kind}"));
                }
            }
        }
    }
    Ok(())
}

/// The kind of the default, if the value has another one.
fn other_kind(value: &Value, default: &Value) -> Option<&'static str> {
    let (kind, fits) = match default {
        Value::Integer(_) => ("a whole number", value.is_integer()),
        Value::Float(_) => ("a number", value.is_float() || value.is_integer()),
        Value::Boolean(_) => ("true or false", value.is_bool()),
        Value::Array(_) => {
            let items = value.as_array();
            let texts = items.is_some_and(|items| items.iter().all(Value::is_str));
            ("a list of texts", texts)
        }
        _ => ("a text", value.is_str()),
    };
    (!fits).then_some(kind)
}

fn unknown(path: &str, key: &str, siblings: &Table) -> String {
    let all = super::defaults();
    let paths: Vec<String> = leaves(&all).keys().map(|keys| keys.join(".")).collect();
    let same_key = || {
        let is_same = |path: &&String| path.rsplit('.').next() == Some(key);
        paths.iter().find(is_same).map(String::as_str)
    };
    let section = path.strip_suffix(key).unwrap_or_default();
    let sibling = || closest(key, siblings.keys().map(String::as_str));
    let meant = match same_key() {
        Some(path) => Some(path.to_owned()),
        None => sibling().map(|sibling| format!("{section}{sibling}")),
    };
    match meant {
        Some(meant) => format!("`{path}` is no setting; did you mean `{meant}`?"),
        None => {
            let here: Vec<&str> = siblings.keys().map(String::as_str).collect();
            format!(
                "`{path}` is no setting; settings here are {}",
                here.join(", ")
            )
        }
    }
}

/// Why a setting of the right kind does not take a value; `name` is what the operator calls the setting.
pub(super) fn misfit(
    name: &str,
    path: &[String],
    value: &Value,
    defaults: &Table,
) -> Option<String> {
    let error = with(path, value, defaults).err()?;
    Some(match range(path, defaults).filter(|_| value.is_integer()) {
        Some((min, max)) => {
            format!("{name} is {value}, which is not in the range {min} to {max}")
        }
        None => format!("{name}: {error}"),
    })
}

/// The default settings with another value of one of them.
fn with(path: &[String], value: &Value, defaults: &Table) -> Result<Settings, String> {
    let mut table = defaults.clone();
    set(&mut table, defaults, path, value);
    parse(table)
}

/// The range of a setting that is a whole number: what its type holds, unless the check of the settings says less.
pub(super) fn range(path: &[String], defaults: &Table) -> Option<(u64, u64)> {
    let key = path.join(".");
    let checked = |number: i64| {
        let settings = with(path, &Value::Integer(number), defaults).ok()?;
        Some((number, settings.validate()))
    };
    let least = [0, 1].into_iter().find_map(checked)?;
    let mut most = [i64::MAX, u32::MAX.into(), u16::MAX.into()].into_iter();
    let most = most.find_map(checked)?;
    let mut range = (u64::try_from(least.0).ok()?, u64::try_from(most.0).ok()?);
    for (_, outcome) in [least, most] {
        match outcome {
            Err(ConfigError::OutOfRange(found)) if found.key == key => {
                range = (found.min, found.max);
            }
            _ => {}
        }
    }
    Some(range)
}
