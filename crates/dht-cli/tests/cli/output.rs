//! Standard output and standard error that are closed, full or not read.

use std::process::Stdio;

use dht_core::PeerAddress;
use dht_node::{Message, Node, SendOptions, StateKind};
use tempfile::TempDir;
use tokio::process::Command;

use super::{BINARY, listen, run_to, secret, signal, within};

/// As in `dht-node bans rules | head -1`: who has read enough closes the pipe, and that is no failure.
#[tokio::test]
async fn closed_pipe_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(BINARY);
    let command = command.args(["bans", "rules"]).stdout(writer);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = within(child.wait_with_output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*error), (Some(0), ""));
}

#[tokio::test]
async fn help_is_plain_in_a_pipe() {
    let mut command = Command::new(BINARY);
    let output = within(command.arg("--help").output()).await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Usage: dht-node"), "{help}");
    assert!(!help.contains('\u{1b}'), "{help}");
}

/// A disk without room, as /dev/full: the reason is named, and nothing else goes to standard error.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_output_exits_with_one() {
    let dir = TempDir::new().unwrap();
    for args in [&["id"][..], &["config"], &["--help"], &["--version"]] {
        let mut command = Command::new(BINARY);
        command.args(args);
        if !args[0].starts_with('-') {
            command.arg("--home").arg(dir.path());
        }
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        // `output` of tokio's command would put a pipe in place of it.
        let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = within(child.wait_with_output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?} {error}");
        assert!(
            error.contains("standard output") && error.contains("space"),
            "{error}"
        );
    }
}

/// Nobody reads standard output and standard error: the node takes messages and stops when it is told to.
#[cfg(unix)]
#[tokio::test]
async fn unread_output_stops_no_node() {
    let dir = TempDir::new().unwrap();
    let mut child = listen(dir.path(), &["--log", "trace"]).await;
    let (address, _) = run_to(0, dir.path(), &["id", "--address"]).await;
    let alice = Node::builder(secret(1)).start().await.unwrap();
    let bob: PeerAddress = address.parse().unwrap();
    within(alice.connect(&bob)).await.unwrap();
    // More than a pipe holds: the listener waits for its reader, and logs are lost.
    for number in 0..60 {
        let message = Message {
            message_type: number,
            payload: vec![b'x'; 4096].into(),
        };
        let sent = within(alice.send(&bob.public_key, message, SendOptions::default())).await;
        let received = within(sent.unwrap().wait(StateKind::Received)).await;
        received.unwrap();
    }
    signal(&child, "-TERM").await;
    let status = within(child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    alice.shutdown().await;
}

/// A reader that closes its pipe ends the listener in order and without a word.
#[cfg(unix)]
#[tokio::test]
async fn closed_pipe_ends_a_listener() {
    let dir = TempDir::new().unwrap();
    let mut child = listen(dir.path(), &[]).await;
    drop(child.stdout.take());
    let (address, _) = run_to(0, dir.path(), &["id", "--address"]).await;
    let alice = Node::builder(secret(1)).start().await.unwrap();
    let bob: PeerAddress = address.parse().unwrap();
    within(alice.connect(&bob)).await.unwrap();
    let message = Message {
        message_type: 1,
        payload: "hi".into(),
    };
    let sent = within(alice.send(&bob.public_key, message, SendOptions::default())).await;
    let sent = within(sent.unwrap().wait(StateKind::Sent)).await;
    sent.unwrap();
    let output = within(child.wait_with_output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*error), (Some(0), ""));
    assert!(!dir.path().join("addresses").exists());
    alice.shutdown().await;
}
