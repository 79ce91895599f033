//! Commands beside a running node.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    address, command, json_lines, other, run, run_to, runs, secret, signal, start, start_with,
    stop, within,
};

/// Sends a request and reads the response to its end.
async fn get(at: &str, path: &str, header: &str) -> String {
    let mut stream = within(TcpStream::connect(at)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
    within(stream.write_all(request.as_bytes())).await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    response
}

/// The address behind these words of what a node said.
fn said_address(said: &str, words: &str) -> String {
    let (_, rest) = said.split_once(words).unwrap_or_else(|| panic!("{said}"));
    let end = rest.find(['/', ',', '\n']).unwrap();
    rest[..end].to_owned()
}

/// Whichever file of a home is damaged, `status` and the metrics tell of it, and `status` as long as the file is there.
#[tokio::test]
async fn damaged_files_are_told() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    run_to(0, home, &["init"]).await;
    std::fs::create_dir(dht_node::saf_folder(home)).unwrap();
    let ledger = dht_node::ledger_file(home);
    for file in [home.join("peers.redb"), home.join("seen.redb"), ledger] {
        std::fs::write(file, [0x5a; 9_000]).unwrap();
    }
    let variables = [("DHT_NODE_API_METRICS", "127.0.0.1:0")];
    for counted in ["1", "0"] {
        let (node, said) = start_with(home, &variables).await;
        let (status, _) = run_to(0, home, &["status"]).await;
        for what in ["known peers", "messages seen", "messages received"] {
            let told = format!("damaged files 1 of {what}, set aside");
            assert!(status.contains(&told), "{status}");
        }
        let metrics = said_address(&said, "metrics at http://");
        let metrics = get(&metrics, "/metrics", "").await;
        for part in ["peers", "dedup", "saf"] {
            let name = format!("dht_{part}_damaged_files_total");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
            assert_eq!(value.map_or("0", str::trim), counted, "{metrics}");
        }
        stop(node).await;
    }
}

