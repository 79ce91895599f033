//! What is wrong with a setting, in the words of its operator.

use dht_node::ConfigError;
use toml::{Table, Value};

use super::{leaves, parse, set};
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
    let with = |value: &Value| {
        let mut alone = defaults.clone();
        set(&mut alone, defaults, path, value);
        parse(alone)
    };
    let error = with(value).err()?;
    if !value.is_integer() {
        return Some(format!("{name}: {error}"));
    }
    // The numbers that its type holds, unless the check of the settings says more.
    let holds = |number: &i64| with(&Value::Integer(*number)).is_ok();
    let least = [0, 1].into_iter().find(holds)?;
    let most = [i64::MAX, u32::MAX.into(), u16::MAX.into()]
        .into_iter()
        .find(holds)?;
    let (mut min, mut max) = (u64::try_from(least).ok()?, u64::try_from(most).ok()?);
    for number in [least, most] {
        if let Err(ConfigError::OutOfRange(range)) = with(&Value::Integer(number)).ok()?.validate()
        {
            (min, max) = (range.min, range.max);
        }
    }
    Some(format!(
        "{name} is {value}, which is not in the range {min} to {max}"
    ))
}
