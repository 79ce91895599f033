//! The clients in `docs/clients` and `curl`, as the documentation shows them, against a running node.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{BINARY, address, other, send_all, start, stop, within};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/clients")
        .join(name)
}

/// A program that finds the home by itself, as `dht-node` does.
fn at_home(program: &str, data: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("DHT_NODE_HOME")
        .env("XDG_DATA_HOME", data);
    command
}

/// Lines that the Python client prints until it is killed, after the one that ends with `last`.
async fn read_lines(mut client: Command, last: &str) -> Vec<String> {
    let mut client = client
        .arg(script("inbox.py"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.ends_with(last)) {
        lines.push(within(output.next_line()).await.unwrap().unwrap());
    }
    lines
}

#[tokio::test]
async fn python_reads_acks_and_resumes() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("dht-node");
    let node = start(&home).await;
    let sender = other(2).await;
    send_all(&sender, &address(&home).await, &["1", "2", "3"]).await;
    let key = sender.public_key().to_string();
    let first = read_lines(at_home("python3", dir.path()), "'2'").await;
    let (id, rest) = first[0].split_once(' ').unwrap();
    assert!(id.parse::<u64>().unwrap() > 0);
    assert_eq!(rest, format!("{key} '1'"));
    // The line printed last may have been acked or not.
    let mut named = Command::new("python3");
    named.env("DHT_NODE_HOME", &home);
    let rest = read_lines(named, "'3'").await;
    assert!(rest.len() <= 2, "{rest:?}");
    stop(node).await;
    sender.shutdown().await;
}

/// A consumer with a name of the application's, which nobody added before.
#[tokio::test]
async fn python_adds_its_consumer() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path()).await;
    let sender = other(2).await;
    send_all(&sender, &address(dir.path()).await, &["1"]).await;
    let mut client = Command::new("python3")
        .arg(script("inbox.py"))
        .arg(dir.path())
        .arg("app/a&b")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap()).lines();
    let line = within(output.next_line()).await.unwrap();
    assert!(line.is_some_and(|line| line.ends_with("'1'")));
    stop(node).await;
    sender.shutdown().await;
}

#[tokio::test]
async fn python_without_node_says_so() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("mistyped");
    let mut client = Command::new("python3");
    let output = within(client.arg(script("inbox.py")).arg(&home).output()).await;
    let output = output.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let start = format!("dht-node run --home {}", home.display());
    assert!(
        error.contains("no node answers at") && error.contains(&start),
        "{error}"
    );
}

#[tokio::test]
async fn the_shell_sends_and_waits() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("dht-node");
    let node = start(&home).await;
    let to = other(2).await;
    let mut inbox = to.subscribe();
    let socket = home.join("api.sock");
    let curl = |path: &str, body: &str| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--unix-socket"])
            .arg(&socket)
            .arg(format!("http://localhost{path}"));
        if !body.is_empty() {
            command.args(["-d", body]);
        }
        async move {
            let output = within(command.output()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            let value = serde_json::from_slice::<serde_json::Value>(&output.stdout);
            value.unwrap()
        }
    };
    let status = curl("/v1/status", "").await;
    assert_eq!(status["pid"], node.id().unwrap());
    let peer = format!(r#"{{"peer":"{}"}}"#, to.peer_address());
    curl("/v1/ping", &peer).await;

    // The home that the clients find is that of the command.
    let mut status = at_home(BINARY, dir.path());
    let status = within(status.arg("status").output()).await.unwrap();
    assert!(status.status.success(), "{status:?}");
    let client = at_home("sh", dir.path())
        .arg(script("send.sh"))
        .arg(to.public_key().to_string())
        .arg("say \"hi\"\n\\")
        .output();
    let taking = async {
        let received = within(inbox.recv()).await.unwrap();
        inbox.ack().await;
        received.message.payload
    };
    let (output, payload) = tokio::join!(within(client), taking);
    let output = output.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{:?}", output.stderr);
    let last = printed.lines().next_back().unwrap();
    let id = last.strip_prefix("message ").unwrap();
    let id = id.strip_suffix(" is received").unwrap();
    assert!(id.parse::<u64>().unwrap() > 0, "{printed}");
    assert_eq!(payload, "say \"hi\"\n\\");
    stop(node).await;
    to.shutdown().await;
}

#[tokio::test]
async fn shell_without_node_says_so() {
    let dir = TempDir::new().unwrap();
    let mut client = at_home("sh", dir.path());
    let output = within(client.arg(script("send.sh")).args(["KEY", "hi"]).output()).await;
    let output = output.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let start = format!("dht-node run --home {}/dht-node", dir.path().display());
    assert!(
        error.contains("no node answers at") && error.contains(&start),
        "{error}"
    );
}
