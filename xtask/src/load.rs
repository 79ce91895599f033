//! `load`: one node at many times its capacity, in a release build.

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Settings of glibc's allocator, which otherwise raises both by itself and keeps a third of the peak for good. The
/// README gives them to operators.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "32768"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Drive one node at ten times its capacity and judge how it holds
///
/// Measures the capacity first, then offers ten times that for the given time: mixed traffic from many peers over
/// loopback TCP. Fails if memory exceeds the budget by more than 64 MiB, if less than 80 % of the capacity remains, if
/// a control message waits longer than a second, if the node gets stuck, or if it does not become idle again.
///
/// Every limit of the node is at its default. glibc is told to give freed pages back, as the README advises operators:
/// MALLOC_MMAP_THRESHOLD_=32768 MALLOC_TRIM_THRESHOLD_=131072, unless these are set.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask load                        a minute\n  \
                        cargo xtask load --seconds 10 --json    a short one, as JSON"
)]
pub(crate) struct Load {
    /// Seconds of overload
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Peers that send
    #[arg(long, default_value_t = 20)]
    peers: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Load {
    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo([
            "run",
            "--release",
            "--package",
            "dht-tests",
            "--bin",
            "load",
            "--",
        ]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(["--peers", &self.peers.to_string()]);
        if self.json {
            command.arg("--json");
        }
        for (name, value) in ALLOCATOR {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        repo::run(&mut command)
    }
}
