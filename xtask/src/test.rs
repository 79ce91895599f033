//! `test`: every test of the workspace.

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::ci::Stopwatch;
use crate::repo::{self, Output};

/// Run every unit, integration and doc test of the workspace
///
/// Unit and integration tests run under cargo-nextest where it is installed, under `cargo test` otherwise.
/// Needs nothing but Rust. Ends with one line: passed, failed, ignored, seconds.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test               everything\n  \
                        cargo xtask test dht-core      one crate, or several"
)]
pub(crate) struct Test {
    /// Only these packages
    packages: Vec<String>,
}

#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let clock = Stopwatch::start();
        let mut counts = Counts::default();
        let nextest = repo::has("nextest");
        let units = if nextest {
            self.nextest(&mut counts)?
        } else {
            self.cargo_test(&mut counts)?
        };
        let docs = self.doc_tests(&mut counts)?;
        let Counts {
            passed,
            failed,
            ignored,
        } = counts;
        let verdict = if units && docs { "ok" } else { "FAILED" };
        let runner = if nextest { "nextest" } else { "cargo test" };
        println!(
            "\ntest {verdict}: {passed} passed, {failed} failed, {ignored} ignored in {} ({runner})",
            clock.elapsed()
        );
        ensure!(units && docs, "tests failed or did not build");
        Ok(())
    }

    fn nextest(&self, counts: &mut Counts) -> Result<bool> {
        let mut command = repo::cargo([
            "nextest",
            "run",
            "--all-features",
            "--no-fail-fast",
            "--no-tests=pass",
        ]);
        command.args(self.selection());
        repo::tee(&mut command, Output::Stderr, |line| {
            counts.add_nextest(line)
        })
    }

    fn cargo_test(&self, counts: &mut Counts) -> Result<bool> {
        let mut command = repo::cargo([
            "test",
            "--all-features",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
        command.args(self.selection());
        repo::tee(&mut command, Output::Stdout, |line| {
            counts.add_libtest(line)
        })
    }

    fn doc_tests(&self, counts: &mut Counts) -> Result<bool> {
        let mut command = repo::cargo(["test", "--all-features", "--no-fail-fast", "--doc"]);
        if self.packages.is_empty() {
            command.arg("--workspace");
        } else {
            // cargo refuses `--doc` when no package named has a library.
            let libraries = libraries(&repo::metadata()?);
            let named: Vec<_> = self
                .packages
                .iter()
                .filter(|name| libraries.contains(name))
                .collect();
            if named.is_empty() {
                return Ok(true);
            }
            command.args(named.iter().flat_map(|name| ["--package", name.as_str()]));
        }
        repo::tee(&mut command, Output::Stdout, |line| {
            counts.add_libtest(line)
        })
    }

    fn selection(&self) -> Vec<String> {
        if self.packages.is_empty() {
            return vec!["--workspace".into()];
        }
        self.packages
            .iter()
            .flat_map(|package| ["--package".into(), package.clone()])
            .collect()
    }
}

/// The packages of the workspace that have a library.
fn libraries(metadata: &Value) -> Vec<String> {
    let is_library = |target: &Value| {
        target["kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
    };
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter(|package| {
            package["targets"]
                .as_array()
                .is_some_and(|targets| targets.iter().any(is_library))
        })
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect()
}

impl Counts {
    /// `Summary [   0.005s] 3 tests run: 2 passed (1 slow), 1 failed, 0 skipped`
    fn add_nextest(&mut self, line: &str) {
        let line = plain(line);
        if !line.trim_start().starts_with("Summary [") {
            return;
        }
        self.passed += number_before(&line, " passed");
        self.failed += number_before(&line, " failed") + number_before(&line, " timed out");
        self.ignored += number_before(&line, " skipped");
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn add_libtest(&mut self, line: &str) {
        let line = plain(line);
        if !line.starts_with("test result: ") {
            return;
        }
        self.passed += number_before(&line, " passed");
        self.failed += number_before(&line, " failed");
        self.ignored += number_before(&line, " ignored");
    }
}

/// The number that stands right before `word`, or 0.
fn number_before(line: &str, word: &str) -> u64 {
    line.find(word)
        .and_then(|at| line[..at].rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// `line` without terminal colours.
pub(crate) fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            for c in rest.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_both_runners() {
        let mut counts = Counts::default();
        counts.add_nextest("\u{1b}[32;1m     Summary\u{1b}[0m [   0.005s] \u{1b}[1m13\u{1b}[0m tests run: 12 passed (1 slow), 1 failed, 4 skipped");
        counts.add_libtest("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        counts.add_libtest("a line that has 7 passed in it");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (15, 1, 5));
    }
}
