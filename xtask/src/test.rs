//! `test`: every test of the workspace.

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::ci::Stopwatch;
use crate::repo::{self, Output};

/// Run every unit, integration and doc test of the workspace
///
/// Builds the tests first, and with them the `dht-node` binary that the tests of its package run. Unit and integration tests run under cargo-nextest where it is installed, under `cargo test` otherwise.
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
        let built = self.build(nextest)?;
        let units = built
            && if nextest {
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

    /// Builds what the next step runs, with the same flags, so that nothing is built twice.
    fn build(&self, nextest: bool) -> Result<bool> {
        let clock = Stopwatch::start();
        let mut command = if nextest {
            repo::cargo(NEXTEST)
        } else {
            repo::cargo(CARGO_TEST)
        };
        command.args(self.selection()).arg("--no-run");
        let built = repo::tee(&mut command, Output::Stdout, |_| {})?;
        let binary = packages_with(&repo::metadata()?, "bin", Some("dht-node"))
            .into_iter()
            .find(|name| self.packages.is_empty() || self.packages.contains(name));
        let binary = binary.map(|package| format!(" and the binary dht-node of {package}"));
        println!(
            "build {}: the tests{} in {}",
            if built { "ok" } else { "FAILED" },
            binary.unwrap_or_default(),
            clock.elapsed()
        );
        Ok(built)
    }

    fn nextest(&self, counts: &mut Counts) -> Result<bool> {
        let mut command = repo::cargo(NEXTEST);
        command
            .args(["--no-fail-fast", "--no-tests=pass"])
            .args(self.selection());
        repo::tee(&mut command, Output::Stderr, |line| {
            counts.add_nextest(line)
        })
    }

    fn cargo_test(&self, counts: &mut Counts) -> Result<bool> {
        let mut command = repo::cargo(CARGO_TEST);
        command.arg("--no-fail-fast").args(self.selection());
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
            let libraries = packages_with(&repo::metadata()?, "lib", None);
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

const NEXTEST: [&str; 3] = ["nextest", "run", "--all-features"];
const CARGO_TEST: [&str; 5] = ["test", "--all-features", "--lib", "--bins", "--tests"];

/// The packages of the workspace that have a target of this kind, with this name if one is given.
fn packages_with(metadata: &Value, kind: &str, name: Option<&str>) -> Vec<String> {
    let is_wanted = |target: &Value| {
        let mut kinds = target["kind"].as_array().into_iter().flatten();
        kinds.any(|it| it == kind) && name.is_none_or(|name| target["name"] == name)
    };
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter(|package| {
            let mut targets = package["targets"].as_array().into_iter().flatten();
            targets.any(is_wanted)
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
    fn binary_is_found_in_its_package() {
        let found = packages_with(&repo::metadata().unwrap(), "bin", Some("dht-node"));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn counts_both_runners() {
        let mut counts = Counts::default();
        counts.add_nextest("\u{1b}[32;1m     Summary\u{1b}[0m [   0.005s] \u{1b}[1m13\u{1b}[0m tests run: 12 passed (1 slow), 1 failed, 4 skipped");
        counts.add_libtest("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        counts.add_libtest("a line that has 7 passed in it");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (15, 1, 5));
    }
}
