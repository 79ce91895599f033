//! `bench`: the measurements, in a release build.

use std::path::PathBuf;
use std::{env, path};

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Measure the primitives and, beside each, the costs built on them
///
/// Prints one row a measurement: value, floor (what the arithmetic alone costs in the same run) and their ratio.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench                          everything\n  \
                        cargo xtask bench --quick                  a smoke run: few samples\n  \
                        cargo xtask bench --filter envelope.       only rows whose name starts so\n  \
                        cargo xtask bench --check                  fail if a row misses its target\n  \
                        cargo xtask bench --json bench.json        and the rows as JSON"
)]
pub(crate) struct Bench {
    /// Few samples: shows that everything runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Only rows whose name starts with this
    #[arg(long, value_name = "PREFIX")]
    filter: Option<String>,
    /// Also write the rows to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a row misses its target
    #[arg(long)]
    check: bool,
}

impl Bench {
    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            filter: None,
            json: None,
            check: false,
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo(["run", "--release", "--package", "dht-bench", "--"]);
        if self.quick {
            command.arg("--quick");
        }
        if self.check {
            command.arg("--check");
        }
        if let Some(prefix) = self.filter {
            command.arg("--filter").arg(prefix);
        }
        if let Some(file) = self.json {
            // cargo runs in the root of the workspace; the file is meant relative to where we were called.
            command
                .arg("--json")
                .arg(path::absolute(env::current_dir()?.join(file))?);
        }
        repo::run(&mut command)
    }
}
