//! `tidy`: what the compiler does not say about the shape of the sources.

mod graph;
mod source;
mod words;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::repo;
use source::Source;
use words::Words;

/// Find circles of files, imports through the root of a crate, unordered `select!`, long test names and comments without a subject; count lines, names and errors
///
/// Tests and generated code are left out of circles and counts. Fails if there is a circle, an import of
/// an item that the root only passes on, a `select!` in a part of a node without `biased`, a test whose name has more than six words behind the ids of its behaviours, or a comment that begins with What, Who or Whom.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask tidy                     circles of files, long test names\n  \
                        cargo xtask tidy --counts            and lines, public names and error enums\n  \
                        cargo xtask tidy --docs dht-core     and the short field docs of this crate"
)]
pub(crate) struct Tidy {
    /// Only these packages
    packages: Vec<String>,
    /// Count circles of a module and the modules inside it as well
    #[arg(long)]
    strict: bool,
    /// Print files, lines, public names and error enums of each crate
    #[arg(long)]
    counts: bool,
    /// List the docs of fields that have three words or fewer
    #[arg(long)]
    docs: bool,
}

/// Packages that are no part of a node, and run on real clocks.
const AROUND_A_NODE: [&str; 5] = ["dht-api", "dht-bench", "dht-cli", "dht-tests", "xtask"];

impl Tidy {
    pub(crate) fn run(self) -> Result<()> {
        let sources = self.sources(&repo::metadata()?)?;
        if self.docs {
            print_docs(&sources);
        }
        if self.counts {
            print_counts(&sources);
        }
        let mut circles = 0;
        for source in &sources {
            for circle in graph::circles(&source.edges(self.strict)) {
                circles += 1;
                println!("circle in {}: {}", source.name, circle.join(" | "));
            }
        }
        let mut through_root = 0;
        for source in &sources {
            for (file, item) in source.imports_through_root() {
                through_root += 1;
                println!("{}: {file} imports {item} through the root", source.name);
            }
        }
        let mut unordered = 0;
        for source in &sources {
            if AROUND_A_NODE.contains(&source.name.as_str()) {
                continue;
            }
            for (file, line) in source.unordered_selects() {
                unordered += 1;
                println!("{file}:{line}: select! without biased");
            }
        }
        let mut words = Words::default();
        words.read(&repo::root())?;
        for name in &words.long_names {
            println!("long test name in {name}");
        }
        for place in &words.pronouns {
            println!("{place}: the comment begins with What, Who or Whom; begin with a noun");
        }
        ensure!(circles == 0, "{circles} circles of files");
        ensure!(through_root == 0, "{through_root} imports through a root");
        ensure!(
            unordered == 0,
            "{unordered} select! whose order no seed determines"
        );
        let (long, pronouns) = (words.long_names.len(), words.pronouns.len());
        ensure!(long == 0, "{long} tests with long names");
        ensure!(pronouns == 0, "{pronouns} comments without a subject");
        println!(
            "tidy: no circle of files, no import through the root and no unordered select! in {} crates, no long test name, no comment without a subject",
            sources.len()
        );
        Ok(())
    }

    /// The libraries and binaries of the workspace.
    fn sources(&self, metadata: &Value) -> Result<Vec<Source>> {
        let packages = metadata["packages"]
            .as_array()
            .context("no packages in cargo metadata")?;
        let mut sources = Vec::new();
        for package in packages {
            let name = package["name"].as_str().unwrap_or_default();
            if !self.packages.is_empty() && !self.packages.iter().any(|only| only == name) {
                continue;
            }
            for target in package["targets"].as_array().into_iter().flatten() {
                let kind = target["kind"].get(0).and_then(Value::as_str);
                let root = target["src_path"].as_str().unwrap_or_default();
                if matches!(kind, Some("lib" | "bin")) {
                    sources.push(Source::read(name, root.as_ref())?);
                }
            }
        }
        Ok(sources)
    }
}

fn print_counts(sources: &[Source]) {
    println!(
        "{:<16} {:>6} {:>7} {:>7} {:>12}",
        "crate", "files", "lines", "names", "error enums"
    );
    let mut total = [0; 4];
    for source in sources {
        let counts = [
            source.files.len(),
            source.lines(),
            source.public_names().len(),
            source.error_enums(),
        ];
        print_row(source.name.as_str(), counts);
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count;
        }
    }
    print_row("all", total);
}

fn print_row(name: &str, [files, lines, names, errors]: [usize; 4]) {
    println!("{name:<16} {files:>6} {lines:>7} {names:>7} {errors:>12}");
}

fn print_docs(sources: &[Source]) {
    let mut other = 0;
    let mut fields = 0;
    for source in sources {
        for doc in source.short_docs() {
            if doc.is_field {
                fields += 1;
                println!("{}: {} {:?}", doc.file, doc.item, doc.text);
            } else {
                other += 1;
            }
        }
    }
    println!("{fields} docs of fields have three words or fewer, {other} docs of other items");
}
