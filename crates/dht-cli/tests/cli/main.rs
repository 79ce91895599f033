//! The `dht-node` binary, as a shell sees it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod beside;
mod brief;
mod clients;
mod demo;
#[cfg(unix)]
mod disk;
mod home;
mod inbox;
mod joining;
mod output;
mod saf;
mod send;
mod settings;
mod signals;
mod twins;
mod usage;

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use dht_core::{PeerAddress, SecretKey};
use dht_node::{Message, Node, SendOptions, StateKind};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The binary, which cargo builds before this test.
const BINARY: &str = env!("CARGO_BIN_EXE_dht-node");

/// Longer than any step takes on a slow machine: only a deadlock reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of a future that must not hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

/// The same key for the same seed.
fn secret(seed: u8) -> SecretKey {
    SecretKey::from_uniform_bytes(&[seed; 64]).unwrap()
}

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DHT_NODE_")) {
        command.env_remove(name);
    }
    command
        .args(args)
        .arg("--home")
        .arg(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs to the end.
async fn run(home: &Path, args: &[&str]) -> Output {
    within(command(home, args).output()).await.unwrap()
}

/// Runs to the end, which must be this exit code; what it printed on its two outputs.
async fn run_to(code: i32, home: &Path, args: &[&str]) -> (String, String) {
    let output = run(home, args).await;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{err}");
    (out.trim_end().to_owned(), err)
}

/// Starts a listening node and waits until it says that it runs.
async fn listen(home: &Path, args: &[&str]) -> Child {
    let args = [&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"], args].concat();
    let mut child = command(home, &args).spawn().unwrap();
    runs(&mut child).await;
    child
}

/// Makes a home, starts its node and waits until it says that it runs.
async fn start(home: &Path) -> Child {
    start_with(home, &[]).await.0
}

/// As [`start`], with variables; also what the node said on standard error.
async fn start_with(home: &Path, variables: &[(&str, &str)]) -> (Child, String) {
    run_to(0, home, &["init"]).await;
    let mut command = command(home, &["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
    let said = runs(&mut child).await;
    (child, said)
}

/// Waits until a node says that it runs; what it said.
async fn runs(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let mut said = String::new();
    // Before it there may be log lines, and nothing after it before the first event.
    while !said.contains("running as ") {
        let line = within(lines.next_line()).await.unwrap();
        said += &line.unwrap_or_else(|| panic!("{said}"));
        said.push('\n');
    }
    said
}

/// Stops a node in order.
async fn stop(mut child: Child) {
    signal(&child, "-TERM").await;
    let status = within(child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

/// Key and addresses of the node that runs on a home.
async fn address(home: &Path) -> PeerAddress {
    let (address, _) = run_to(0, home, &["id", "--address"]).await;
    address.parse().unwrap()
}

/// Another node, of this process.
async fn other(seed: u8) -> Node {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let builder = Node::builder(secret(seed)).listen(listen);
    builder.start().await.unwrap()
}

/// Sends texts, each once the one before is received.
async fn send_all(from: &Node, to: &PeerAddress, texts: &[&str]) {
    within(from.connect(to)).await.unwrap();
    for text in texts {
        let message = Message {
            message_type: 1,
            payload: text.to_string().into(),
        };
        let sent = within(from.send(&to.public_key, message, SendOptions::default())).await;
        within(sent.unwrap().wait(StateKind::Received))
            .await
            .unwrap();
    }
}

/// Output of a command, as one JSON value a line.
fn json_lines(printed: &str) -> Vec<serde_json::Value> {
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The texts of printed messages.
fn texts(printed: &str) -> Vec<String> {
    let text = |line: &serde_json::Value| line["text"].as_str().unwrap().to_owned();
    json_lines(printed).iter().map(text).collect()
}

/// Sends a signal to a process.
#[cfg(unix)]
async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let killed = within(Command::new("kill").args([name, &id]).status()).await;
    assert!(killed.unwrap().success());
}

/// Adds variables to the environment of a command, which ends with this code; what it printed to standard error.
async fn with_variables(
    code: i32,
    home: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let mut command = command(home, args);
    let output = within(command.envs(variables.iter().copied()).output())
        .await
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?} {error}");
    error
}
