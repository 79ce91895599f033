//! `deps`: the edges between our crates against the table in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::repo;

/// Check the edges between the crates of this workspace against ARCHITECTURE.md
///
/// Fails on an edge that the crate table does not list (normal, build or dev), on a crate it does not list, and on a
/// listed edge that does not go down. An edge that is listed and not used is fine. Fails, too, if a library compiles a
/// heavy crate that its features did not ask for.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  cargo xtask deps            check\n  \
                        cargo xtask deps --print    and print the edges as they are")]
pub(crate) struct Deps {
    /// Print every crate with the local crates it depends on
    #[arg(long)]
    print: bool,
}

/// One row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    /// `None` for a crate outside the levels, which may have no local edge.
    level: Option<u32>,
    edges: BTreeSet<String>,
}

impl Deps {
    pub(crate) fn run(self) -> Result<()> {
        let page = fs::read_to_string(repo::root().join("ARCHITECTURE.md"))
            .context("read ARCHITECTURE.md")?;
        let allowed = table(&page)?;
        let actual = edges(&repo::metadata()?)?;
        if self.print {
            for (name, edges) in &actual {
                println!(
                    "{name}: {}",
                    edges
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(", ")
                );
            }
        }
        let faults = faults(&allowed, &actual);
        for fault in &faults {
            eprintln!("deps: {fault}");
        }
        ensure!(
            faults.is_empty(),
            "{} edges or crates are not as in ARCHITECTURE.md",
            faults.len()
        );
        for (package, features, without) in ABSENT {
            absent(package, features, without)?;
        }
        let edges: usize = actual.values().map(BTreeSet::len).sum();
        println!(
            "deps: {} crates, {edges} edges, all listed in ARCHITECTURE.md",
            actual.len()
        );
        Ok(())
    }
}

/// Every feature of `dht-node`.
const ALL: &str = "tcp,memory,saf,overlay,spool,dns-seeds,lan,tor,socks";

/// A crate must not compile another one with these features alone, at any depth.
const ABSENT: [(&str, &str, &str); 5] = [
    ("dht-node", "tcp,memory,saf", "redb"),
    ("dht-node", ALL, "clap"),
    ("dht-node", ALL, "axum"),
    ("dht-node", ALL, "hyper"),
    ("dht-node", ALL, "utoipa"),
];

fn absent(package: &str, features: &str, without: &str) -> Result<()> {
    let tree = repo::cargo(["tree", "--package", package, "--no-default-features"])
        .args(["--features", features, "--edges", "normal"])
        .args(["--prefix", "none"])
        .output()
        .context("run cargo tree")?;
    ensure!(
        tree.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout)?;
    ensure!(
        tree.lines().count() > 10,
        "cargo tree printed no tree of {package}"
    );
    let found = tree
        .lines()
        .any(|line| line.split(' ').next() == Some(without));
    ensure!(
        !found,
        "{package} with the features {features} compiles {without}"
    );
    Ok(())
}

/// Reads the table with the columns `Level | Crate | Holds | Local edges`.
fn table(page: &str) -> Result<BTreeMap<String, Row>> {
    let rows = page
        .lines()
        .skip_while(|line| cells(line) != ["Level", "Crate", "Holds", "Local edges"])
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut table = BTreeMap::new();
    let mut everything = Vec::new();
    for line in rows {
        let [level, name, _, edges] = cells(line)[..] else {
            bail!("not four cells: {line}")
        };
        let name = package(name);
        let level = match level {
            "–" | "-" => None,
            level => Some(
                level
                    .parse()
                    .with_context(|| format!("level of {name}: {level}"))?,
            ),
        };
        let edges = match edges {
            "none" => BTreeSet::new(),
            "all" => {
                everything.push(name.clone());
                BTreeSet::new()
            }
            edges => edges.split(',').map(|edge| package(edge.trim())).collect(),
        };
        ensure!(
            table.insert(name.clone(), Row { level, edges }).is_none(),
            "{name} is listed twice"
        );
    }
    ensure!(
        !table.is_empty(),
        "ARCHITECTURE.md has no table `| Level | Crate | Holds | Local edges |`"
    );
    for name in everything {
        let level = table.get(&name).and_then(|row| row.level);
        let below = table
            .iter()
            .filter(|(_, row)| row.level.is_some() && row.level < level);
        let edges = below.map(|(name, _)| name.clone()).collect();
        if let Some(row) = table.get_mut(&name) {
            row.edges = edges;
        }
    }
    Ok(table)
}

