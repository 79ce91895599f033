//! Golden vectors: JSON files of cases, each with an `about` that explains its fields.
//!
//! A file is recognised by its name, a case by its `kind` or by the fields it has. What is not recognised fails: a
//! vector nobody looks at is no vector.

mod addresses;
mod case;
mod envelopes;
mod hashes;
mod identity;
mod keys;
mod signatures;

use std::path::Path;
use std::{fmt, fs, io};

use serde_json::Value;

use self::case::{Case, Outcome};

/// What became of every case of a directory. Displays a line a file, the failed cases under their file, and
/// `N passed, M failed` at the end.
#[derive(Debug)]
pub struct Report {
    files: Vec<FileReport>,
}

/// What became of the cases of one file.
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

/// The check for the cases of one file.
fn checker(stem: &str) -> Option<fn(&Case<'_>) -> Outcome> {
    Some(match stem {
        "keys" => keys::key,
        "node_ids" => keys::node_id,
        "distances" => keys::distance,
        "hashing" => hashes::domain_hash,
        "challenge_hashes" => hashes::binding_hash,
        "dedup_hashes" => hashes::dedup_hash,
        "key_derivation" => envelopes::key_derivation,
        "padding" => envelopes::padding,
        "envelopes_valid" => envelopes::valid,
        "envelopes_invalid" => envelopes::invalid,
        "message_signatures" => signatures::message,
        "identity_signatures" => signatures::identity,
        "identity_messages" => identity::message,
        "multiaddr" => addresses::multiaddr,
        _ => return None,
    })
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
        (Some(check), Ok(cases)) => Ok((check, cases)),
    };
    match cases {
        Err(error) => report.failures.push(error),
        Ok((check, cases)) => {
            for (number, value) in cases.iter().enumerate() {
                let case = Case::new(value);
                match check(&case) {
                    Ok(()) => report.passed += 1,
                    Err(error) => report
                        .failures
                        .push(format!("case {number}{}: {error}", case.label())),
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
