//! Build, test and measurement commands of this workspace: `cargo xtask COMMAND --help`.

mod attack;
mod behaviours;
mod bench;
mod ci;
mod codegen;
mod crash;
mod deps;
mod docs;
mod interop;
mod load;
mod repo;
mod sim;
mod test;
mod tidy;
mod vectors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test and measurement commands of this workspace
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(test::Test),
    Ci(ci::Ci),
    Codegen(codegen::Codegen),
    Deps(deps::Deps),
    Docs(docs::Docs),
    Vectors(vectors::Vectors),
    Behaviours(behaviours::Behaviours),
    Bench(bench::Bench),
    Load(load::Load),
    Attack(attack::Attack),
    Interop(interop::Interop),
    Crash(crash::Crash),
    Sim(sim::Sim),
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Test(command) => command.run(),
        Command::Ci(command) => command.run(),
        Command::Codegen(command) => command.run(),
        Command::Deps(command) => command.run(),
        Command::Docs(command) => command.run(),
        Command::Vectors(command) => command.run(),
        Command::Behaviours(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Load(command) => command.run(),
        Command::Attack(command) => command.run(),
        Command::Interop(command) => command.run(),
        Command::Crash(command) => command.run(),
        Command::Sim(command) => command.run(),
        Command::Tidy(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
