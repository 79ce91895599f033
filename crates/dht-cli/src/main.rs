//! The `dht-node` binary: runs a node, sends and receives messages, and shows many nodes at work.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bans;
mod demo;
mod exit;
mod home;
mod listen;
mod saf;
mod send;

use exit::Failure;

/// A node of the Tari messaging network: encrypts, passes on and delivers messages between peers.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        dht-node demo                                   see it work: 8 nodes in this process\n  \
        dht-node run --home a                           run a node\n  \
        dht-node listen --home a --json                 run a node, print what it receives\n  \
        dht-node send --home b --to KEY::ADDR --text hi send a message\n\n\
        Exit codes: 0 success, 1 failure, 2 usage, 3 configuration, 4 key file, 5 cannot listen,\n\
        6 peer not reached, 130 interrupted"
)]
struct Flags {
    #[command(subcommand)]
    command: Command,
    /// Log level or filter, as in `debug` or `dht_transport=trace`; logs go to stderr.
    #[arg(
        long,
        global = true,
        env = "DHT_NODE_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many nodes in this process and check that every message arrives once.
    Demo(demo::Demo),
    /// Make a home: secret key and configuration.
    Init(home::Init),
    /// Print public key, node id and addresses.
    Id(home::Id),
    /// Run a node until interrupted.
    Run(listen::Run),
    /// Run a node and print one line for each received message.
    Listen(listen::Listen),
    /// Send one encrypted message and wait until it has left.
    Send(send::Send),
    /// Show, delete and fetch messages that are stored for offline peers.
    Saf(saf::Saf),
    /// Print the offences for which a node bans peers, and for how long.
    Bans(bans::Bans),
    /// Print every setting with its value.
    Config(home::ShowConfig),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&flags.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::other(format!("cannot start the runtime: {error}")).report(),
    };
    let outcome = runtime.block_on(async {
        match flags.command {
            Command::Demo(demo) => demo.run().await,
            Command::Init(init) => init.run(),
            Command::Id(id) => id.run(),
            Command::Run(run) => run.run().await,
            Command::Listen(listen) => listen.run().await,
            Command::Send(send) => send.run().await,
            Command::Saf(saf) => saf.run().await,
            Command::Bans(bans) => bans.run(),
            Command::Config(config) => config.run(),
        }
    });
    // Tasks that still run were given their time by `Node::shutdown`.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_home_may_follow_every_command() {
        for command in ["init", "id", "run", "listen", "config", "saf stats"] {
            let words = command.split(' ').chain(["--home", "a"]);
            let parsed = Flags::try_parse_from(["dht-node"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
    }
}
