//! `attack`: hostile peers at a node that serves honest ones.

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Let hostile peers at a real node and check that it goes on serving honest ones
///
/// The node has its default settings and a process of its own; peers come from loopback addresses that it takes for public
/// ones. Two honest nodes send it messages all the time: fails unless 999 of 1 000 are answered, memory stays within the
/// bound of each scenario, no honest node bans another, and the checks of each scenario hold.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask attack                     every scenario, a line each\n  \
                        cargo xtask attack slots --verbose     those whose name starts with slots, a line a check\n  \
                        cargo xtask attack --quick             with less, as in ci"
)]
pub(crate) struct Attack {
    /// Only scenarios whose name starts with this
    name: Option<String>,
    /// Print every check of a scenario on a line of its own
    #[arg(long)]
    verbose: bool,
    /// Print one JSON object for each scenario
    #[arg(long)]
    json: bool,
    /// Attack with less
    #[arg(long)]
    quick: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

impl Attack {
    /// The short form, for `ci`.
    pub(crate) const fn quick() -> Self {
        Self {
            name: None,
            verbose: false,
            json: false,
            quick: true,
            list: false,
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo(["run", "--package", "dht-tests", "--bin", "attack"]);
        // In ci the debug build is there already.
        if !self.quick {
            command.arg("--release");
        }
        command.arg("--").args(self.name);
        let flags = [
            (self.verbose, "--verbose"),
            (self.json, "--json"),
            (self.quick, "--quick"),
            (self.list, "--list"),
        ];
        command.args(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag));
        repo::run(&mut command)
    }
}