fn cells(line: &str) -> Vec<&str> {
    line.trim()
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect()
}

/// `` `dht-core` `` and `core` both name the package `dht-core`; `xtask` is itself.
fn package(cell: &str) -> String {
    match cell.trim_matches('`') {
        "xtask" => "xtask".into(),
        name if name.starts_with("dht-") => name.into(),
        name => format!("dht-{name}"),
    }
}

/// Package → the packages of this workspace it depends on, in whatever way, apart from itself.
fn edges(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo metadata")?;
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let local: BTreeSet<String> = packages.iter().map(name).collect();
    let edges = |package: &Value| {
        let from = name(package);
        let dependencies = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(name);
        let edges = dependencies
            .filter(|to| local.contains(to) && *to != from)
            .collect();
        (from, edges)
    };
    Ok(packages.iter().map(edges).collect())
}

fn faults(
    allowed: &BTreeMap<String, Row>,
    actual: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, row) in allowed {
        for to in &row.edges {
            match allowed.get(to) {
                None => faults.push(format!(
                    "the table lets {from} depend on {to}, which it does not list"
                )),
                Some(below) if below.level >= row.level => {
                    faults.push(format!(
                        "the table lets {from} depend on {to}, which is not below it"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    for (from, edges) in actual {
        match allowed.get(from) {
            None => faults.push(format!("{from} is not in the table")),
            Some(row) => {
                let unlisted = edges.difference(&row.edges);
                faults
                    .extend(unlisted.map(|to| format!("{from} depends on {to}: not in the table")));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
text
| Level | Crate | Holds | Local edges |
|---|---|---|---|
| 0 | `dht-proto` | messages | none |
| 1 | `dht-core` | keys | proto |
| 2 | `dht-node` | all of it | all |
| – | `xtask` | tools | none |

| Level | other |";

    fn actual(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let set = |to: &&[&str]| to.iter().map(|to| (*to).to_owned()).collect();
        edges
            .iter()
            .map(|(from, to)| ((*from).to_owned(), set(to)))
            .collect()
    }

    #[test]
    fn all_means_every_lower_level() {
        let table = table(PAGE).unwrap();
        assert_eq!(table.len(), 4);
        assert_eq!(
            table["dht-node"].edges,
            BTreeSet::from(["dht-core".to_owned(), "dht-proto".to_owned()])
        );
        assert_eq!(
            table["xtask"],
            Row {
                level: None,
                edges: BTreeSet::new()
            }
        );
    }

    #[test]
    fn unlisted_edges_and_crates_are_faults() {
        let table = table(PAGE).unwrap();
        assert_eq!(
            faults(
                &table,
                &actual(&[("dht-core", &["dht-proto"]), ("dht-node", &[])])
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            faults(&table, &actual(&[("dht-proto", &["dht-core"])])).len(),
            1
        );
        assert_eq!(faults(&table, &actual(&[("dht-new", &[])])).len(), 1);
        assert_eq!(
            faults(&table, &actual(&[("xtask", &["dht-core"])])).len(),
            1
        );
    }

    #[test]
    fn upward_edge_is_refused() {
        let page = PAGE.replace("| keys | proto |", "| keys | proto, node |");
        assert_eq!(faults(&table(&page).unwrap(), &actual(&[])).len(), 1);
        let page = PAGE.replace("| keys | proto |", "| keys | nothing |");
        assert_eq!(faults(&table(&page).unwrap(), &actual(&[])).len(), 1);
    }

    #[test]
    fn workspace_matches_its_architecture() {
        Deps::default().run().unwrap();
    }

    #[test]
    fn present_crates_are_found() {
        absent("dht-node", "tcp,spool", "redb").unwrap_err();
        for heavy in ["axum", "hyper", "utoipa"] {
            absent("dht-api", "server", heavy).unwrap_err();
        }
    }

    #[test]
    fn page_without_table_is_refused() {
        assert!(table("# nothing here").is_err());
    }
}
