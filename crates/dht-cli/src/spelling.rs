//! Suggestions for mistyped words.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Least length of a beginning that stands for a word.
const MIN_BEGINNING: usize = 3;
/// Between the parts of the key of a setting.
const SEPARATORS: [char; 2] = ['_', '.'];
/// Other names that people give to commands.
const OTHER_NAMES: [(&str, &[&str]); 11] = [
    ("add", &["create", "connect", "ban"]),
    ("config", &["settings", "env"]),
    ("discover", &["find", "search", "lookup"]),
    ("id", &["key", "whoami", "address"]),
    ("inbox", &["receive", "read", "messages", "mail"]),
    ("init", &["create", "new", "setup"]),
    ("lift", &["remove", "rm", "delete", "unban"]),
    ("list", &["ls"]),
    ("remove", &["rm", "delete", "forget"]),
    ("run", &["start", "serve", "daemon"]),
    ("show", &["get", "info"]),
];

/// The word that is meant by `word`, if one is: one that has its parts, or begins with it, or else the nearest, if a quarter of its
/// letters at most are wrong.
pub(crate) fn closest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let words: Vec<&str> = words.into_iter().collect();
    // The key of a setting without its section, or without words in between.
    let has_parts = |other: &str| {
        let mut of_other = other.split(SEPARATORS);
        let mut parts = word.split(SEPARATORS);
        !word.is_empty() && parts.all(|part| of_other.any(|other| other == part))
    };
    let is_beginning = |other: &str| {
        let length = word.len().min(other.len());
        length >= MIN_BEGINNING && (other.starts_with(word) || word.starts_with(other))
    };
    let shortest = |fits: &dyn Fn(&str) -> bool| {
        let fitting = words.iter().filter(|other| fits(other));
        fitting.min_by_key(|other| other.len()).copied()
    };
    let distance = |other: &str| strsim::damerau_levenshtein(word, other);
    let nearest = || {
        let found = words.iter().min_by_key(|other| distance(other))?;
        let most = (word.len().max(found.len()) / 4).max(1);
        (!word.is_empty() && distance(found) <= most).then_some(*found)
    };
    shortest(&has_parts)
        .or_else(|| shortest(&is_beginning))
        .or_else(nearest)
}

/// Adds the command that is meant to the error about one that does not exist.
pub(crate) fn suggest(mut error: clap::Error, command: clap::Command) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand).cloned()
    else {
        return error;
    };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut within = command;
    for before in words.iter().take_while(|other| **other != word) {
        if let Some(inner) = within.find_subcommand(before).cloned() {
            within = inner;
        }
    }
    let names: Vec<&str> = within
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    if let Some(meant) = meant(&word, &names) {
        let meant = ContextValue::Strings(vec![meant.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, meant);
    }
    error
}

/// The one of these commands that somebody means who calls it `word`.
fn meant<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let other_names = |name: &str| {
        let found = OTHER_NAMES.iter().find(|(known, _)| *known == name);
        found.map_or(&[][..], |(_, others)| others)
    };
    let called = |name: &&&str| other_names(name).contains(&word);
    let named = names.iter().find(called).copied();
    named.or_else(|| closest(word, names.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_by_their_parts() {
        let settings = [
            "MEMORY_MIB",
            "API_METRICS",
            "TRANSPORT_MAX_CONNECTIONS",
            "TRANSPORT_PROXY",
            "TRANSPORT_PROXY_FOR",
            "PEERS",
            "FLOOD_SECONDS",
        ];
        for (word, expected) in [
            ("MAX_CONNECTIONS", Some("TRANSPORT_MAX_CONNECTIONS")),
            ("PROXY", Some("TRANSPORT_PROXY")),
            ("TRANSPORT_CONNECTIONS", Some("TRANSPORT_MAX_CONNECTIONS")),
            ("METRICS", Some("API_METRICS")),
            ("MEMORY", Some("MEMORY_MIB")),
            ("MEMROY_MIB", Some("MEMORY_MIB")),
            ("FLOD_SECONDS", Some("FLOOD_SECONDS")),
            ("FOO", None),
            ("FO", None),
            ("MOMERY_MAX", None),
            ("QUUX", None),
            ("", None),
        ] {
            assert_eq!(closest(word, settings), expected, "{word}");
        }
    }

    #[test]
    fn commands_are_told_by_other_names() {
        let all = ["init", "id", "run", "listen", "inbox", "peers", "config"];
        for (word, expected) in [
            ("start", Some("run")),
            ("key", Some("id")),
            ("conf", Some("config")),
            ("inbx", Some("inbox")),
            ("new", Some("init")),
            ("quux", None),
        ] {
            assert_eq!(meant(word, &all), expected, "{word}");
        }
        assert_eq!(meant("remove", &["list", "add", "lift"]), Some("lift"));
        assert_eq!(meant("rm", &["list", "add", "remove"]), Some("remove"));
    }
}
