//! Lets hostile peers at a node that serves honest ones. Run it through `cargo xtask attack`.

use std::process::ExitCode;

use clap::Parser;
use dht_tests::{
    attack::{Outcome, SCENARIOS, Scenario, run},
    target,
};

/// Lets hostile peers at a node that serves honest ones.
#[derive(Clone, Debug, Parser)]
#[command(name = "attack")]
struct Flags {
    /// Only scenarios whose name starts with this.
    name: Option<String>,
    /// Print every check of a scenario on a line of its own.
    #[arg(long)]
    verbose: bool,
    /// Print one JSON object for each scenario.
    #[arg(long)]
    json: bool,
    /// Attack with less.
    #[arg(long)]
    quick: bool,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(target::FLAG) {
        return finish(target::run().map(|()| true));
    }
    finish(attack(&Flags::parse()))
}

#[expect(clippy::print_stderr, reason = "tells the person at the terminal")]
fn finish(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("attack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the user asked for")]
fn attack(flags: &Flags) -> anyhow::Result<bool> {
    let wanted = flags.name.as_deref().unwrap_or_default();
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .flat_map(|group| group.iter())
        .filter(|scenario| scenario.name.starts_with(wanted))
        .collect();
    anyhow::ensure!(
        !scenarios.is_empty(),
        "no scenario is called {wanted}; --list shows all"
    );
    let (mut passed, mut failed) = (0, 0);
    for scenario in scenarios {
        if flags.list {
            println!("{:<24} {}", scenario.name, scenario.attack);
            continue;
        }
        // A runtime for each: nothing of one attack goes on during the next.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(run(scenario, flags.quick));
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        match outcome.held() {
            true => passed += 1,
            false => failed += 1,
        }
        println!("{}", show(&outcome, flags)?);
    }
    if !flags.list && !flags.json {
        println!("{passed} passed, {failed} failed");
    }
    Ok(failed == 0)
}

fn show(outcome: &Outcome, flags: &Flags) -> anyhow::Result<String> {
    if flags.json {
        return Ok(serde_json::to_string(outcome)?);
    }
    if !flags.verbose {
        return Ok(outcome.to_string());
    }
    let state = |held| if held { "held" } else { "FAILED" };
    let mut lines = vec![
        format!("{}: {}", outcome.name, state(outcome.held())),
        format!("  attack   {}", outcome.attack),
    ];
    for check in outcome.all() {
        lines.push(format!("  {:<8} {}", state(check.held), check.what));
    }
    lines.extend(
        outcome
            .error
            .iter()
            .map(|error| format!("  error    {error}")),
    );
    lines.push(format!("  took     {:.1} s", outcome.seconds));
    Ok(lines.join("\n"))
}
