//! `send`, and why it fails.

use tempfile::TempDir;

use super::{listen, run_to, secret, within};

#[tokio::test]
async fn unreachable_peer_exits_with_six() {
    let dir = TempDir::new().unwrap();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let to = format!("{}::/ip4/127.0.0.1/tcp/{port}", secret(9).public_key());
    let (out, error) = run_to(6, dir.path(), &["send", "--to", &to, "--text", "hi"]).await;
    assert_eq!(out, "");
    assert!(error.starts_with("error: "), "{error}");
}

#[tokio::test]
async fn one_home_sends_to_another() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let listening = listen(&a, &["--count", "1", "--json"]).await;
    let (address, _) = run_to(0, &a, &["id", "--address"]).await;
    assert!(!address.ends_with("/tcp/0"), "{address}");

    let text = "grüße \u{1b}[31m";
    let send = [
        "send", "--to", &address, "--text", text, "--type", "5", "--json",
    ];
    let (sent, _) = run_to(0, &b, &send).await;
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(sent["bytes"], text.len());

    let output = within(listening.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    let received: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(received["text"], text);
    assert_eq!(received["type"], 5);
    assert_eq!(received["bytes"], text.len());
    let (sender, _) = run_to(0, &b, &["id", "--json"]).await;
    let sender: serde_json::Value = serde_json::from_str(&sender).unwrap();
    assert_eq!(received["sender"], sender["public_key"]);
    assert!(!a.join("addresses").exists(), "a stopped node is nowhere");
}

#[tokio::test]
async fn causes_of_failed_dials_are_named() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let mut child = listen(&a, &[]).await;
    let (address, _) = run_to(0, &a, &["id", "--address"]).await;
    let (_, place) = address.split_once("::").unwrap();
    let other = secret(9).public_key();
    let wrong_key = format!("{other}::{place}");
    let no_name = format!("{other}::/dns4/no-such-host.invalid/tcp/9");
    for (to, network, expected) in [
        (&*wrong_key, "localnet", "has another key"),
        (&*no_name, "localnet", "DNS"),
        (&*address, "esmeralda", "same network"),
    ] {
        let args = ["send", "--to", to, "--network", network, "--text", "hi"];
        let (_, error) = run_to(6, &b, &args).await;
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.matches(expected).count(), 1, "{error}");
    }
    child.kill().await.unwrap();
}
