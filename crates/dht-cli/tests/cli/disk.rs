//! A disk without room, and damaged files.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    BINARY, address, command, other, run, run_to, runs, send_all, start, start_with, stop, within,
};

/// No byte can be written to any file: nothing half made is left, and with room again the home is made.
#[tokio::test]
async fn init_leaves_nothing_half_made() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    for args in ["init", "id"] {
        // The signal is ignored, so that writes fail.
        let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {args} --home \"$1\"");
        let mut command = Command::new("sh");
        let command = command.args(["-c", &script, BINARY]).arg(&home);
        let output = within(command.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("cannot write"), "{error}");
        assert!(!home.exists(), "{args}");
    }
    let (made, _) = run_to(0, &home, &["init"]).await;
    assert!(made.starts_with("made "), "{made}");
}

/// No file can grow, as on a disk that filled up: a home that ran before runs again.
#[tokio::test]
async fn homes_restart_without_room() {
    let dir = TempDir::new().unwrap();
    stop(start(dir.path()).await).await;
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let sizes = entries.map(|entry| entry.unwrap().metadata().unwrap().size());
    // The shell counts in halves of a kilobyte.
    let blocks = sizes.max().unwrap().div_ceil(512);
    let script = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run --home \"$1\" --listen /ip4/127.0.0.1/tcp/0"
    );
    let mut command = Command::new("sh");
    let command = command.args(["-c", &script, BINARY]).arg(dir.path());
    let mut node = command.stderr(Stdio::piped()).spawn().unwrap();
    runs(&mut node).await;
    run_to(0, dir.path(), &["status"]).await;
    stop(node).await;
}

/// The limit on warnings leaves out no file: each one that is set aside is told.
#[tokio::test]
async fn every_damaged_file_is_told() {
    let dir = TempDir::new().unwrap();
    stop(start(dir.path()).await).await;
    let files = ["inbox.redb", "outbox.redb", "peers.redb"];
    for file in files {
        std::fs::write(dir.path().join(file), [0; 8192]).unwrap();
    }
    let mut command = command(dir.path(), &["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut node = command.spawn().unwrap();
    let said = runs(&mut node).await;
    for file in files {
        let is_told = |line: &str| line.contains(file) && line.contains("set aside");
        assert!(said.lines().any(is_told), "{file}: {said}");
    }
    stop(node).await;
}

/// The file is damaged under the running node, and a client reads it.
#[tokio::test]
async fn damaged_inbox_ends_running_node() {
    let dir = TempDir::new().unwrap();
    // Less than the messages take, so that they are read from the disk.
    let cache = ("DHT_NODE_INBOX_WRITER_CACHE_BYTES", "65536");
    let (node, _) = start_with(dir.path(), &[cache]).await;
    let to = address(dir.path()).await;
    let text = "x".repeat(20_000);
    send_all(&other(2).await, &to, &[&*text; 20]).await;

    let path = dir.path().join("inbox.redb");
    let file = File::options().write(true).open(path).unwrap();
    let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
    // All but the header.
    file.write_all_at(&vec![0xff; bytes - 4096], 4096).unwrap();
    let _failed = run(dir.path(), &["inbox", "list"]).await;
    let output = within(node.wait_with_output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: inbox file has stopped"), "{error}");
}
