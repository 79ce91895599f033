//! Signals end commands.

use tempfile::TempDir;
use tokio::process::Command;

use super::{command, listen, secret, signal, within};

/// Exit code 0 also bounds the time: after five seconds the end is forced, with exit code 1.
#[cfg(unix)]
#[tokio::test]
async fn signals_stop_a_listening_node() {
    for signal in ["-INT", "-TERM"] {
        let dir = TempDir::new().unwrap();
        let listening = listen(dir.path(), &[]).await;
        let id = listening.id().unwrap().to_string();
        let killed = within(Command::new("kill").args([signal, &id]).status()).await;
        assert!(killed.unwrap().success());
        let output = within(listening.wait_with_output()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{signal}");
        assert!(!dir.path().join("addresses").exists());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn interrupted_commands_exit_with_130() {
    let dir = TempDir::new().unwrap();
    // Standard input that stays open, and a peer that does not answer.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let to = format!("{}::/ip4/127.0.0.1/tcp/{port}", secret(9).public_key());
    let mut child = command(dir.path(), &["send", "--to", &to, "--text", "hi"])
        .spawn()
        .unwrap();
    let _socket = within(tokio::task::spawn_blocking(move || silent.accept())).await;
    signal(&child, "-INT").await;
    let status = within(child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(130));
}
