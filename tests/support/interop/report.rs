//! The table of results in `docs/compatibility.md`.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;

use super::{scenarios::SCENARIOS, world::Scenario};

/// Text before and after the rows.
const MARKS: (&str, &str) = (
    "| Version | Scenario | What happens | Result |\n|---|---|---|---|\n",
    "\n<!-- end of the results -->",
);

/// A document with a row for each version and scenario that it plays.
#[derive(Debug)]
pub struct Report {
    before: String,
    after: String,
    /// Results by what is before them in their row.
    results: BTreeMap<String, String>,
}

impl Report {
    /// Reads the rows of this document.
    ///
    /// # Errors
    /// That there is no such document, or no table in it.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parts = text.split_once(MARKS.0).and_then(|(before, rest)| {
            let (rows, after) = rest.split_once(MARKS.1)?;
            Some((before, rows, after))
        });
        let (before, rows, after) = parts.context("the document has no table of results")?;
        let results = rows.lines().filter_map(|row| {
            let (start, result) = row.strip_suffix(" |")?.rsplit_once("| ")?;
            Some((start.to_owned(), result.to_owned()))
        });
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
            results: results.collect(),
        })
    }

    /// Puts in what came of a scenario.
    pub fn add(&mut self, version: &str, scenario: &Scenario, passed: bool) {
        let result = if passed { "passed" } else { "**failed**" };
        self.results
            .insert(start(version, scenario), result.to_owned());
    }

    /// The scenarios of these versions that the document does not say have passed, as far as their rows are written.
    #[must_use]
    pub fn missing(&self, versions: &[String]) -> Vec<String> {
        rows(versions)
            .filter(|row| {
                self.results
                    .get(row)
                    .is_none_or(|result| result != "passed")
            })
            .collect()
    }

    /// Writes the document with the rows of these versions; those of scenarios that there no longer are, or that now are others, go.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn write(&self, file: &Path, versions: &[String]) -> anyhow::Result<()> {
        let rows = rows(versions).filter_map(|row| {
            let result = self.results.get(&row)?;
            Some(format!("{row}| {result} |\n"))
        });
        let rows: String = rows.collect();
        let text = [&*self.before, MARKS.0, &rows, MARKS.1, &*self.after].concat();
        std::fs::write(file, text).with_context(|| file.display().to_string())
    }
}

/// The starts of all rows, in order.
fn rows(versions: &[String]) -> impl Iterator<Item = String> {
    versions.iter().flat_map(|version| {
        let scenarios = SCENARIOS.iter().flat_map(|group| group.iter());
        let played = scenarios.filter(|scenario| scenario.is_for(version));
        played.map(|scenario| start(version, scenario))
    })
}

/// A row up to its result.
fn start(version: &str, scenario: &Scenario) -> String {
    format!("| {version} | {} | {} ", scenario.name, scenario.about)
}
