//! A message is acked once its reader has it.

use std::{io::PipeReader, path::Path, process::Stdio};

use dht_node::{Node, SendOptions, SendState, StateKind};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    BINARY, address, command, json_lines, listen, other, run_to, send_all, signal, start,
    start_with, stop, texts, within,
};

const FIVE: [&str; 5] = ["1", "2", "3", "4", "5"];
/// In their order as texts.
const TEN: [&str; 10] = ["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"];

/// A running node with five messages in its inbox.
struct Home {
    dir: TempDir,
    node: Child,
    sender: Node,
}

impl Home {
    async fn with_five() -> Self {
        let dir = TempDir::new().unwrap();
        let node = start(dir.path()).await;
        let sender = other(2).await;
        send_all(&sender, &address(dir.path()).await, &FIVE).await;
        Self { dir, node, sender }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes what is left; its texts.
    async fn rest(&self) -> Vec<String> {
        let take = ["inbox", "--ack", "--json"];
        texts(&run_to(0, self.path(), &take).await.0)
    }

    async fn stop(self) {
        stop(self.node).await;
        self.sender.shutdown().await;
    }
}

/// As in a shell: `dht-node ARGS | head -1`; what `head` printed.
async fn first_line(home: &Path, args: &[&str]) -> String {
    let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
    let head = Command::new("head")
        .arg("-1")
        .stdin(reader)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let node = command(home, args).stdout(writer).spawn().unwrap();
    let (node, head) = tokio::join!(
        within(node.wait_with_output()),
        within(head.wait_with_output())
    );
    let node = node.unwrap();
    let error = String::from_utf8(node.stderr).unwrap();
    assert_eq!((node.status.code(), &*error), (Some(0), ""), "{args:?}");
    let line = String::from_utf8(head.unwrap().stdout).unwrap();
    texts(&line).remove(0)
}

#[tokio::test]
async fn counted_listeners_leave_the_rest() {
    let home = Home::with_five().await;
    let (one, _) = run_to(0, home.path(), &["listen", "--count", "1", "--json"]).await;
    assert_eq!(texts(&one), ["1"]);
    let (all, _) = run_to(0, home.path(), &["inbox", "list", "--json"]).await;
    assert_eq!(texts(&all), FIVE[1..], "nothing is acked without --ack");
    assert_eq!(home.rest().await, FIVE[1..]);
    assert!(home.rest().await.is_empty());
    home.stop().await;
}

/// Messages for a home, which another node stores.
async fn stored_for(home: &Path, texts: &[&'static str]) -> (Node, Node) {
    let to = address(home).await.public_key;
    let (holder, sender) = (other(2).await, other(3).await);
    within(sender.connect(&holder.peer_address()))
        .await
        .unwrap();
    let sending = texts.iter().map(|text| {
        let message = dht_node::Message {
            message_type: 1,
            payload: (*text).into(),
        };
        let sending = sender.send(&to, message, SendOptions::default());
        async {
            let sent = within(sending).await;
            let state = within(sent.unwrap().wait(StateKind::Stored)).await;
            assert_eq!(state, Ok(SendState::Stored { holders: 1 }));
        }
    });
    futures::future::join_all(sending).await;
    (holder, sender)
}

/// Nobody reads while the node runs; what it fetched is there when it has stopped.
#[tokio::test]
async fn a_node_fetches_into_its_inbox() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    let (holder, sender) = stored_for(&home, &TEN).await;
    let peer = holder.peer_address().to_string();
    let (node, _) = start_with(&home, &[("DHT_NODE_PEERS", &peer)]).await;
    let fetched = async {
        loop {
            let (status, _) = run_to(0, &home, &["status", "--json"]).await;
            if json_lines(&status)[0]["inbox"]["messages"] == 10 {
                break;
            }
        }
    };
    within(fetched).await;
    stop(node).await;
    let (inbox, _) = run_to(0, &home, &["inbox", "--json"]).await;
    let mut seen = texts(&inbox);
    seen.sort();
    assert_eq!(seen, TEN);
    tokio::join!(holder.shutdown(), sender.shutdown());
}

/// The listener is a node of its own, which fetches all five and prints one.
#[tokio::test]
async fn waiting_messages_survive_a_listener() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    let (holder, sender) = stored_for(&home, &FIVE).await;
    let peers = format!("peers = [\"{}\"]", holder.peer_address());
    std::fs::write(home.join("config.toml"), peers).unwrap();
    let listen = [
        "listen",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--json",
        "--count",
    ];
    let (one, _) = run_to(0, &home, &[&listen[..], &["1"]].concat()).await;
    let mut seen = texts(&one);
    assert_eq!(seen.len(), 1);
    let (four, _) = run_to(0, &home, &[&listen[..], &["4"]].concat()).await;
    seen.extend(texts(&four));
    seen.sort();
    assert_eq!(seen, FIVE);
    tokio::join!(holder.shutdown(), sender.shutdown());
}

