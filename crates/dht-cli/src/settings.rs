//! Settings: the file `config.toml`, then the environment, then flags.

mod api;
mod check;

use std::{collections::BTreeMap, io, path::Path};

use dht_core::{Address, DnsKind, Host};
use dht_node::{Config, ConfigError, DEFAULT_DNS_SEEDS};
use serde::Deserialize as _;
use toml::{Table, Value};

pub(crate) use self::api::ApiSettings;

use self::check::{check_keys, misfit};
use crate::{
    exit::Failure,
    file::{self, advice, dangling},
    log::{self, LogFilter},
    spelling::closest,
};

/// Beginning of the names of environment variables.
const PREFIX: &str = "DHT_NODE_";
/// The variable that is no setting.
const HOME: &str = "DHT_NODE_HOME";
/// Key of the log filter.
const LOG: &str = "log";
/// Key of the names of seeds.
const DNS_SEEDS: &str = "dns_seeds";
/// Key of the section of the local API.
const API: &str = "api";

/// Settings of `config.toml` and the environment.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Settings of the node.
    pub(crate) node: Config,
    /// Settings of the local API.
    pub(crate) api: ApiSettings,
    /// Filter of the log; `None` if nothing sets it.
    pub(crate) log: Option<LogFilter>,
}

/// One setting of the environment.
#[derive(Clone, Debug, PartialEq)]
struct Variable {
    name: String,
    path: Vec<String>,
    value: Value,
}

impl Settings {
    /// Reads the file, if there is one, and the environment; then applies the flags.
    pub(crate) fn read(path: &Path, flags: Table) -> Result<Self, Failure> {
        let file = match file::read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match dangling(path) {
                Some(text) => return Err(Failure::config(text)),
                None => String::new(),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Failure::config(format!(
                    "{} is not valid UTF-8",
                    path.display()
                )));
            }
            Err(error) => {
                let (path, advice) = (path.display(), advice(&error));
                return Err(Failure::config(format!(
                    "cannot read {path}: {error}{advice}"
                )));
            }
        };
        let file: Table = toml::from_str(&file).map_err(|error| {
            let error = check::syntax_error(&file, &error);
            Failure::config(format!("{}: {error}", path.display()))
        })?;
        Self::merge(&path.display().to_string(), file, &environment()?, flags)
            .map_err(Failure::config)
    }

    fn merge(
        path: &str,
        file: Table,
        variables: &[Variable],
        flags: Table,
    ) -> Result<Self, String> {
        let defaults = defaults();
        // Each source alone first, so that an error names the place to mend it.
        check_keys(&file, &defaults, "").map_err(|error| format!("{path}: {error}"))?;
        for (keys, value) in leaves(&file) {
            if let Some(error) = misfit(&keys.join("."), &keys, &value, &defaults) {
                return Err(format!("{path}: {error}"));
            }
        }
        let mut merged = file;
        for variable in variables {
            if let Some(error) = misfit(&variable.name, &variable.path, &variable.value, &defaults)
            {
                return Err(error);
            }
            set(&mut merged, &defaults, &variable.path, &variable.value);
        }
        merged.extend(flags);
        let settings = parse(merged).map_err(|error| format!("{path}: {error}"))?;
        settings.validate().map_err(|error| {
            let of = |variable: &&Variable| variable.path.join(".") == error.key();
            let place = variables.iter().find(of);
            format!("{}: {error}", place.map_or(path, |found| &found.name))
        })?;
        Ok(settings)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.node.validate()?;
        self.api.validate()
    }

    /// All settings as the text of a file.
    pub(crate) fn to_text(&self) -> Result<String, Failure> {
        let log = self.log.clone().unwrap_or_default();
        let log = Value::from(log.as_str());
        let api = BTreeMap::from([(API, &self.api)]);
        // Each in the order of its fields.
        toml::to_string(&self.node)
            .and_then(|node| Ok(format!("{LOG} = {log}\n{node}\n{}", toml::to_string(&api)?)))
            .map_err(|error| Failure::config(format!("cannot write the configuration: {error}")))
    }

    /// All settings without that of the log.
    fn table(&self) -> Table {
        // Both are plain data without a value that a table cannot hold.
        let mut table = Table::try_from(&self.node).unwrap_or_default();
        let api = Table::try_from(&self.api).unwrap_or_default();
        table.insert(API.to_owned(), api.into());
        table
    }

    /// The settings that differ from those of `before`, by their keys, without that of the log.
    pub(crate) fn changed(&self, before: &Self) -> Vec<String> {
        let (now, before) = (leaves(&self.table()), leaves(&before.table()));
        let changed = now
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(value));
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        changed
            .map(|(key, _)| key)
            .chain(gone)
            .map(|path| path.join("."))
            .collect()
    }
}

/// Refuses variables that are no settings; the filter of the log that one of them names.
pub(crate) fn check_environment() -> Result<Option<LogFilter>, Failure> {
    let variables = environment()?;
    let log = variables.iter().find(|variable| variable.path == [LOG]);
    let log = log.map(|variable| {
        let filter = variable.value.as_str().unwrap_or_default().parse();
        filter.map_err(|error| Failure::config(format!("{}: {error}", variable.name)))
    });
    log.transpose()
}

fn environment() -> Result<Vec<Variable>, Failure> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| Failure::config(format!("{name} is not valid UTF-8")));
        variables.extend(variable(&name, &value?).map_err(Failure::config)?);
    }
    Ok(variables)
}

