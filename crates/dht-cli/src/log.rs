//! The log: its filter, checked and changed while the process runs, and the limit on warnings.

mod quiet;

use std::{str::FromStr, sync::OnceLock};

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload};

use self::quiet::Quiet;
use crate::{output::LogWriter, spelling::closest};

/// Filter without a flag and a setting.
pub(crate) const DEFAULT: &str = "warn";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Libraries that log under their own names; all crates of this repository begin with `dht_`.
const TARGETS: [&str; 10] = [
    "axum", "hyper", "mio", "redb", "snow", "tokio", "tower", "yamux", "rustls", "h2",
];

static LOG: OnceLock<Log> = OnceLock::new();

/// The running log.
struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// True if a flag or the environment of the process has chosen the filter, which the file does not change.
    fixed: bool,
}

/// A filter as in `debug` or `warn,dht_transport=trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    fn filter(&self) -> EnvFilter {
        // `from_str` has parsed it.
        EnvFilter::try_new(&self.0).unwrap_or_else(|_| EnvFilter::new(DEFAULT))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Filters of span fields may hold commas and words of any kind.
        if !text.contains(['[', '{']) {
            for part in text.split(',').map(str::trim) {
                check(part)?;
            }
        }
        EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

/// Checks one directive: a level, `TARGET=LEVEL`, or the name of a library. The filter itself takes every word for a
/// target, so that a mistyped level would silence the log.
fn check(part: &str) -> Result<(), String> {
    let known = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let number = |word: &str| matches!(word.parse(), Ok(0..=5_u8));
    let target = |word: &str| {
        let root = word.split("::").next().unwrap_or_default();
        root.starts_with("dht_") || TARGETS.contains(&root)
    };
    let (word, wrong) = match part.rsplit_once('=') {
        Some((_, level)) => (level.trim(), !known(level.trim()) && !number(level.trim())),
        None => (part, !known(part) && !number(part) && !target(part)),
    };
    if !wrong {
        return Ok(());
    }
    Err(closest(&word.to_ascii_lowercase(), LEVELS).map_or_else(
        || {
            format!(
                "`{word}` is not a level; levels are {}, for one target as in dht_transport=debug",
                LEVELS.join(", ")
            )
        },
        |level| format!("`{word}` is not a level; did you mean `{level}`?"),
    ))
}

/// Starts the log. Without a filter of the command line, the setting chooses it later.
pub(crate) fn start(flag: Option<&LogFilter>) {
    let default = LogFilter::default();
    let (layer, filter) = reload::Layer::new(flag.unwrap_or(&default).filter());
    let lines = tracing_subscriber::fmt::layer()
        // The writer escapes what would colour a line, as a peer's text could.
        .with_ansi(false)
        .with_writer(|| LogWriter);
    let log = tracing_subscriber::registry()
        .with(layer)
        .with(Quiet::default())
        .with(lines);
    // Both succeed in a process that starts its log once.
    let _ = tracing::subscriber::set_global_default(log);
    let fixed = flag.is_some();
    let _ = LOG.set(Log { filter, fixed });
    log_panics();
}

/// Writes panics to the log, where peers that cause them fill nothing and text is escaped. Those of the main thread end the
/// process, and those of an operator who asks for backtraces go to standard error in full.
fn log_panics() {
    let in_full = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_main = std::thread::current().name() == Some("main");
        if is_main || std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            in_full(panic);
        } else {
            tracing::error!(target: "panic", "{panic}");
        }
    }));
}

/// Changes the filter of the running log to that of the settings; false if the command line has chosen it.
pub(crate) fn set(setting: Option<&LogFilter>) -> bool {
    let default = LogFilter::default();
    LOG.get().is_some_and(|log| {
        // A reload fails only without the subscriber, which lives as long as the process.
        !log.fixed
            && log
                .filter
                .reload(setting.unwrap_or(&default).filter())
                .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_levels_are_refused() {
        for (text, meant) in [
            ("warning", "warn"),
            ("trcae", "trace"),
            ("inof", "info"),
            ("warn,dht_transport=trcae", "trace"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.contains(&format!("`{meant}`")), "{text}: {error}");
        }
        let error = "loud".parse::<LogFilter>().unwrap_err();
        assert!(error.contains("off, error, warn"), "{error}");
    }

    #[test]
    fn filters_of_tracing_are_taken() {
        for text in [
            "debug",
            "WARN",
            "off",
            "dht_transport",
            "dht_transport::connection=trace",
            "warn,dht_node=debug,yamux=off",
            "info,[send{peer=1}]=trace",
            "3",
        ] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
    }
}
