//! `vectors`: golden vectors against the crates.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::repo;

/// Check every case of a directory of golden vectors
///
/// Reads each *.json in DIR, prints a line a file and ends with `N passed, M failed`. A file or a kind of case it does
/// not know counts as failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask vectors crates/dht-core/tests/vectors    those of this project\n  \
                        cargo xtask vectors ../somewhere/vectors             any other directory of such files"
)]
pub(crate) struct Vectors {
    /// Directory of vector files
    dir: PathBuf,
}

impl Vectors {
    pub(crate) fn run(self) -> Result<()> {
        let dir = self
            .dir
            .canonicalize()
            .with_context(|| format!("find {}", self.dir.display()))?;
        let arguments = [
            "run",
            "--quiet",
            "--package",
            "dht-tests",
            "--bin",
            "vectors",
            "--",
        ];
        repo::run(repo::cargo(arguments).arg(dir))
    }
}
