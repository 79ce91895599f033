//! The clients in `docs/clients`, with the programs they are for.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use dht_core::UnixSeconds;
use dht_spool::Transition;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::served::{Served, key, until};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/clients")
        .join(name)
}

/// Lines that the Python client prints until it is killed, after the one that begins with `last`.
async fn read_lines(served: &Served, last: &str) -> Vec<String> {
    let mut client = Command::new("python3")
        .arg(script("inbox.py"))
        .arg(served.socket())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.starts_with(last)) {
        let line = timeout(Duration::from_secs(20), output.next_line()).await;
        lines.push(line.unwrap().unwrap().unwrap());
    }
    lines
}

#[tokio::test]
async fn the_python_client_resumes_after_kill() {
    let served = Served::start().await;
    served
        .receive((1..=5).map(|n| format!("\x1b{n}").into_bytes()))
        .await;
    let first = read_lines(&served, "2 ").await;
    assert!(
        first[0].starts_with("1 ") && first[0].ends_with(r"'\x1b1'"),
        "{first:?}"
    );
    // What was printed last may have been acked or not; everything after it comes once.
    let rest = read_lines(&served, "5 ").await;
    let ids: String = rest.iter().map(|line| &line[..1]).collect();
    assert!(ids == "2345" || ids == "345", "{rest:?}");
}

#[tokio::test]
async fn the_shell_client_waits_for_receipt() {
    let served = Served::start().await;
    let client = Command::new("sh")
        .arg(script("send.sh"))
        .arg(served.socket())
        .arg(key().to_string())
        .arg("say \"hi\"\n\\")
        .output();
    let receiving = async {
        // Counted before it is committed.
        until(async || served.outbox().content(1).unwrap().is_some()).await;
        let content = served.outbox().content(1).unwrap().unwrap();
        assert_eq!(content.payload, "say \"hi\"\n\\");
        let now = UnixSeconds(1);
        served
            .outbox()
            .update(1, Transition::Received, now)
            .await
            .unwrap();
    };
    let (output, ()) = tokio::join!(client, receiving);
    let output = output.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{:?}", output.stderr);
    assert!(printed.ends_with("message 1 is received\n"), "{printed}");
}