/// As in `dht-node run --home a &  dht-node send --home a --to KEY --text hi --wait received`.
#[tokio::test]
async fn send_waits_for_a_starting_node() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let mut inbox = b.subscribe();
    run_to(0, &a, &["init"]).await;
    let to = b.peer_address().to_string();
    let mut node = command(&a, &["run", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .spawn()
        .unwrap();
    let send = ["send", "--to", &to, "--text", "hi", "--wait", "received"];
    let taking = async {
        let received = within(inbox.recv()).await.unwrap();
        inbox.ack().await;
        received
    };
    let ((sent, _), received) = tokio::join!(run_to(0, &a, &send), taking);
    assert!(sent.starts_with("received 2 bytes to "), "{sent}");
    assert_eq!(received.message.payload, "hi");
    // Whichever of the two took the home first, the node runs on it now.
    runs(&mut node).await;
    let (status, _) = run_to(0, &a, &["status", "--json"]).await;
    let status = &json_lines(&status)[0];
    assert_eq!(status["pid"], node.id().unwrap());
    stop(node).await;
    b.shutdown().await;
}

/// The same with a key alone, which a node of the command could not find.
#[tokio::test]
async fn starting_nodes_send_to_keys() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let mut inbox = b.subscribe();
    run_to(0, &a, &["init"]).await;
    let mut node = command(&a, &["run", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .spawn()
        .unwrap();
    let key = b.public_key().to_string();
    let send = ["send", "--to", &key, "--text", "hi", "--wait", "received"];
    let taking = async {
        runs(&mut node).await;
        within(b.connect(&address(&a).await)).await.unwrap();
        within(inbox.recv()).await.unwrap();
        inbox.ack().await;
    };
    tokio::join!(run_to(0, &a, &send), taking);
    stop(node).await;
    b.shutdown().await;
}

#[tokio::test]
async fn keyed_messages_are_sent_once() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let mut inbox = b.subscribe();
    let node = start(&a).await;
    let to = b.peer_address().to_string();
    let send = [
        "send",
        "--to",
        &to,
        "--text",
        "hi",
        "--key",
        "invoice-17",
        "--ttl",
        "60",
        "--json",
    ];
    let (first, _) = run_to(0, &a, &send).await;
    let (again, _) = run_to(0, &a, &send).await;
    assert_eq!(json_lines(&first)[0]["id"], json_lines(&again)[0]["id"]);
    let (_, error) = run_to(1, &a, &[&send[..4], &["other"], &send[5..]].concat()).await;
    assert!(error.contains("idempotency key"), "{error}");
    let last = ["send", "--to", &to, "--text", "last"];
    run_to(0, &a, &last).await;
    for expected in ["hi", "last"] {
        let received = within(inbox.recv()).await.unwrap();
        assert_eq!(received.message.payload, expected);
    }
    stop(node).await;
    b.shutdown().await;
}

/// Not without a search: no node is asked.
#[tokio::test]
async fn keys_without_address_are_searched() {
    let dir = TempDir::new().unwrap();
    let (a, b, c) = (dir.path().join("a"), other(2).await, other(3).await);
    let mut inbox = c.subscribe();
    let key = c.public_key().to_string();
    let send = ["send", "--to", &key, "--text", "hi", "--wait", "received"];
    let (_, error) = run_to(3, &a, &send).await;
    assert!(error.contains("no node to ask"), "{error}");
    // A command looks up no names of seeds, which this network has.
    let d = dir.path().join("d");
    std::fs::create_dir(&d).unwrap();
    std::fs::write(d.join("config.toml"), "network = 'esmeralda'").unwrap();
    for command in [&send[..], &["saf", "fetch"]] {
        let (_, error) = run_to(3, &d, command).await;
        assert!(error.contains("no node to ask"), "{error}");
    }

    within(c.connect(&b.peer_address())).await.unwrap();
    let node = start(&a).await;
    let b_address = b.peer_address().to_string();
    run_to(0, &a, &["peers", "add", &b_address]).await;
    let taking = async {
        within(inbox.recv()).await.unwrap();
        inbox.ack().await;
    };
    tokio::join!(run_to(0, &a, &send), taking);
    let (found, _) = run_to(0, &a, &["discover", &key, "--json"]).await;
    assert_eq!(json_lines(&found)[0]["peer"]["public_key"], key.as_str());
    stop(node).await;
    tokio::join!(b.shutdown(), c.shutdown());
}

/// The error says how to connect to a node that can be asked.
#[tokio::test]
async fn lonely_nodes_ask_nobody() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path()).await;
    let key = secret(9).public_key().to_string();
    for args in [
        &["ping", &key][..],
        &["discover", &key],
        &["inbox", "fetch"],
    ] {
        let (_, error) = run_to(6, dir.path(), args).await;
        assert!(error.contains("dht-node ping KEY::ADDR"), "{error}");
    }
    let to = format!("{key}::/ip4/127.0.0.1/udp/1");
    let (_, error) = run_to(2, dir.path(), &["peers", "add", &to]).await;
    assert!(error.contains("/ip4/IP/tcp/PORT"), "{error}");
    stop(node).await;
}

