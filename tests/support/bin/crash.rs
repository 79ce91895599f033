//! Kills a writer of the mailbox, or a sender, a holder and a recipient, at random moments and checks that nothing
//! acknowledged is lost.
//!
//! Run it through `cargo xtask crash`.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use dht_mailbox::Durability;
use dht_tests::{
    chain::{self, Chain, live},
    crash::{Rounds, run, stream},
};

/// The word that makes this program the writer.
const WRITER: &str = "--writer";
/// The word that makes this program one of the three nodes.
const NODE: &str = "--node";

/// Kills a writer of the mailbox at random moments and checks that nothing acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "crash")]
struct Flags {
    /// Kill a sender, a holder and a recipient instead, each in every round.
    #[arg(long)]
    chain: bool,
    /// How often to kill.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Seed of the moments of the kills. Random if not given; printed either way.
    #[arg(long)]
    seed: Option<u64>,
    /// Rows that are there before the first round.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Longest time that opening the store may take, in milliseconds; 0 for any.
    #[arg(long, default_value_t = 1_000)]
    max_open_ms: u64,
    /// Where to keep the files; a temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [word, directory, durability, first] if word == WRITER => {
            writer(directory, durability, first).map(|()| true)
        }
        [word, role, network, home] if word == NODE => node(role, network, home).map(|()| true),
        _ => driver(Flags::parse()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

fn writer(directory: &str, durability: &str, first: &str) -> Result<(), String> {
    let durability = match durability {
        "eventual" => Durability::Eventual,
        _ => Durability::Immediate,
    };
    let first = first.parse().map_err(|_| format!("no number: {first}"))?;
    stream(directory.as_ref(), durability, first)
}

fn node(role: &str, network: &str, home: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(live(role.parse()?, &network.parse()?, home.as_ref()))
}

fn driver(flags: Flags) -> Result<bool, String> {
    let seed = match flags.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))? % 1_000_000,
    };
    let program = env::current_exe().map_err(|error| format!("no path to itself: {error}"))?;
    // Removed when dropped.
    let temporary = match &flags.directory {
        None => Some(tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?),
        Some(_) => None,
    };
    let directory = temporary
        .as_ref()
        .map(tempfile::TempDir::path)
        .or(flags.directory.as_deref())
        .ok_or("no directory")?;
    if flags.chain {
        println!("seed {seed}: {} rounds", flags.rounds);
        let chain = Chain {
            rounds: flags.rounds,
            seed,
            program: vec![program.into(), NODE.into()],
        };
        let outcome = chain::run(&chain, directory)?;
        println!("{outcome}");
        return Ok(outcome.is_clean());
    }
    println!(
        "seed {seed}: {} rounds on {} rows",
        flags.rounds, flags.records
    );
    let rounds = Rounds {
        rounds: flags.rounds,
        seed,
        records: flags.records,
        writer: vec![program.into(), WRITER.into()],
    };
    let outcome = run(&rounds, directory)?;
    let slowest = outcome.slowest_opening;
    let allowed = match flags.max_open_ms {
        0 => Duration::MAX,
        most => Duration::from_millis(most),
    };
    let slow = if slowest > allowed { ": too slow" } else { "" };
    println!("slowest opening {} ms{slow}", slowest.as_millis());
    println!("{outcome}");
    Ok(outcome.is_clean() && slowest <= allowed)
}
