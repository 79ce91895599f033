//! Plays a scenario. Run it through `cargo xtask sim`.

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Parser;
use dht_sim::scenario::{SCENARIOS, Scenario, Settings};

/// Plays a scenario: many nodes on one thread, from one seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Flags {
    /// Scenario to play, all of them if none is named; see --list.
    scenario: Option<String>,
    /// Number of nodes.
    #[arg(long)]
    nodes: Option<usize>,
    /// Seed from which everything follows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds to play each scenario with, one after the other from --seed on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Play with less of everything.
    #[arg(long)]
    quick: bool,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    /// Write a line for each event to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

#[expect(clippy::print_stderr, reason = "tells the person at the terminal")]
fn main() -> ExitCode {
    match play(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "this is what the user asked for; the wall clock is for people"
)]
fn play(flags: &Flags) -> anyhow::Result<bool> {
    if flags.list {
        for scenario in SCENARIOS {
            let (name, least) = (scenario.name, scenario.least);
            println!("{name:<12} {}; at least {least} nodes", scenario.what);
        }
        return Ok(true);
    }
    let wanted = |scenario: &&Scenario| match &flags.scenario {
        Some(name) => scenario.name == name,
        None => true,
    };
    let scenarios: Vec<_> = SCENARIOS.iter().filter(wanted).collect();
    if let (true, Some(name)) = (scenarios.is_empty(), &flags.scenario) {
        bail!("no scenario is called {name}; --list shows all");
    }
    let mut held = true;
    let seeds = (0..flags.seeds).map(|next| flags.seed.saturating_add(next));
    let plays = scenarios
        .into_iter()
        .flat_map(|scenario| seeds.clone().map(move |seed| (scenario, seed)));
    for (scenario, seed) in plays {
        let trace = match &flags.trace {
            Some(path) => Some(Box::new(BufWriter::new(File::create(path)?)) as _),
            None => None,
        };
        let clock = std::time::Instant::now();
        let outcome = scenario.run(Settings {
            nodes: flags.nodes,
            seed,
            short: flags.quick,
            trace,
            progress: Box::new(|at, what| eprintln!("{:>8.1} s  {what}", at.as_secs_f64())),
            ..Settings::default()
        })?;
        match flags.json {
            true => println!("{}", serde_json::to_string(&outcome)?),
            false => println!("{outcome}"),
        }
        eprintln!("{:>8.1} s on the wall", clock.elapsed().as_secs_f64());
        held &= outcome.held;
    }
    Ok(held)
}