/// The setting of one variable; `None` if it is none and may be set nevertheless.
fn variable(name: &str, value: &str) -> Result<Option<Variable>, String> {
    if name == HOME {
        return Ok(None);
    }
    let known: BTreeMap<String, (Vec<String>, Value)> = leaves(&defaults())
        .into_iter()
        .map(|(path, value)| {
            (
                format!("{PREFIX}{}", path.join("_").to_uppercase()),
                (path, value),
            )
        })
        .collect();
    let Some((path, default)) = known.get(name) else {
        // Without the beginning, which all have.
        let names = known.keys().map(String::as_str).chain([HOME]);
        let names = names.filter_map(|name| name.strip_prefix(PREFIX));
        let word = name.strip_prefix(PREFIX).unwrap_or(name);
        let is_of_section = |path: &[String]| match path {
            [section, _, ..] => section.eq_ignore_ascii_case(word),
            _ => false,
        };
        let mut settings = known.values();
        if let Some((path, _)) = settings.find(|(path, _)| is_of_section(path)) {
            let setting = path.join("_").to_uppercase();
            return Err(format!(
                "{name} is a section; name one of its settings, as in {PREFIX}{setting}"
            ));
        }
        return Err(closest(word, names).map_or_else(
            || format!("{name} is no setting; `dht-node config` shows all of them"),
            |close| format!("{name} is no setting; did you mean {PREFIX}{close}?"),
        ));
    };
    let wrong = |what: &str| format!("{name} is `{}`, which is not {what}", value.escape_debug());
    let text = value.trim();
    let value = match default {
        Value::Integer(_) => text
            .parse()
            .map(Value::Integer)
            .map_err(|_| wrong("a whole number"))?,
        Value::Float(_) => text
            .parse()
            .map(Value::Float)
            .map_err(|_| wrong("a number"))?,
        Value::Boolean(_) => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_| wrong("true or false"))?,
        Value::Array(_) => {
            let items = text.split(',').map(str::trim);
            Value::Array(
                items
                    .filter(|item| !item.is_empty())
                    .map(Value::from)
                    .collect(),
            )
        }
        _ => Value::from(text),
    };
    Ok(Some(Variable {
        name: name.to_owned(),
        path: path.clone(),
        value,
    }))
}

/// The settings of a table whose keys and kinds of values were checked.
fn parse(mut table: Table) -> Result<Settings, String> {
    let log = match table.remove(LOG) {
        None => None,
        Some(value) => Some(value.as_str().unwrap_or_default().parse()?),
    };
    let message = |error: toml::de::Error| error.message().to_owned();
    let api = match table.remove(API) {
        None => ApiSettings::default(),
        Some(section) => ApiSettings::deserialize(section).map_err(message)?,
    };
    let names_seeds = table.contains_key(DNS_SEEDS);
    let mut node = Config::deserialize(table).map_err(message)?;
    let default_seeds = default_node().dns_seeds;
    // `init` writes them into the file of every home.
    if !names_seeds || node.dns_seeds == default_seeds {
        node.dns_seeds = match node.transport.proxies_names() {
            true => Vec::new(),
            false => default_seeds,
        };
    }
    node.listen.iter().try_for_each(check_listen)?;
    Ok(Settings { node, api, log })
}

/// Refuses an address that no node can listen on, whatever the machine.
pub(crate) fn check_listen(address: &Address) -> Result<(), String> {
    match address.host() {
        Some(
            Host::Ip(..)
            | Host::Dns {
                kind: DnsKind::Dns | DnsKind::Dns4,
                ..
            },
        ) => Ok(()),
        _ => Err(format!(
            "`{address}` is not an address to listen on, as in /ip4/0.0.0.0/tcp/18189, /ip6/::/tcp/18189 or \
            /dns4/NAME/tcp/18189"
        )),
    }
}

/// Whether a short-lived node with these settings has no node to ask: it looks up no names of seeds.
pub(crate) const fn has_no_bootstrap(config: &Config) -> bool {
    config.peers.is_empty() && config.seeds.is_empty()
}

/// The default settings of a node: the library looks up no names by itself.
fn default_node() -> Config {
    Config {
        dns_seeds: vec![DEFAULT_DNS_SEEDS.to_owned()],
        ..Config::default()
    }
}

/// The default of every setting.
fn defaults() -> Table {
    let defaults = Settings {
        node: default_node(),
        api: ApiSettings::default(),
        log: None,
    };
    let mut table = defaults.table();
    table.insert(LOG.to_owned(), log::DEFAULT.into());
    table
}

/// Every setting with the keys that lead to it.
fn leaves(table: &Table) -> BTreeMap<Vec<String>, Value> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(leaves(inner).into_iter().map(|(path, value)| {
                    (std::iter::once(key.clone()).chain(path).collect(), value)
                }))
            }
            value => drop(found.insert(vec![key.clone()], value.clone())),
        }
    }
    found
}

/// Sets one setting. A section that is not there yet starts with its defaults: some cannot be read in part.
fn set(table: &mut Table, defaults: &Table, path: &[String], value: &Value) {
    let Some((last, sections)) = path.split_last() else {
        return;
    };
    let (mut table, mut defaults) = (table, Some(defaults));
    for section in sections {
        let default = defaults.and_then(|defaults| defaults.get(section));
        let default = default.cloned().unwrap_or_else(|| Table::new().into());
        defaults = defaults.and_then(|defaults| defaults.get(section)?.as_table());
        let inner = table.entry(section.clone()).or_insert(default);
        match inner {
            Value::Table(inner) => table = inner,
            // The file was read before: a section is a table.
            _ => return,
        }
    }
    table.insert(last.clone(), value.clone());
}

#[cfg(test)]
mod tests;
