//! Two processes of one key, on two copies of one home.

use std::{fs, path::Path};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr},
};

use crate::{address, command, run, run_to, stop, within};

const RUN: [&str; 3] = ["run", "--listen", "/ip4/127.0.0.1/tcp/0"];

type Log = Lines<BufReader<ChildStderr>>;

/// Starts the node of a home and waits until it says that it runs; its log goes on.
async fn started(home: &Path) -> (Child, Log) {
    let mut node = command(home, &RUN).spawn().unwrap();
    let mut log = BufReader::new(node.stderr.take().unwrap()).lines();
    says(&mut log, "running as ").await;
    (node, log)
}

/// Reads a log until it says this.
async fn says(log: &mut Log, expected: &str) {
    let mut said = String::new();
    while !said.contains(expected) {
        let line = within(log.next_line()).await.unwrap();
        said += &line.unwrap_or_else(|| panic!("{said}"));
        said.push('\n');
    }
}

#[tokio::test]
async fn copies_of_a_home_warn() {
    copies_warn(true).await;
}

/// The peer is one that both were told to ping.
#[tokio::test]
async fn copies_without_peers_warn() {
    copies_warn(false).await;
}

/// Each ping of one takes the connection of the other over, which is what both do by themselves within half a minute.
async fn copies_warn(is_configured: bool) {
    let dir = TempDir::new().unwrap();
    let [peer, first, second] = ["peer", "first", "second"].map(|name| dir.path().join(name));
    run_to(0, &peer, &["init"]).await;
    let (third, mut peer_log) = started(&peer).await;
    let at = address(&peer).await;

    run_to(0, &first, &["init"]).await;
    let peers = match is_configured {
        true => format!("peers = ['{at}']"),
        false => String::new(),
    };
    fs::write(first.join("config.toml"), peers).unwrap();
    fs::create_dir(&second).unwrap();
    for file in ["config.toml", "secret_key"] {
        fs::copy(first.join(file), second.join(file)).unwrap();
    }
    let (one, mut one_log) = started(&first).await;
    let (other, mut other_log) = started(&second).await;
    let of_a_twin = "another process may use the key of this node";
    let warned = async {
        tokio::join!(
            says(&mut one_log, of_a_twin),
            says(&mut other_log, of_a_twin),
            says(&mut peer_log, "two processes may use its key"),
        )
    };
    let to = at.to_string();
    let pings = async {
        loop {
            for home in [&first, &second] {
                // It fails if the other one takes the connection back each time.
                run(home, &["ping", &to]).await;
            }
        }
    };
    tokio::select! {
        _ = warned => {}
        () = pings => {}
    }
    for node in [one, other, third] {
        stop(node).await;
    }
}
