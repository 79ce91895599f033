//! `docs`: the API documentation.

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Build the API documentation, warnings being errors
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask docs           build and check\n  \
                        cargo xtask docs --open    and show it in a browser"
)]
pub(crate) struct Docs {
    /// Open it in a browser afterwards
    #[arg(long)]
    open: bool,
}

impl Docs {
    pub(crate) fn strict() -> Self {
        Self { open: false }
    }

    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo(["doc", "--workspace", "--no-deps", "--all-features"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        if self.open {
            command.arg("--open");
        }
        repo::run(&mut command)
    }
}
