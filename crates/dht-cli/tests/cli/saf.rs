//! `saf`.

use dht_node::{Message, Node, SendOptions, SendState, StateKind};
use tempfile::TempDir;

use super::{listen, run_to, secret, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saf_shows_deletes_and_fetches() {
    let dir = TempDir::new().unwrap();
    let (bob, carol) = (dir.path().join("bob"), dir.path().join("carol"));
    let (_, error) = run_to(4, &bob, &["saf", "stats"]).await;
    assert!(error.contains("dht-node init --home"), "{error}");
    assert!(!bob.exists());
    run_to(0, &bob, &["init"]).await;
    assert_eq!(run_to(0, &bob, &["saf", "list"]).await.0, "");

    // A sender leaves three messages for Carol with Bob.
    let (key, _) = run_to(0, &carol, &["id", "--json"]).await;
    let key: serde_json::Value = serde_json::from_str(&key).unwrap();
    let key: dht_core::PublicKey = key["public_key"].as_str().unwrap().parse().unwrap();
    let mut child = listen(&bob, &[]).await;
    let (address, _) = run_to(0, &bob, &["id", "--address"]).await;
    let alice = Node::builder(secret(1)).start().await.unwrap();
    within(alice.connect(&address.parse().unwrap()))
        .await
        .unwrap();
    for payload in ["one", "two", "three"] {
        let message = Message {
            message_type: 7,
            payload: payload.into(),
        };
        let sent = within(alice.send(&key, message, SendOptions::default())).await;
        let state = within(sent.unwrap().wait(StateKind::Stored)).await;
        assert_eq!(state, Ok(SendState::Stored { holders: 1 }));
    }
    // While Bob's node runs, it answers; then the files say the same.
    let show = ["saf", "list", "--json", "--recipient", &key.to_string()];
    let ids = |rows: &str| -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(rows).unwrap();
        let rows = list["messages"].as_array().unwrap().iter();
        rows.map(|row| row["id"].to_string()).collect()
    };
    let (live, _) = run_to(0, &bob, &show).await;
    let (stats, _) = run_to(0, &bob, &["saf", "stats", "--json"]).await;
    assert!(stats.contains(r#""messages":3"#), "{stats}");
    child.kill().await.unwrap();
    let (stored, _) = run_to(0, &bob, &show).await;
    assert_eq!((ids(&live).len(), ids(&live)), (3, ids(&stored)));

    let (stats, _) = run_to(0, &bob, &["saf", "stats", "--json"]).await;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(
        (&stats["store"]["messages"], &stats["store"]["mailboxes"]),
        (&3.into(), &1.into())
    );
    let (mailboxes, _) = run_to(0, &bob, &["saf", "list", "--json"]).await;
    let list: serde_json::Value = serde_json::from_str(&mailboxes).unwrap();
    let mailbox = &list["mailboxes"][0];
    assert_eq!(mailbox["recipient"], key.to_string());
    assert_eq!(
        (&mailbox["messages"], &mailbox["low_priority"]),
        (&3.into(), &0.into())
    );
    let recipient = key.to_string();
    let (rows, _) = run_to(0, &bob, &["saf", "list", "--recipient", &recipient]).await;
    assert_eq!(rows.lines().count(), 3, "{rows}");
    assert!(!rows.contains("one") && rows.contains("high"), "{rows}");
    let (purged, _) = run_to(0, &bob, &["saf", "purge", "--expired", "--json"]).await;
    assert_eq!(purged, r#"{"version":1,"purged":0}"#);

    // Carol fetches, once.
    let mut child = listen(&bob, &[]).await;
    let (address, _) = run_to(0, &bob, &["id", "--address"]).await;
    let fetch = ["saf", "fetch", "--peer", &address, "--json"];
    for messages in [3, 0] {
        let (fetched, _) = run_to(0, &carol, &fetch).await;
        let lines: Vec<serde_json::Value> = fetched
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), messages + 1, "{fetched}");
        assert_eq!(lines[messages]["new"], messages);
    }
    child.kill().await.unwrap();
    let (purged, _) = run_to(0, &bob, &["saf", "purge", "--recipient", &recipient]).await;
    assert_eq!(purged, "purged 3 messages");
    let (left, _) = run_to(0, &bob, &["saf", "list"]).await;
    assert_eq!(left, "");
    let (_, usage) = run_to(2, &bob, &["saf", "purge"]).await;
    assert!(usage.contains("--all"), "{usage}");
}
