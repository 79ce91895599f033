//! Drives one node over loopback TCP at many times its capacity, and judges how it holds. Run it through
//! `cargo xtask load`.
//!
//! Messages for offline peers are stored in memory: what disks take is another measurement.
//!
//! The node runs in a process of its own, this program again, so that its memory is its own. Twenty peers connect;
//! a further one asks a control question five times a second. First the capacity is measured: every peer keeps a few
//! messages on their way. Then the overload: every peer offers its share of ten times that rate, and what the node
//! does not take is lost to the peer.

mod measure;
mod report;

use std::process::ExitCode;

use clap::Parser;
use dht_tests::target;

/// Drives one node at many times its capacity and judges how it holds.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "load",
    after_help = "Examples:\n  cargo xtask load\n  cargo xtask load --seconds 10 --json"
)]
struct Flags {
    /// Seconds of overload.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Peers that send.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=250))]
    peers: u64,
    /// Times the capacity that is offered.
    #[arg(long, default_value_t = 10.0)]
    factor: f64,
    /// The node's memory for messages, in MiB.
    #[arg(long, default_value_t = dht_node::DEFAULT_MEMORY_MIB)]
    memory_mib: usize,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(target::FLAG) {
        return finish(target::run());
    }
    let flags = Flags::parse();
    finish(measure::run(&flags).and_then(|report| report.show(flags.json)))
}

#[expect(clippy::print_stderr, reason = "tells the person at the terminal")]
fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
