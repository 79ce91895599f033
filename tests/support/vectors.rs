//! Golden vectors: JSON files of cases, each with an `about` that explains its fields.
//!
//! A file is recognised by its name, a case by its `kind` or by the fields it has. What is not recognised fails, and so
//! does a case that lacks a field: a vector nobody looks at is no vector.

mod addresses;
mod case;
mod envelopes;
mod hashes;
mod identity;
mod keys;
mod signatures;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{fmt, fs, io};

use serde_json::Value;

use self::case::{Case, Outcome};

/// Outcome of every case of a directory. Displays a line a file, the failed cases under their file, and
/// `N passed, M failed` at the end.
#[derive(Debug)]
pub struct Report {
    files: Vec<FileReport>,
}

/// Outcome of the cases of one file.
#[derive(Debug)]
struct FileReport {
    name: String,
    passed: usize,
    failures: Vec<String>,
}

/// Checks every `*.json` of a directory, in the order of their names.
///
/// # Errors
/// If the directory cannot be read. A file that cannot be read or parsed is a failure in the report.
pub fn check_directory(directory: &Path) -> io::Result<Report> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(Report {
        files: paths.iter().map(|path| check_file(path)).collect(),
    })
}

/// Check for the cases of one file.
struct Checker {
    /// The name of the file, which may have more words around it, as in `more-keys.2.json`.
    name: &'static str,
    /// The kinds there are; none if the cases of the file have no `kind`.
    kinds: &'static [&'static str],
    check: fn(&Case<'_>) -> Outcome,
}

const ENVELOPES: &[&str] = &["encrypted", "cleartext-signed", "cleartext-unsigned"];

#[rustfmt::skip]
const CHECKERS: &[Checker] = &[
    Checker { name: "keys", kinds: &["keypair", "scalar_decode", "point_decode", "wide_reduce"], check: keys::key },
    Checker { name: "node_ids", kinds: &[], check: keys::node_id },
    Checker { name: "distances", kinds: &["distance", "closest", "decode"], check: keys::distance },
    Checker { name: "hashing", kinds: &[], check: hashes::domain_hash },
    Checker { name: "challenge_hashes", kinds: &[], check: hashes::binding_hash },
    Checker { name: "dedup_hashes", kinds: &[], check: hashes::dedup_hash },
    Checker { name: "key_derivation", kinds: &[], check: envelopes::key_derivation },
    Checker { name: "padding", kinds: &[], check: envelopes::padding },
    Checker { name: "envelopes_valid", kinds: ENVELOPES, check: envelopes::valid },
    Checker {
        name: "envelopes_invalid",
        kinds: &["encrypted", "cleartext-signed", "cleartext-unsigned", "raw"],
        check: envelopes::invalid,
    },
    Checker { name: "message_signatures", kinds: &[], check: signatures::message },
    Checker { name: "identity_signatures", kinds: &["decode"], check: signatures::identity },
    Checker { name: "identity_messages", kinds: &[], check: identity::message },
    Checker { name: "multiaddr", kinds: &[], check: addresses::multiaddr },
];

/// The checker with the longest name that is in the file's, as whole words.
fn checker(stem: &str) -> Option<&'static Checker> {
    let in_words = |name: &str| {
        stem.match_indices(name).any(|(at, _)| {
            let before = stem[..at].chars().next_back();
            let after = stem[at + name.len()..].chars().next();
            let apart = |next: Option<char>| next.is_none_or(|next| !next.is_alphabetic());
            apart(before) && apart(after)
        })
    };
    let known = CHECKERS.iter().filter(|checker| in_words(checker.name));
    known.max_by_key(|checker| checker.name.len())
}

impl Checker {
    /// Checks one case. A panic is a failure of the case, not the end of all others.
    fn check(&self, case: &Case<'_>) -> Outcome {
        // A file of cases without kinds has one kind of case; identity signatures have a case without one.
        if case.has("kind") {
            let kind = case.text("kind")?;
            if !self.kinds.contains(&kind) {
                return Err(format!("unknown kind {kind}"));
            }
        }
        catch_unwind(AssertUnwindSafe(|| (self.check)(case)))
            .unwrap_or_else(|_| Err("the check panicked".to_owned()))
    }
}

fn check_file(path: &Path) -> FileReport {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut report = FileReport {
        name,
        passed: 0,
        failures: Vec::new(),
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let cases = match (checker(&stem), read(path)) {
        (None, _) => Err("no check for a file of this name".to_owned()),
        (_, Err(error)) => Err(error),
        (Some(checker), Ok(cases)) => Ok((checker, cases)),
    };
    match cases {
        Err(error) => report.failures.push(error),
        Ok((checker, cases)) => {
            for (number, value) in cases.iter().enumerate() {
                let case = Case::new(value);
                match checker.check(&case) {
                    Ok(()) => report.passed += 1,
                    Err(error) => {
                        // One line each, whatever a value prints.
                        let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
                        let label = case.label();
                        report
                            .failures
                            .push(format!("case {number}{label}: {error}"));
                    }
                }
            }
        }
    }
    report
}

fn read(path: &Path) -> Result<Vec<Value>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let mut file: Value =
        serde_json::from_slice(&text).map_err(|error| format!("not JSON: {error}"))?;
    match file.get_mut("cases").map(Value::take) {
        Some(Value::Array(cases)) if !cases.is_empty() => Ok(cases),
        _ => Err("no list of cases".to_owned()),
    }
}

// === impl Report ===

impl Report {
    /// Cases that came out as expected.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.files.iter().map(|file| file.passed).sum()
    }

    /// Cases that did not, and files that could not be checked.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.files.iter().map(|file| file.failures.len()).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for FileReport {
            name,
            passed,
            failures,
        } in &self.files
        {
            writeln!(
                f,
                "{name:<28} {passed:>4} passed, {:>3} failed",
                failures.len()
            )?;
            for failure in failures {
                writeln!(f, "    {failure}")?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed(), self.failed())
    }
}
