//! `behaviours`: the rows of a table of behaviours against the tests that carry their ids.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::repo::{self, Output};
use crate::test::plain;

/// Match the rows of a behaviour table to tests by id, and run those tests
///
/// A row `| B001 | …` belongs to every test whose name contains `b001`, as in `b001_no_connections_no_peers`; `SF-01`
/// to `sf01`. Ends with `N rows: P passed, F failed, M missing, L later`. Fails when a row failed or is missing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask behaviours docs/protocol/behaviours.md\n  \
                        cargo xtask behaviours docs/protocol/05-store-and-forward.md    the rows SF-01 …\n  \
                        cargo xtask behaviours --list docs/protocol/behaviours.md       every row with its tests"
)]
pub(crate) struct Behaviours {
    /// Markdown file with tables whose first column is `Id` and whose last is `Then` or `Expected`
    file: PathBuf,
    /// Print every row with its tests, not only those that failed or are missing
    #[arg(long)]
    list: bool,
}

/// Areas whose behaviours come with parts of the node that do not stand yet. A row of theirs that has a test counts as
/// any other.
const LATER: [&str; 8] = [
    "Storage",
    "Metadata",
    "Connectivity",
    "Network discovery",
    "Rebootstrap",
    "Dial or discover",
    "Join propagation",
    "Discovery propagation",
];

#[derive(Debug, PartialEq)]
struct Row {
    id: String,
    area: Option<String>,
    /// Everything after the area, for people.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum RowStatus {
    Passed,
    Failed,
    Missing,
    Later,
}

impl Behaviours {
    pub(crate) fn run(self) -> Result<()> {
        let page = fs::read_to_string(&self.file)
            .with_context(|| format!("read {}", self.file.display()))?;
        let rows = rows(&page);
        ensure!(
            !rows.is_empty(),
            "{}: no table with the columns Id … Then or Id … Expected",
            self.file.display()
        );

        let mut command = repo::cargo(["test", "--workspace", "--all-features", "--no-fail-fast"]);
        command.args(["--lib", "--bins", "--tests", "--"]);
        command.args(rows.iter().flat_map(|row| spellings(&row.id)));
        let mut results = BTreeMap::new();
        let ok = repo::tee(&mut command, Output::Stdout, |line| {
            if let Some((name, passed)) = result(line) {
                // The same name may occur in several test binaries.
                *results.entry(name).or_insert(true) &= passed;
            }
        })?;
        ensure!(
            ok || results.values().any(|passed| !passed),
            "the tests did not build or did not run"
        );

        let (mut passed, mut failed, mut missing, mut later) = (0, 0, 0, 0);
        println!();
        for row in &rows {
            let tests: Vec<_> = results
                .iter()
                .filter(|(name, _)| covers(name, &row.id))
                .collect();
            let status = status(row, &tests);
            *match status {
                RowStatus::Passed => &mut passed,
                RowStatus::Failed => &mut failed,
                RowStatus::Missing => &mut missing,
                RowStatus::Later => &mut later,
            } += 1;
            if self.list || matches!(status, RowStatus::Failed | RowStatus::Missing) {
                println!("{:<6} {status:?}: {}", row.id, row.text);
                for (name, passed) in tests {
                    println!(
                        "         {} {name}",
                        if *passed { "ok    " } else { "FAILED" }
                    );
                }
            }
        }
        println!(
            "{} rows: {passed} passed, {failed} failed, {missing} missing, {later} later",
            rows.len()
        );
        ensure!(
            failed == 0 && missing == 0,
            "not every behaviour is covered"
        );
        Ok(())
    }
}

/// The rows of every table that begins with `Id` and ends with `Then` or `Expected`.
fn rows(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut table: Option<Option<usize>> = None; // inside a table of behaviours: where its area column is
    for line in page.lines() {
        let Some(inner) = line.trim().strip_prefix('|') else {
            table = None;
            continue;
        };
        let cells: Vec<&str> = inner
            .strip_suffix('|')
            .unwrap_or(inner)
            .split('|')
            .map(str::trim)
            .collect();
        let Some((&id, others)) = cells.split_first() else {
            continue;
        };
        if id == "Id" {
            let wanted = matches!(others.last(), Some(&"Then" | &"Expected"));
            table = wanted.then(|| others.iter().position(|cell| *cell == "Area"));
            continue;
        }
        let Some(area) = table else { continue };
        if id.starts_with(|c: char| c.is_ascii_uppercase()) {
            let area = area
                .and_then(|at| others.get(at))
                .map(|&area| area.to_owned());
            rows.push(Row {
                id: id.to_owned(),
                area,
                text: others.join(" | "),
            });
        }
    }
    rows
}

