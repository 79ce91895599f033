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
                        cargo xtask sim --quick                        every scenario with less, as in ci\n  \
                        cargo xtask sim converge --seeds 10            ten runs, with seeds 1 to 10\n  \
                        cargo xtask sim --long                         all that the network must hold, ten minutes"
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
    /// Number of seeds to play each scenario with, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print one JSON object for each scenario
    #[arg(long)]
    json: bool,
    /// Play with less
    #[arg(long)]
    quick: bool,
    /// Play every scenario, then `converge` with ten seeds, and once with 200 nodes
    #[arg(long, conflicts_with_all = ["scenario", "nodes", "seeds", "quick", "list", "trace"])]
    long: bool,
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
            seeds: 1,
            json: false,
            quick: true,
            long: false,
            list: false,
            trace: None,
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        if !self.long {
            return self.play();
        }
        let run = |scenario: Option<&str>, nodes, seeds| Self {
            scenario: scenario.map(Into::into),
            nodes,
            seed: self.seed,
            seeds,
            json: self.json,
            quick: false,
            ..Self::quick()
        };
        run(None, None, 1).play()?;
        run(Some("converge"), None, 10).play()?;
        run(Some("converge"), Some(200), 1).play()
    }

    fn play(self) -> Result<()> {
        let mut command = repo::cargo(["run", "--package", "dht-sim", "--bin", "sim"]);
        // In ci the debug build is there already.
        if !self.quick {
            command.arg("--release");
        }
        command.arg("--").args(self.scenario);
        command.arg("--seed").arg(self.seed.to_string());
        command.arg("--seeds").arg(self.seeds.to_string());
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
