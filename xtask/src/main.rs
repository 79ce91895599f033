//! Build, test and measurement commands of this workspace: `cargo xtask COMMAND --help`.

mod codegen;
mod repo;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, test and measurement commands of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Codegen(codegen::Codegen),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Codegen(command) => command.run(),
    }
}