/// `head` reads one line, whatever lies in the pipe.
#[tokio::test]
async fn closed_pipes_lose_no_message() {
    let home = Home::with_five().await;
    assert_eq!(
        first_line(home.path(), &["inbox", "--ack", "--json"]).await,
        "1"
    );
    let follow = ["inbox", "--ack", "--json", "--follow"];
    assert_eq!(first_line(home.path(), &follow).await, "2");
    assert_eq!(first_line(home.path(), &["listen", "--json"]).await, "3");
    assert_eq!(home.rest().await, FIVE[3..]);
    home.stop().await;
}

/// A listener that is the node itself, and whose reader does not read.
#[tokio::test]
async fn stopped_listeners_lose_no_message() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let child = listen(home, &["--json"]).await;
    let sender = other(2).await;
    // It prints the first and waits for the reader that never comes.
    send_all(&sender, &address(home).await, &FIVE).await;
    signal(&child, "-TERM").await;
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let take = ["inbox", "--ack", "--json"];
    let left = texts(&run_to(0, home, &take).await.0);
    // Messages that were printed may come again, the others must.
    let printed = texts(&String::from_utf8(output.stdout).unwrap());
    let missing: Vec<_> = FIVE
        .iter()
        .filter(|text| !printed.iter().chain(&left).any(|seen| seen == *text))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    sender.shutdown().await;
}

/// A disk without room, as `/dev/full`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_disks_lose_no_message() {
    let home = Home::with_five().await;
    for args in [
        &["inbox", "--ack"][..],
        &["inbox", "--ack", "--follow"],
        &["listen"],
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let child = command(home.path(), args).stdout(full).spawn().unwrap();
        let output = within(child.wait_with_output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("standard output"), "{error}");
    }
    assert_eq!(home.rest().await, FIVE);
    home.stop().await;
}

/// ctrl-C while a message lies in the pipe.
#[tokio::test]
async fn interrupted_readers_lose_no_message() {
    let home = Home::with_five().await;
    let mut child = command(home.path(), &["inbox", "--ack", "--follow", "--json"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for expected in ["1", "2"] {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        assert_eq!(texts(&line), [expected]);
    }
    signal(&child, "-INT").await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
    let rest = home.rest().await;
    assert!(rest.ends_with(&FIVE.map(str::to_owned)[2..]), "{rest:?}");
    home.stop().await;
}

/// A reader that works on one line for long: the others are printed, and acked when they are read.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn slow_readers_lose_no_message() {
    let home = Home::with_five().await;
    let pending = async || {
        let (consumers, _) = run_to(0, home.path(), &["inbox", "consumers", "--json"]).await;
        json_lines(&consumers)[0]["consumers"][0]["pending"]
            .as_u64()
            .unwrap()
    };
    let mut child = command(home.path(), &["inbox", "--ack", "--follow", "--json"])
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    // Its patience ends, and it prints the rest.
    let unread = async || rustix::io::ioctl_fionread(&output).unwrap();
    let printing = async {
        let one = loop {
            match unread().await {
                0 => tokio::task::yield_now().await,
                bytes => break bytes,
            }
        };
        while unread().await < 5 * one {
            tokio::task::yield_now().await;
        }
        one
    };
    let one = within(printing).await;
    assert_eq!(pending().await, 5);
    let mut printed = vec![0; 5 * usize::try_from(one).unwrap()];
    within(output.read_exact(&mut printed)).await.unwrap();
    assert_eq!(texts(&String::from_utf8(printed).unwrap()), FIVE);
    within(async { while pending().await > 0 {} }).await;
    signal(&child, "-INT").await;
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
    home.stop().await;
}

/// A node that stops in order ends those who wait for messages.
#[tokio::test]
async fn followers_end_with_the_node() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path()).await;
    let sender = other(2).await;
    let mut child = command(dir.path(), &["inbox", "--follow"]).spawn().unwrap();
    send_all(&sender, &address(dir.path()).await, &["1"]).await;
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    within(lines.next_line()).await.unwrap().unwrap();
    stop(node).await;
    let output = within(child.wait_with_output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the node has stopped"), "{error}");
    sender.shutdown().await;
}

