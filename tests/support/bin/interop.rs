//! Lets our nodes talk to stock ones. Run it through `cargo xtask interop`, which builds those.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use clap::Parser;
use dht_tests::interop::{Program, Recording, Report, SCENARIOS, Scenario, Version, World, ours};
use parking_lot::Mutex;

/// Scenarios at once: most of each is waiting.
const AT_ONCE: usize = 3;

/// Lets our nodes talk to stock ones.
#[derive(Clone, Debug, Parser)]
#[command(name = "interop")]
struct Flags {
    /// A version and its program, as in `1.0.0-rc.5=FILE`.
    #[arg(long = "stock", value_name = "VERSION=FILE", value_parser = version)]
    stock: Vec<Version>,
    /// Only scenarios whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Only the most important, with less.
    #[arg(long)]
    quick: bool,
    /// Write down what a stock node and ours say to each other, one file for each version, instead.
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Put the results into the table of this document, `docs/compatibility.md`, beside those of what is not played now.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// A version that the document has rows for.
    #[arg(long, value_name = "VERSION")]
    reported: Vec<String>,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

fn version(text: &str) -> Result<Version, String> {
    let (name, file) = text
        .split_once('=')
        .ok_or("no = between version and file")?;
    Ok(Version {
        name: name.to_owned(),
        program: Program {
            file: PathBuf::from(file),
            arguments: Vec::new(),
        },
    })
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ours::FLAG) {
        return finish(ours::run().map(|()| true));
    }
    finish(play_all(&Flags::parse()))
}

#[expect(clippy::print_stderr, reason = "tells the person at the terminal")]
fn finish(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the user asked for")]
fn play_all(flags: &Flags) -> anyhow::Result<bool> {
    let wanted = |scenario: &&Scenario| {
        let filter = flags.filter.as_deref().unwrap_or_default();
        scenario.name.contains(filter) && (!flags.quick || scenario.quick)
    };
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .flat_map(|group| group.iter())
        .filter(wanted)
        .collect();
    anyhow::ensure!(
        !scenarios.is_empty(),
        "no scenario has such a name; --list shows all"
    );
    if flags.list {
        for scenario in scenarios {
            println!("{:<32} {}", scenario.name, scenario.about);
        }
        return Ok(true);
    }
    let ours = Program {
        file: std::env::current_exe()?,
        arguments: vec![ours::FLAG.to_owned()],
    };
    if let Some(folder) = &flags.record {
        for version in &flags.stock {
            let world = World::new(version, &ours, (process_net(), 0), true)?;
            let file = folder.join(format!("{}.json", version.name));
            Recording::make(&world, version)?.write(&file)?;
            println!("{}", file.display());
        }
        return Ok(true);
    }
    let runs: Vec<(&Version, &Scenario)> = flags
        .stock
        .iter()
        .flat_map(|version| scenarios.iter().map(move |scenario| (version, *scenario)))
        .filter(|(version, scenario)| scenario.is_for(&version.name))
        .collect();
    // The long ones first: the others are played meanwhile.
    let mut order: Vec<_> = runs.iter().enumerate().collect();
    order.sort_by_key(|(_, (_, scenario))| scenario.quick);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![false; runs.len()]);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = order.get(next.fetch_add(1, Relaxed));
                    let Some((number, (version, scenario))) = next.copied() else {
                        break;
                    };
                    let outcome = play(version, scenario, &ours, number, flags.quick);
                    if let Some(passed) = results.lock().get_mut(number) {
                        *passed = outcome.is_ok();
                    }
                    let result = match outcome {
                        Ok(notes) if notes.is_empty() => "passed".to_owned(),
                        Ok(notes) => format!("passed; {}", notes.join("; ")),
                        Err(error) => format!("FAILED: {error:#}"),
                    };
                    println!("{:<13} {:<32} {result}", version.name, scenario.name);
                }
            });
        }
    });
    let results = results.into_inner();
    let failed = results.iter().filter(|passed| !**passed).count();
    if let Some(file) = &flags.report {
        let mut report = Report::read(file)?;
        for ((version, scenario), passed) in runs.iter().zip(&results) {
            report.add(&version.name, scenario, *passed);
        }
        report.write(file, &flags.reported)?;
    }
    println!("{} passed, {failed} failed", runs.len() - failed);
    Ok(failed == 0)
}

/// Plays one scenario, on addresses that no other has; what is to be noted of it.
fn play(
    version: &Version,
    scenario: &Scenario,
    ours: &Program,
    number: usize,
    quick: bool,
) -> anyhow::Result<Vec<String>> {
    let world = World::new(version, ours, (process_net(), u8::try_from(number)?), quick)?;
    (scenario.play)(&world)?;
    Ok(world.notes())
}

/// The part of loopback addresses that is this process's.
fn process_net() -> u8 {
    let [low, ..] = std::process::id().to_le_bytes();
    low.max(1)
}
