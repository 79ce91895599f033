//! `sim`: many nodes on one thread, from one seed.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Play a scenario with many nodes on one thread, from one seed
///
/// Real stacks over a simulated network whose clock jumps to the next event. The same seed gives the same run, byte for byte, which
/// the digest shows. Progress goes to standard error. Fails unless every check of the scenario holds.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sim messages                       its usual number of nodes, seed 1\n  \
                        cargo xtask sim messages --nodes 24 --seed 7   another run\n  \
                        cargo xtask sim --quick                        every scenario with less, as in ci"
)]
pub(crate) struct Sim {
    /// Scenario to play; all of them if none is named
    scenario: Option<String>,
    /// Number of nodes
    #[arg(long)]
    nodes: Option<usize>,
    /// Seed from which everything follows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object for each scenario
    #[arg(long)]
    json: bool,
    /// Play with less
    #[arg(long)]
    quick: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Write a line for each event to this file, to compare two runs
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

impl Sim {
    /// The short form, for `ci`.
    pub(crate) const fn quick() -> Self {
        Self {
            scenario: None,
            nodes: None,
            seed: 1,
            json: false,
            quick: true,
            list: false,
            trace: None,
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo(["run", "--package", "dht-sim", "--bin", "sim"]);
        // In ci the debug build is there already.
        if !self.quick {
            command.arg("--release");
        }
        command.arg("--").args(self.scenario);
        command.arg("--seed").arg(self.seed.to_string());
        if let Some(nodes) = self.nodes {
            command.arg("--nodes").arg(nodes.to_string());
        }
        if let Some(trace) = self.trace {
            command.arg("--trace").arg(trace);
        }
        let flags = [
            (self.json, "--json"),
            (self.quick, "--quick"),
            (self.list, "--list"),
        ];
        command.args(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag));
        repo::run(&mut command)
    }
}
