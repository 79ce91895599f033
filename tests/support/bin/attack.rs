//! Lets hostile peers at a node that serves honest ones. Run it through `cargo xtask attack`.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use clap::Parser;
use dht_tests::{
    attack::{Outcome, SCENARIOS, Scenario, run},
    target,
};

/// Scenarios at once in a short run.
const AT_ONCE: usize = 3;

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
    if flags.list {
        for scenario in scenarios {
            println!("{:<24} {}", scenario.name, scenario.attack);
        }
        return Ok(true);
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Most of a short attack is waiting.
    let at_once = if flags.quick { AT_ONCE } else { 1 };
    std::thread::scope(|scope| {
        let work = || {
            while let Some(scenario) = scenarios.get(next.fetch_add(1, Relaxed)) {
                let outcome = play(scenario, flags)?;
                failed.fetch_add(usize::from(!outcome.held()), Relaxed);
                println!("{}", show(&outcome, flags)?);
            }
            anyhow::Ok(())
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let done = worker.join();
            done.unwrap_or_else(|_| anyhow::bail!("a scenario panicked"))
        })
    })?;
    let failed = failed.load(Relaxed);
    if !flags.json {
        println!("{} passed, {failed} failed", scenarios.len() - failed);
    }
    Ok(failed == 0)
}

/// One scenario, on a runtime of its own: nothing of it goes on during the next.
fn play(scenario: &Scenario, flags: &Flags) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(scenario, flags.quick));
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(outcome)
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