#[tokio::test]
async fn peers_and_bans_are_managed() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let (_, error) = run_to(4, &a, &["peers", "list"]).await;
    assert!(error.contains("dht-node init --home"), "{error}");
    assert!(!a.exists(), "a command that needs a node makes no home");

    let node = start(&a).await;
    let (key, to) = (b.public_key().to_string(), b.peer_address().to_string());
    let (added, _) = run_to(0, &a, &["peers", "add", &to, "--json"]).await;
    assert_eq!(json_lines(&added)[0]["peer"]["is_connected"], true);
    let (pong, _) = run_to(0, &a, &["ping", &key, "--json"]).await;
    assert_eq!(json_lines(&pong)[0]["was_connected"], true);
    assert!(json_lines(&pong)[0]["round_trip_micros"].is_u64(), "{pong}");
    let (pong, _) = run_to(0, &a, &["ping", &key]).await;
    assert!(
        pong.contains("was connected, round trip ") && pong.ends_with(" ms"),
        "{pong}"
    );
    let (listed, _) = run_to(0, &a, &["peers", "list"]).await;
    assert!(
        listed.contains(&key) && listed.contains("connected"),
        "{listed}"
    );

    let ban = [
        "bans",
        "add",
        &key,
        "--seconds",
        "60",
        "--reason",
        "\u{1b}noise",
    ];
    run_to(0, &a, &ban).await;
    let (bans, _) = run_to(0, &a, &["bans", "list"]).await;
    assert!(
        bans.contains(&key) && bans.contains("\u{fffd}noise"),
        "{bans}"
    );
    let until = bans.split_once(" until ").unwrap().1;
    let is_readable = until.starts_with("20") && until.split_once(' ').unwrap().0.ends_with('Z');
    assert!(is_readable, "{bans}");
    let (shown, _) = run_to(0, &a, &["peers", "show", &key]).await;
    assert!(shown.contains(" banned "), "{shown}");
    let (_, error) = run_to(6, &a, &["ping", &key]).await;
    assert!(error.contains("banned"), "{error}");
    let send = ["send", "--to", &to, "--text", "hi", "--ttl", "1"];
    let (_, error) = run_to(6, &a, &send).await;
    assert!(error.contains("bans the recipient for "), "{error}");
    assert!(error.contains("noise"), "{error}");
    // Nothing waits for the end of the ban.
    let send = ["send", "--to", &key, "--text", "hi"];
    let (out, error) = run_to(6, &a, &send).await;
    assert!(
        out.is_empty() && error.contains("bans the recipient"),
        "{error}"
    );
    assert_eq!(run_to(0, &a, &["bans", "lift", &key]).await.0, "lifted");
    let (lifted, _) = run_to(0, &a, &["bans", "lift", &key, "--json"]).await;
    assert_eq!(json_lines(&lifted)[0]["changed"], false);
    assert_eq!(run_to(0, &a, &["bans", "list"]).await.0, "");

    let (allowed, _) = run_to(0, &a, &["peers", "allow", &key]).await;
    assert_eq!(allowed, format!("put {key} on the allow list"));
    let (listed, _) = run_to(0, &a, &["peers", "allow"]).await;
    assert_eq!(listed, b.public_key().node_id().to_string());
    let (_, error) = run_to(1, &a, &["bans", "add", &key]).await;
    assert!(error.contains("allow list"), "{error}");
    let taken = run_to(0, &a, &["peers", "allow", &key, "--remove"]).await;
    assert_eq!(taken.0, format!("took {key} off the allow list"));

    let (removed, _) = run_to(0, &a, &["peers", "remove", &key]).await;
    assert_eq!(removed, format!("removed {key}"));
    let (_, error) = run_to(6, &a, &["peers", "show", &key]).await;
    assert!(error.contains("not known"), "{error}");
    for args in [["peers", "show"], ["bans", "add"], ["bans", "lift"]] {
        let (_, error) = run_to(2, &a, &[args[0], args[1], "zzz"]).await;
        assert!(error.contains("hexadecimal"), "{error}");
    }
    let (_, error) = run_to(1, &a, &["inbox", "--consumer", "nobody"]).await;
    assert!(error.contains("dht-node inbox consumers"), "{error}");
    // The socket is gone, until the node looks.
    std::fs::remove_file(a.join("api.sock")).unwrap();
    loop {
        let status = run(&a, &["status"]).await;
        if status.status.success() {
            break;
        }
        let error = String::from_utf8(status.stderr).unwrap();
        assert!(error.contains("api.sock is missing"), "{error}");
    }
    stop(node).await;
    b.shutdown().await;
}

/// Everybody who can connect reads them.
#[tokio::test]
async fn open_metrics_are_named() {
    let dir = TempDir::new().unwrap();
    let variables = [("DHT_NODE_API_METRICS", "0.0.0.0:0")];
    let (node, said) = start_with(dir.path(), &variables).await;
    assert!(said.contains("are open to the network"), "{said}");
    stop(node).await;
}

