//! `send`, and why it fails.

use tempfile::TempDir;

use super::{address, listen, other, run_to, secret, start, stop, within};

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
    assert!(
        error.starts_with("error: ") && error.contains("nothing was queued"),
        "{error}"
    );
}

/// A message to the node itself is delivered there, whatever address is named for it.
#[tokio::test]
async fn own_address_is_not_dialled() {
    let dir = TempDir::new().unwrap();
    let (to, _) = run_to(0, dir.path(), &["id", "--address"]).await;
    let send = ["send", "--to", &to, "--text", "hi", "--wait", "received"];
    run_to(0, dir.path(), &send).await;
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
        "send", "--to", &address, "--text", text, "--type", "-5", "--json",
    ];
    let (sent, _) = run_to(0, &b, &send).await;
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(sent["version"], 1);
    assert_eq!(sent["payload_bytes"], text.len());

    let output = within(listening.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    let received: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(received["text"], text);
    let (version, number) = (&received["version"], &received["message_type"]);
    assert_eq!((version, number), (&1.into(), &(-5).into()));
    let (sender, _) = run_to(0, &b, &["id", "--json"]).await;
    let sender: serde_json::Value = serde_json::from_str(&sender).unwrap();
    assert_eq!(received["from"], sender["public_key"]);
    assert!(!a.join("addresses").exists(), "a stopped node is nowhere");
}

/// The recipient does not listen where the sender was told, and another node takes the message.
#[tokio::test]
async fn detours_name_their_cause() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path()).await;
    let neighbour = other(1).await;
    within(neighbour.connect(&address(dir.path()).await))
        .await
        .unwrap();
    let key = secret(9).public_key();
    let to = format!("{key}::/ip4/127.0.0.1/tcp/1");
    let (out, error) = run_to(0, dir.path(), &["send", "--to", &to, "--text", "hi"]).await;
    // The neighbour may have confirmed its copy already.
    let (sent, stored) = (
        format!("sent 2 bytes towards {key} by other nodes: "),
        format!("stored 2 bytes for {key} at other nodes: "),
    );
    assert!(out.starts_with(&sent) || out.starts_with(&stored), "{out}");
    assert!(out.contains("refused"), "{out}");
    assert_eq!(error, "");
    // The key alone, which nobody finds.
    let send = [
        "send",
        "--to",
        &key.to_string(),
        "--text",
        "ho",
        "--timeout",
        "60",
    ];
    let (out, _) = run_to(0, dir.path(), &send).await;
    let (sent, stored) = (sent.as_str(), stored.as_str());
    assert!(out.starts_with(sent) || out.starts_with(stored), "{out}");
    neighbour.shutdown().await;
    stop(node).await;
}

/// A running node goes on with its own settings.
#[tokio::test]
async fn flags_beside_a_node_are_compared() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path()).await;
    let to = address(dir.path()).await.to_string();
    let send = ["send", "--to", &to, "--text", "-hi", "--network"];
    run_to(0, dir.path(), &[&send[..], &["localnet"]].concat()).await;
    let (_, error) = run_to(2, dir.path(), &[&send[..], &["igor"]].concat()).await;
    assert!(error.contains("leave --network out"), "{error}");
    let other = ["listen", "--listen", "/ip4/127.0.0.1/tcp/1"];
    let (_, error) = run_to(2, dir.path(), &other).await;
    assert!(error.contains("leave --listen out"), "{error}");
    stop(node).await;
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
