//! Measures the primitives and, beside each, the costs built on them, in one run on one machine.
//!
//! Run it through `cargo xtask bench`. Every figure is the median of at least five samples. `floor` is what
//! the public-key arithmetic, hashing and encryption of one unit of work cost by themselves, measured in the
//! same run; `ratio` compares `value` with it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

mod api;
mod envelope;
mod memory;
mod peers;
mod primitives;
mod relayed;
mod report;
mod saf;
mod sample;
mod select;
mod stacks;
mod tcp;

use report::Report;
use sample::Effort;

/// Measures primitives, envelopes, whole stacks and nodes, and prints each beside its floor.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Examples:\n  cargo xtask bench --quick\n  cargo xtask bench --filter envelope.\n  \
                  cargo xtask bench --json bench.json"
)]
struct Flags {
    /// Short samples: enough to see that everything runs, not to compare figures.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name starts with this.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    filter: String,
    /// Also write the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a row misses its target.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(memory::CHILD_FLAG) {
        return memory::child();
    }
    let flags = Flags::parse();
    let effort = if flags.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let mut report = Report::new(flags.filter, primitives::backend());
    let floors = primitives::run(&mut report, effort);
    envelope::run(&mut report, effort, &floors)?;
    stacks::run(&mut report, effort, &floors)?;
    relayed::run(&mut report, effort, &floors)?;
    tcp::run(&mut report, effort, &floors)?;
    memory::run(&mut report, effort)?;
    select::run(&mut report, effort);
    peers::run(&mut report, effort)?;
    saf::run(&mut report, effort)?;
    api::run(&mut report, effort)?;
    let missed = report.finish().join(", ");
    if let Some(path) = flags.json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    anyhow::ensure!(
        !flags.check || missed.is_empty(),
        "targets are missed: {missed}"
    );
    Ok(())
}
