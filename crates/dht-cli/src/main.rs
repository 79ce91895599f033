//! The `dht-node` binary: runs a node, sends and receives messages, and shows many nodes at work.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

mod bans;
mod demo;
mod descriptors;
mod exit;
mod file;
mod home;
mod inbox;
mod init;
mod known;
mod lock;
mod log;
mod number;
mod output;
mod peers;
mod probe;
mod progress;
mod run;
mod saf;
mod send;
mod service;
mod session;
mod settings;
mod signals;
mod spelling;
mod status;
mod target;

use exit::Failure;
use log::LogFilter;

/// Time for the tasks that remain once a command has ended.
const TASKS_LIMIT: Duration = Duration::from_millis(500);
/// Longest time that the text of a failure waits for a reader of standard error.
const FAILURE_LIMIT: Duration = Duration::from_millis(500);
/// Time for the last lines of the log once a command has ended.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// A node of the Tari messaging network: encrypts, passes on and delivers messages between peers.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        dht-node demo                                    see it work: 8 nodes in this process\n  \
        dht-node run --home a                            run a node\n  \
        dht-node listen --home a --json                  run a node, print what it receives\n  \
        dht-node send --home b --to KEY::ADDR --text hi  send a message\n  \
        dht-node inbox --home a --follow --ack           read what the running node receives\n\n\
        While a node runs on a home, every other command on it talks to that node, at HOME/api.sock.\n\n\
        Exit codes: 0 success, 1 failure, 2 usage, 3 configuration, 4 no key or key file,\n\
        5 cannot listen, 6 peer not reached or message not as far as asked, 130 interrupted"
)]
struct Flags {
    #[command(subcommand)]
    command: Command,
    /// Log level or filter, as in `debug` or `warn,dht_transport=trace`; logs go to stderr. Without it, the variable
    /// `DHT_NODE_LOG` counts, or else the setting `log`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<LogFilter>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many nodes in this process and check that every message arrives once.
    Demo(demo::Demo),
    /// Make a home: secret key and configuration.
    Init(init::Init),
    /// Print public key, node id and addresses.
    Id(init::Id),
    /// Run a node until interrupted.
    Run(run::Run),
    /// Run a node and print one line for each received message; or those of the node that runs.
    Listen(run::Listen),
    /// Send one encrypted message, and wait until it has left, is stored or is received.
    Send(Box<send::Send>),
    /// Print the received messages of a home, and ack them.
    Inbox(Box<inbox::Inbox>),
    /// Print what the running node is and does.
    Status(status::Status),
    /// Show, add and remove peers of the running node.
    Peers(peers::Peers),
    /// Search the network for a node.
    Discover(peers::Discover),
    /// Connect to a peer of the running node and print the round trip.
    Ping(peers::Ping),
    /// Visit the nodes of a network from the seeds on, and print who is reached, what they run and whom they know.
    Probe(probe::Probe),
    /// Show, delete and fetch messages that are stored for offline peers.
    Saf(saf::Saf),
    /// Show, add and lift bans of the running node; print the offences for which a node bans peers.
    Bans(bans::Bans),
    /// Print every setting with its value.
    Config(init::ShowConfig),
}

fn main() -> ExitCode {
    // Files that the node makes are for their owner only.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    descriptors::raise();
    let code = match started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message().is_empty() {
                output::say(&format!("error: {failure}"), FAILURE_LIMIT);
            }
            failure.code()
        }
    };
    output::flush(FLUSH_LIMIT);
    code
}

fn started() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        match Flags::try_parse() {
            Ok(flags) => run(flags).await,
            // Help and version are what was asked for: they go to standard output.
            Err(shown) if !shown.use_stderr() => {
                let text = shown.render();
                let text = if std::io::stdout().is_terminal() {
                    text.ansi().to_string()
                } else {
                    text.to_string()
                };
                output::print(text.trim_end()).await
            }
            Err(wrong) => Err(Failure::wrong_usage(&spelling::suggest(
                wrong,
                Flags::command(),
            ))),
        }
    });
    // Tasks that still run were given their time by `Node::shutdown`.
    runtime.shutdown_timeout(TASKS_LIMIT);
    outcome
}

async fn run(flags: Flags) -> Result<(), Failure> {
    let filter = settings::check_environment()?;
    signals::catch()?;
    log::start(flags.log.or(filter).as_ref());
    match flags.command {
        Command::Demo(demo) => demo.run().await,
        Command::Init(init) => signals::or_interrupted(init.run()).await,
        Command::Id(id) => signals::or_interrupted(id.run()).await,
        Command::Run(run) => run.run().await,
        Command::Listen(listen) => listen.run().await,
        Command::Send(send) => send.run().await,
        Command::Inbox(inbox) => inbox.run().await,
        Command::Status(status) => signals::or_interrupted(status.run()).await,
        Command::Peers(peers) => signals::or_interrupted(peers.run()).await,
        Command::Discover(discover) => signals::or_interrupted(discover.run()).await,
        Command::Ping(ping) => signals::or_interrupted(ping.run()).await,
        Command::Probe(probe) => signals::or_interrupted(probe.run()).await,
        Command::Saf(saf) => saf.run().await,
        Command::Bans(bans) => signals::or_interrupted(bans.run()).await,
        Command::Config(config) => signals::or_interrupted(config.run()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
    }

    /// The commands that do something or have a help of their own, with their names.
    fn leaves(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
        let inner: Vec<_> = command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
            .flat_map(|inner| leaves(inner, &format!("{name} {}", inner.get_name())))
            .collect();
        let is_whole = inner.is_empty() || command.get_after_help().is_some();
        let own = is_whole.then(|| (name.to_owned(), command.clone()));
        own.into_iter().chain(inner).collect()
    }

    /// The examples of each help are commands as they are pasted, and stand on one line of a terminal.
    #[test]
    fn examples_of_the_help_are_commands() {
        let key = dht_core::SecretKey::from_uniform_bytes(&[7; 64])
            .unwrap()
            .public_key();
        let peer = format!("{key}::/ip4/127.0.0.1/tcp/1");
        for (name, command) in leaves(&Flags::command(), "dht-node") {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let examples: Vec<&str> = help
                .lines()
                .filter(|line| line.starts_with("  ") && line.contains("dht-node "))
                .collect();
            assert!(!examples.is_empty(), "{name} has no example");
            for example in examples {
                assert!(example.len() <= 100, "{name}: {example}");
                let (_, words) = example.split_once("dht-node ").unwrap();
                let words = words.split("  ").next().unwrap();
                let words = words
                    .replace("\"$(dht-node id --home a --address)\"", &peer)
                    .replace("KEY::/ip4/203.0.113.7/tcp/18189", &peer)
                    .replace("KEY::ADDR", &peer)
                    .replace("KEY", &key.to_string());
                let words = words.split([' ', '|']).take_while(|word| *word != "jq");
                let words = words.filter(|word| !word.is_empty());
                let parsed = Flags::try_parse_from(["dht-node"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{name}: {example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn a_home_may_follow_every_command() {
        for command in [
            "init",
            "id",
            "run",
            "listen",
            "config",
            "saf stats",
            "inbox",
            "inbox fetch",
            "status",
            "peers list",
            "bans list",
        ] {
            let words = command.split(' ').chain(["--home", "a"]);
            let parsed = Flags::try_parse_from(["dht-node"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
    }
}