/// How a test may spell an id: `SF-01` as `sf01` or `sf_01`.
fn spellings(id: &str) -> Vec<String> {
    let id = id.to_ascii_lowercase();
    let mut spellings = vec![id.replace('-', "")];
    if id.contains('-') {
        spellings.push(id.replace('-', "_"));
    }
    spellings
}

/// Whether the name has the id as a word of its own.
fn covers(name: &str, id: &str) -> bool {
    let word = |at: usize, length: usize| {
        let before = name[..at].chars().next_back();
        let after = name[at + length..].chars().next();
        [before, after]
            .iter()
            .all(|c| c.is_none_or(|c| !c.is_ascii_alphanumeric()))
    };
    spellings(id).iter().any(|id| {
        name.match_indices(id.as_str())
            .any(|(at, found)| word(at, found.len()))
    })
}

/// `test path::of::b001_name ... ok` → the name, and whether it passed; ignored tests show nothing.
fn result(line: &str) -> Option<(String, bool)> {
    let line = plain(line);
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name
        .strip_suffix(" - should panic")
        .unwrap_or(name)
        .to_owned();
    match outcome.trim() {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

fn status(row: &Row, tests: &[(&String, &bool)]) -> RowStatus {
    if tests.iter().any(|(_, passed)| !**passed) {
        RowStatus::Failed
    } else if !tests.is_empty() {
        RowStatus::Passed
    } else if row
        .area
        .as_deref()
        .is_some_and(|area| LATER.contains(&area))
    {
        RowStatus::Later
    } else {
        RowStatus::Missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
| Id | Area | Given | Then |
|----|------|-------|------|
| B001 | Padding | x | y |
| B013 | Metadata | x | y |

| Id | Fault | Repair |
|---|---|---|
| F-1 | x | y |

| Id | Case | Expected |
|---|---|---|
| SF-01 | x | y |
";

    #[test]
    fn reads_behaviour_tables_only() {
        let ids: Vec<_> = rows(PAGE)
            .into_iter()
            .map(|row| (row.id, row.area))
            .collect();
        let area = |area: &str| Some(area.to_owned());
        let expected = [
            ("B001", area("Padding")),
            ("B013", area("Metadata")),
            ("SF-01", None),
        ];
        assert_eq!(ids, expected.map(|(id, area)| (id.to_owned(), area)));
    }

    #[test]
    fn an_id_must_be_a_word() {
        assert!(covers("padding::tests::b001_pads", "B001"));
        assert!(covers("it::b001_b002_both", "B002"));
        assert!(covers("sf01_off", "SF-01") && covers("sf_01_off", "SF-01"));
        assert!(!covers("padding::tests::sub001_pads", "B001"));
        assert!(!covers("padding::tests::b0011_pads", "B001"));
    }

    #[test]
    fn reads_results() {
        assert_eq!(
            result("test a::b001_x ... ok"),
            Some(("a::b001_x".into(), true))
        );
        assert_eq!(
            result("test a::b001_x - should panic ... FAILED"),
            Some(("a::b001_x".into(), false))
        );
        assert_eq!(result("test a::b001_x ... ignored, slow"), None);
        assert_eq!(result("running 3 tests"), None);
    }

    #[test]
    fn only_untested_rows_can_be_later() {
        let [padding, metadata, ..] = &rows(PAGE)[..] else {
            panic!("rows")
        };
        let name = String::from("b013_reads_none");
        assert_eq!(status(metadata, &[]), RowStatus::Later);
        assert_eq!(status(padding, &[]), RowStatus::Missing);
        assert_eq!(status(metadata, &[(&name, &true)]), RowStatus::Passed);
        assert_eq!(
            status(metadata, &[(&name, &true), (&name, &false)]),
            RowStatus::Failed
        );
    }
}
