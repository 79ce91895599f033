//! `ci`: every gate, in order, each timed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::attack::Attack;
use crate::bench::Bench;
use crate::codegen::Codegen;
use crate::deps::Deps;
use crate::docs::Docs;
use crate::repo;
use crate::sim::Sim;
use crate::tidy::Tidy;

/// Run every gate: fmt, clippy, features, docs, deps, codegen, deny, bench, attack, sim, tidy
///
/// Runs all of them even when one fails, prints what each took, and fails if one did. Tests are `cargo xtask test`.
/// Needs rustfmt, clippy and cargo-deny; `.ci/run` installs what is missing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask ci                 every gate\n  \
                        cargo xtask ci fmt clippy      only these, in the usual order"
)]
pub(crate) struct Ci {
    /// Only these gates
    #[arg(value_name = "GATE", value_parser = NAMES)]
    only: Vec<String>,
}

type Gate = fn() -> Result<()>;

const GATES: [(&str, Gate); 11] = [
    ("fmt", fmt),
    ("clippy", clippy),
    ("features", features),
    ("docs", || Docs::strict().run()),
    ("deps", || Deps::default().run()),
    ("codegen", || Codegen::check().run()),
    ("deny", deny),
    ("bench", || Bench::quick().run()),
    ("attack", || Attack::quick().run()),
    ("sim", || Sim::quick().run()),
    ("tidy", tidy),
];
const NAMES: [&str; 11] = [
    "fmt", "clippy", "features", "docs", "deps", "codegen", "deny", "bench", "attack", "sim",
    "tidy",
];

impl Ci {
    pub(crate) fn run(self) -> Result<()> {
        let mut rows = Vec::new();
        for (name, gate) in GATES {
            if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
                continue;
            }
            eprintln!("\n== {name}");
            let clock = Stopwatch::start();
            let outcome = gate();
            if let Err(error) = &outcome {
                eprintln!("{name}: {error:#}");
            }
            rows.push((name, clock.elapsed(), outcome.is_ok()));
        }
        println!("\n{:<10} {:>8}  result", "gate", "time");
        for (name, time, ok) in &rows {
            println!(
                "{name:<10} {time:>8}  {}",
                if *ok { "ok" } else { "FAILED" }
            );
        }
        let failed: Vec<_> = rows
            .iter()
            .filter(|(_, _, ok)| !ok)
            .map(|(name, _, _)| *name)
            .collect();
        ensure!(failed.is_empty(), "ci failed: {}", failed.join(", "));
        Ok(())
    }
}

fn fmt() -> Result<()> {
    repo::run(&mut repo::cargo(["fmt", "--all", "--check"]))
}

const DENY_WARNINGS: [&str; 3] = ["--", "--deny", "warnings"];

fn clippy() -> Result<()> {
    let whole = ["clippy", "--workspace", "--all-targets", "--all-features"];
    repo::run(repo::cargo(whole).args(DENY_WARNINGS))
}

/// Every published crate by itself, with each feature alone and with none: features unified over the workspace hide what
/// a crate forgot to ask for. Clippy rather than check, because it denies warnings in the crate alone.
fn features() -> Result<()> {
    let mut failed = Vec::new();
    for (package, features) in feature_sets(&repo::metadata()?)? {
        let mut command = repo::cargo(["clippy", "--quiet", "--package", &package]);
        if let Err(error) = repo::run(command.args(features).args(DENY_WARNINGS)) {
            failed.push(format!("{error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Each crate under `crates/` with its default features, with none, and with each one alone.
fn feature_sets(metadata: &Value) -> Result<Vec<(String, Vec<String>)>> {
    let mut sets = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .context("no packages in cargo metadata")?
    {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        if !manifest.starts_with(repo::root().join("crates")) {
            continue;
        }
        sets.push((name.to_owned(), Vec::new()));
        let features = package["features"]
            .as_object()
            .context("a package without a feature table")?;
        if features.is_empty() {
            continue;
        }
        let none = "--no-default-features".to_owned();
        sets.push((name.to_owned(), vec![none.clone()]));
        for feature in features.keys().filter(|feature| *feature != "default") {
            sets.push((
                name.to_owned(),
                vec![none.clone(), "--features".into(), feature.clone()],
            ));
        }
    }
    Ok(sets)
}

fn tidy() -> Result<()> {
    Tidy::default().run()
}

/// Advisories are left out: their database is not a package registry, and this gate needs nothing else from the network.
fn deny() -> Result<()> {
    ensure!(
        repo::has("deny"),
        "cargo-deny is missing: `cargo install --locked cargo-deny`, or run .ci/run"
    );
    repo::run(&mut repo::cargo([
        "deny",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// How long something took, on the wall.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures commands, for people; nothing depends on it"
    )]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Elapsed {
        Elapsed(self.0.elapsed())
    }
}

/// Prints as `83.1 s`, padded as asked.
pub(crate) struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} s", self.0.as_secs_f64()))
    }
}