/// As in a shell: `dht-node inbox --ack 1>&-`. The null device is a choice of the user.
#[cfg(unix)]
#[tokio::test]
async fn closed_outputs_ack_nothing() {
    let home = Home::with_five().await;
    let ack_to = async |redirection: &str| {
        let mut shell = Command::new("sh");
        let script = format!("exec \"$0\" inbox --ack --home \"$1\" {redirection}");
        shell.args(["-c", &script, BINARY]).arg(home.path());
        within(shell.output()).await.unwrap()
    };
    let closed = ack_to("1>&-").await;
    let error = String::from_utf8(closed.stderr).unwrap();
    assert_eq!(closed.status.code(), Some(1), "{error}");
    assert!(error.contains("standard output is closed"), "{error}");
    assert_eq!(
        run_to(0, home.path(), &["inbox"]).await.0.lines().count(),
        5
    );
    assert_eq!(ack_to("> /dev/null").await.status.code(), Some(0));
    assert_eq!(run_to(0, home.path(), &["inbox"]).await.0, "");
    home.stop().await;
}

#[tokio::test]
async fn consumers_read_on_their_own() {
    let home = Home::with_five().await;
    run_to(0, home.path(), &["inbox", "consumers", "--add", "archive"]).await;
    assert_eq!(home.rest().await, FIVE);
    let take = [
        "inbox",
        "--consumer",
        "archive",
        "--json",
        "--count",
        "3",
        "--ack",
    ];
    let (taken, _) = run_to(0, home.path(), &take).await;
    assert_eq!(texts(&taken), FIVE[..3]);
    let (consumers, _) = run_to(0, home.path(), &["inbox", "consumers", "--json"]).await;
    let pending: Vec<_> = json_lines(&consumers)[0]["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|consumer| consumer["pending"].as_u64().unwrap())
        .collect();
    assert_eq!(pending, [2, 0], "{consumers}");
    let (_, error) = run_to(1, home.path(), &["inbox", "--consumer", "nobody"]).await;
    assert!(error.contains("consumer"), "{error}");
    home.stop().await;
}

/// A program that reads when the command has ended gets everything, too, but only the next one knows that it did.
#[tokio::test]
async fn late_readers_get_everything() {
    let home = Home::with_five().await;
    let mut child = Command::new(BINARY)
        .args(["inbox", "--ack", "--json", "--count", "1", "--home"])
        .arg(home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(within(child.wait()).await.unwrap().success());
    let output = within(child.wait_with_output()).await.unwrap();
    assert_eq!(texts(&String::from_utf8(output.stdout).unwrap()), ["1"]);
    if cfg!(target_os = "linux") {
        assert_eq!(home.rest().await, FIVE, "nothing was read in time");
    }
    home.stop().await;
}

/// An inbox is read without a node, but not made.
#[tokio::test]
async fn an_inbox_needs_a_home() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("none");
    let (_, error) = run_to(4, &home, &["inbox"]).await;
    assert!(error.contains("dht-node init"), "{error}");
    assert!(!home.join("inbox.redb").exists());
}