#[tokio::test]
async fn metrics_and_api_are_served() {
    let dir = TempDir::new().unwrap();
    let nobody = format!("{}::/ip4/127.0.0.1/tcp/9", secret(9).public_key());
    let variables = [
        ("DHT_NODE_API_METRICS", "127.0.0.1:0"),
        ("DHT_NODE_API_LISTEN", "127.0.0.1:0"),
        ("DHT_NODE_PEERS", &nobody),
    ];
    let (node, said) = start_with(dir.path(), &variables).await;
    let metrics = said_address(&said, "metrics at http://");
    let response = get(&metrics, "/metrics", "").await;
    assert!(response.contains("\ndht_"), "{response}");
    let response = get(&metrics, "/healthy", "").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let response = get(&metrics, "/ready", "").await;
    assert!(
        response.starts_with("HTTP/1.1 503") && response.contains("nobody_connected"),
        "{response}"
    );

    let api = said_address(&said, "API at http://");
    let response = get(&api, "/v1/status", "").await;
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    let token = std::fs::read_to_string(dir.path().join("api.token")).unwrap();
    let token = format!("authorization: Bearer {token}\r\n");
    let response = get(&api, "/v1/status", &token).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    stop(node).await;
}

/// A command of its own holds the home for a moment; a node that starts meanwhile waits.
#[tokio::test]
async fn a_node_waits_for_a_command() {
    let dir = TempDir::new().unwrap();
    run_to(0, dir.path(), &["init"]).await;
    // A peer that does not answer.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let to = format!("{}::/ip4/127.0.0.1/tcp/{port}", secret(9).public_key());
    let mut send = command(dir.path(), &["send", "--to", &to, "--text", "hi"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _socket = within(tokio::task::spawn_blocking(move || silent.accept())).await;
    let mut node = command(dir.path(), &["run", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .spawn()
        .unwrap();
    signal(&send, "-INT").await;
    assert_eq!(within(send.wait()).await.unwrap().code(), Some(130));
    runs(&mut node).await;
    stop(node).await;
}

/// The peer is known by an earlier connection, and is not asked for by its address.
#[tokio::test]
async fn send_names_why_peer_is_silent() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let node = start(&a).await;
    run_to(0, &a, &["peers", "add", &b.peer_address().to_string()]).await;
    let key = b.public_key().to_string();
    b.shutdown().await;
    let send = ["send", "--to", &key, "--text", "hi", "--ttl", "1"];
    let (_, error) = run_to(6, &a, &send).await;
    let cause = "expired: peer could not be dialled: connection refused";
    assert!(error.contains(cause), "{error}");
    stop(node).await;
}

#[tokio::test]
async fn send_reports_every_state() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let node = start(&a).await;
    run_to(0, &a, &["peers", "add", &b.peer_address().to_string()]).await;
    // Nobody has the key: the other node stores the message.
    let absent = secret(7).public_key().to_string();
    let send = [
        "send", "--to", &absent, "--text", "hi", "--wait", "stored", "--json",
    ];
    let (sent, _) = run_to(0, &a, &send).await;
    let sent = &json_lines(&sent)[0];
    assert_eq!(
        (&sent["state"], &sent["holders"]),
        (&"stored".into(), &1.into())
    );
    // To itself.
    let me = address(&a).await.public_key.to_string();
    let send = ["send", "--to", &me, "--text", "note", "--wait", "received"];
    run_to(0, &a, &send).await;
    let (inbox, _) = run_to(0, &a, &["inbox"]).await;
    assert_eq!(inbox, format!("{me} note"));
    let (_, usage) = run_to(2, &a, &["send", "--to", &me, "--ttl", "259201"]).await;
    assert!(usage.contains("259200"), "{usage}");
    stop(node).await;
    b.shutdown().await;
}

/// A seed tells of a node that answers and of one that is gone. The probe itself knows nobody, and is told of by nobody.
#[tokio::test]
async fn probe_visits_what_seeds_know() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("none");
    let (seed, alive, gone) = (other(2).await, other(3).await, other(4).await);
    for node in [&alive, &gone] {
        within(seed.connect(&node.peer_address())).await.unwrap();
    }
    gone.shutdown().await;
    let (key, at) = (
        seed.public_key().to_string(),
        seed.peer_address().to_string(),
    );
    let (json, _) = run_to(0, &home, &["probe", "--seed", &at, "--json"]).await;
    let report = &json_lines(&json)[0];
    assert_eq!(
        (&report["known"], &report["reached"]),
        (&3.into(), &2.into())
    );
    let peers = report["peers"].as_array().unwrap();
    assert_eq!(
        (&peers[0]["public_key"], &peers[0]["state"]),
        (&key.into(), &"reached".into())
    );
    assert_eq!(peers[0]["tells_of"].as_array().unwrap().len(), 2);
    assert!(
        peers[0]["user_agent"]
            .as_str()
            .unwrap()
            .starts_with("dht-node/")
    );
    assert!(peers[0]["claim_age_seconds"].as_u64().unwrap() < 3_600);
    let state = |node: &dht_node::Node| {
        let key = node.public_key().to_string();
        let mut peers = peers.iter();
        let peer = peers.find(|peer| peer["public_key"] == *key).unwrap();
        (peer["state"].clone(), peer["told_by"].as_u64().unwrap() > 0)
    };
    assert_eq!(state(&alive), ("reached".into(), true));
    assert_eq!(state(&gone), ("unreachable".into(), true));

    let (table, _) = run_to(0, &home, &["probe", "--seed", &at]).await;
    assert!(
        table.contains("2 of 3 nodes reached, 0 not visited"),
        "{table}"
    );
    assert!(table.contains("versions: 2 × dht-node/"), "{table}");
    assert!(table.contains("connection refused"), "{table}");
    let (table, _) = run_to(0, &home, &["probe", "--seed", &at, "--limit", "1"]).await;
    assert!(
        table.contains("1 of 1 nodes reached, 0 not visited; there are more"),
        "{table}"
    );
    assert!(!home.exists(), "a probe makes no home");
    let (_, error) = run_to(3, &home, &["probe"]).await;
    assert!(error.contains("--seed KEY::ADDR"), "{error}");
    alive.shutdown().await;
    seed.shutdown().await;
    let (table, error) = run_to(6, &home, &["probe", "--seed", &at]).await;
    assert!(
        table.contains("unreachable") && error.contains("no node was reached"),
        "{error}"
    );
}

/// The seed is named to the running node alone, as in `dht-node run --home a --seed KEY::ADDR ; dht-node probe --home a`.
#[tokio::test]
async fn probe_begins_at_proven_peers() {
    let dir = TempDir::new().unwrap();
    let (a, seed) = (dir.path().join("a"), other(2).await);
    run_to(0, &a, &["init"]).await;
    let (at, key) = (
        seed.peer_address().to_string(),
        seed.public_key().to_string(),
    );
    let run = ["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--seed", &at];
    let mut node = command(&a, &run).spawn().unwrap();
    runs(&mut node).await;
    run_to(0, &a, &["ping", &key]).await;
    let found = async |reached: u64| {
        let (json, _) = run_to(0, &a, &["probe", "--json"]).await;
        let report = &json_lines(&json)[0];
        assert_eq!(report["peers"][0]["public_key"], *key, "{json}");
        assert_eq!(report["reached"], reached, "{json}");
    };
    // The node of the home as well, of which the seed tells.
    found(2).await;
    // Another network than that of the node.
    let (_, error) = run_to(3, &a, &["probe", "--network", "esmeralda"]).await;
    assert!(error.contains("no node to begin at"), "{error}");

    stop(node).await;
    let file = || std::fs::read(a.join("peers.redb")).unwrap();
    let before = file();
    found(1).await;
    assert!(before == file(), "a probe changes nothing");
    let (_, error) = run_to(3, &a, &["probe", "--network", "esmeralda"]).await;
    assert!(error.contains("no node to begin at"), "{error}");
    seed.shutdown().await;
}

/// Once holders store a message and no attempt follows, no receipt is waited for, also of a message that ended before.
#[tokio::test]
async fn stored_message_ends_the_wait() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (dir.path().join("a"), other(2).await);
    let one = ("DHT_NODE_OUTBOUND_SELECT_NEIGHBOURING_NODES", "1");
    let (node, _) = start_with(&a, &[one]).await;
    run_to(0, &a, &["peers", "add", &b.peer_address().to_string()]).await;
    let absent = secret(7).public_key().to_string();
    let send = [
        "send",
        "--to",
        &absent,
        "--text",
        "hi",
        "--key",
        "k",
        "--wait",
        "received",
        "--timeout",
        "600",
    ];
    for _ in 0..2 {
        let (_, error) = run_to(6, &a, &send).await;
        assert!(error.contains("is stored"), "{error}");
    }
    stop(node).await;
    b.shutdown().await;
}
