//! The `dht-node` binary, as a shell sees it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod beside;
mod brief;
mod clients;
#[cfg(unix)]
mod disk;
mod inbox;

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use dht_core::{PeerAddress, SecretKey};
use dht_node::{Message, Node, SendOptions, SendState, StateKind};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The binary, which cargo builds before this test.
const BINARY: &str = env!("CARGO_BIN_EXE_dht-node");

/// Longer than any step takes on a slow machine: only a deadlock reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of a future that must not hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

/// The same key for the same seed.
fn secret(seed: u8) -> SecretKey {
    SecretKey::from_uniform_bytes(&[seed; 64]).unwrap()
}

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DHT_NODE_")) {
        command.env_remove(name);
    }
    command
        .args(args)
        .arg("--home")
        .arg(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs to the end.
async fn run(home: &Path, args: &[&str]) -> Output {
    within(command(home, args).output()).await.unwrap()
}

/// Runs to the end, which must be this exit code; what it printed on its two outputs.
async fn run_to(code: i32, home: &Path, args: &[&str]) -> (String, String) {
    let output = run(home, args).await;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{err}");
    (out.trim_end().to_owned(), err)
}

/// Starts a listening node and waits until it says that it runs.
async fn listen(home: &Path, args: &[&str]) -> Child {
    let args = [&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"], args].concat();
    let mut child = command(home, &args).spawn().unwrap();
    runs(&mut child).await;
    child
}

/// Makes a home, starts its node and waits until it says that it runs.
async fn start(home: &Path) -> Child {
    start_with(home, &[]).await.0
}

/// As [`start`], with variables; also what the node said on standard error.
async fn start_with(home: &Path, variables: &[(&str, &str)]) -> (Child, String) {
    run_to(0, home, &["init"]).await;
    let mut command = command(home, &["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
    let said = runs(&mut child).await;
    (child, said)
}

/// Waits until a node says that it runs; what it said.
async fn runs(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let mut said = String::new();
    // Before it there may be log lines, and nothing after it before the first event.
    while !said.contains("running as ") {
        let line = within(lines.next_line()).await.unwrap();
        said += &line.unwrap_or_else(|| panic!("{said}"));
        said.push('\n');
    }
    said
}

/// Stops a node in order.
async fn stop(mut child: Child) {
    signal(&child, "-TERM").await;
    let status = within(child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

/// Key and addresses of the node that runs on a home.
async fn address(home: &Path) -> PeerAddress {
    let (address, _) = run_to(0, home, &["id", "--address"]).await;
    address.parse().unwrap()
}

/// Another node, of this process.
async fn other(seed: u8) -> Node {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let builder = Node::builder(secret(seed)).listen(listen);
    builder.start().await.unwrap()
}

/// Sends texts, each once the one before is received.
async fn send_all(from: &Node, to: &PeerAddress, texts: &[&str]) {
    within(from.connect(to)).await.unwrap();
    for text in texts {
        let message = Message {
            message_type: 1,
            payload: text.to_string().into(),
        };
        let sent = within(from.send(&to.public_key, message, SendOptions::default())).await;
        within(sent.unwrap().wait(StateKind::Received))
            .await
            .unwrap();
    }
}

/// What a command printed, as one JSON value a line.
fn json_lines(printed: &str) -> Vec<serde_json::Value> {
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The texts of printed messages.
fn texts(printed: &str) -> Vec<String> {
    let text = |line: &serde_json::Value| line["text"].as_str().unwrap().to_owned();
    json_lines(printed).iter().map(text).collect()
}

#[tokio::test]
async fn init_keeps_a_private_key() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("new");
    let (first, _) = run_to(0, &home, &["init"]).await;
    assert!(first.starts_with("made "), "{first}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(home.join("secret_key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
    assert!(home.join("config.toml").exists());
    let (second, _) = run_to(0, &home, &["init"]).await;
    assert!(second.starts_with("kept "), "{second}");
    assert_eq!(first.lines().last(), second.lines().last());
}

#[tokio::test]
async fn id_formats_agree() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let (json, _) = run_to(0, home, &["id", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (address, _) = run_to(0, home, &["id", "--address"]).await;
    assert_eq!(json["address"], address.as_str());
    let peer: PeerAddress = address.parse().unwrap();
    assert_eq!(json["public_key"], peer.public_key.to_string());
    assert_eq!(json["node_id"], peer.public_key.node_id().to_string());
    let (text, _) = run_to(0, home, &["id"]).await;
    assert!(text.contains(&address), "{text}");
    // The key in the file is the one that is named.
    let key = std::fs::read_to_string(home.join("secret_key")).unwrap();
    let key: SecretKey = key.parse().unwrap();
    assert_eq!(key.public_key(), peer.public_key);
}

#[cfg(unix)]
#[tokio::test]
async fn readable_keys_are_refused() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let key = dir.path().join("secret_key");
    run_to(0, dir.path(), &["init"]).await;
    for mode in [0o640, 0o604, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for args in [&["id"][..], &["init"], &["listen"]] {
            let (_, error) = run_to(4, dir.path(), args).await;
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    run_to(0, dir.path(), &["id"]).await;
    fs::write(&key, "no key").unwrap();
    let (_, error) = run_to(4, dir.path(), &["id"]).await;
    assert!(error.contains("secret_key"), "{error}");
}

#[tokio::test]
async fn invalid_settings_are_named() {
    let dir = TempDir::new().unwrap();
    run_to(0, dir.path(), &["init"]).await;
    for (text, named) in [
        ("lisen = []", "lisen"),
        ("network = 'mars'", "network"),
        ("memory_mib = 'much'", "memory_mib"),
        (
            "memory_mib = 0",
            "memory_mib is 0, which is not in the range 1 to",
        ),
        ("peers = ['nobody']", "peers"),
        ("listen = [", "listen"),
        ("[rates]\njoin = { per_second = 0 }", "per_second"),
    ] {
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        for command in ["id", "config", "listen"] {
            let (_, error) = run_to(3, dir.path(), &[command]).await;
            assert!(error.contains(named), "{text}: {error}");
            assert!(error.contains("config.toml"), "{error}");
        }
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_two() {
    let dir = TempDir::new().unwrap();
    run_to(2, dir.path(), &["send", "--to", "nobody"]).await;
    run_to(2, dir.path(), &["listen", "--count", "many"]).await;
    run_to(2, dir.path(), &["listen", "--network", "mars"]).await;
    let zero = "0";
    for args in [
        ["peers", "list", "--limit", zero],
        ["saf", "list", "--limit", zero],
        ["inbox", "fetch", "--timeout", zero],
        ["inbox", "list", "--count", zero],
        [
            "send",
            "--to",
            &secret(9).public_key().to_string(),
            "--timeout=0",
        ],
        [
            "ping",
            &secret(9).public_key().to_string(),
            "--timeout",
            "301",
        ],
    ] {
        let (_, error) = run_to(2, dir.path(), &args).await;
        assert!(error.contains("1.."), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What is given to `init` counts, or is refused: never taken and forgotten.
#[tokio::test]
async fn init_refuses_other_settings() {
    let dir = TempDir::new().unwrap();
    let init = ["init", "--listen", "/ip4/127.0.0.1/tcp/1"];
    for _ in 0..2 {
        run_to(0, dir.path(), &init).await;
    }
    let (_, error) = run_to(2, dir.path(), &[&init[..], &["--network", "igor"]].concat()).await;
    assert!(
        error.contains("config.toml") && error.contains("network"),
        "{error}"
    );
    let other = ["init", "--listen", "/ip4/127.0.0.1/tcp/2"];
    let (_, error) = run_to(2, dir.path(), &other).await;
    assert!(error.contains("value for listen; edit it"), "{error}");
    let (config, _) = run_to(0, dir.path(), &["config"]).await;
    assert!(config.contains("/ip4/127.0.0.1/tcp/1\""), "{config}");
}

#[tokio::test]
async fn port_zero_is_no_address() {
    let dir = TempDir::new().unwrap();
    run_to(0, dir.path(), &["init", "--listen", "/ip4/127.0.0.1/tcp/0"]).await;
    let (out, error) = run_to(3, dir.path(), &["id", "--address"]).await;
    assert_eq!(out, "");
    assert!(error.contains("`dht-node run`"), "{error}");
}

/// `id`, `status` and the node itself name the same address, which can be dialled.
#[tokio::test]
async fn unspecified_addresses_are_not_shown() {
    let dir = TempDir::new().unwrap();
    let open = "/ip4/0.0.0.0/tcp/0";
    run_to(0, dir.path(), &["init", "--listen", open]).await;
    let mut child = command(dir.path(), &["run"]).spawn().unwrap();
    let said = runs(&mut child).await;
    assert!(said.contains("set public_addresses"), "{said}");
    let (id, _) = run_to(0, dir.path(), &["id", "--address"]).await;
    assert!(id.contains("::/ip4/127.0.0.1/tcp/"), "{id}");
    assert!(said.contains(&id), "{said}");
    let (status, _) = run_to(0, dir.path(), &["status"]).await;
    assert!(status.contains(&id), "{status}");
    stop(child).await;
}

/// The soft limit of open files is raised to the hard one; a hard one that is too low is told.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn open_files_are_raised_and_checked() {
    for (limit, is_told) in [("-Sn 64", false), ("-n 64", true)] {
        let dir = TempDir::new().unwrap();
        run_to(0, dir.path(), &["init", "--listen", "/ip4/127.0.0.1/tcp/0"]).await;
        let script = format!("ulimit {limit} && exec \"$0\" run --home \"$1\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, BINARY]).arg(dir.path());
        let mut child = shell
            .kill_on_drop(true)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = runs(&mut child).await;
        assert_eq!(
            said.contains("64 open files are allowed"),
            is_told,
            "{said}"
        );
        let limits = format!("/proc/{}/limits", child.id().unwrap());
        let limits = std::fs::read_to_string(limits).unwrap();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let numbers: Vec<_> = files.unwrap().split_whitespace().skip(3).take(2).collect();
        assert_eq!(numbers[0], numbers[1]);
        stop(child).await;
    }
}

/// Something else lies where a file of the node belongs.
#[tokio::test]
async fn misplaced_files_are_named() {
    for (name, is_folder) in [("inbox.redb", true), ("outbox.redb", true), ("saf", false)] {
        let dir = TempDir::new().unwrap();
        run_to(0, dir.path(), &["init", "--listen", "/ip4/127.0.0.1/tcp/0"]).await;
        let path = dir.path().join(name);
        if is_folder {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        let (_, error) = run_to(1, dir.path(), &["run"]).await;
        assert!(error.contains("move it away"), "{name}: {error}");
        assert!(!error.contains("stop the node"), "{name}: {error}");
    }
}

#[tokio::test]
async fn foreign_api_address_exits_with_three() {
    let dir = TempDir::new().unwrap();
    run_to(0, dir.path(), &["init"]).await;
    let variables = [
        ("DHT_NODE_API_LISTEN", "0.0.0.0:0"),
        ("DHT_NODE_LISTEN", "/ip4/127.0.0.1/tcp/0"),
    ];
    let error = with_variables(3, dir.path(), &["run"], &variables).await;
    assert!(
        error.contains("api.listen") && error.contains("loopback"),
        "{error}"
    );
}

#[tokio::test]
async fn address_in_use_exits_with_five() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let (_, error) = run_to(5, dir.path(), &["listen", "--listen", &address]).await;
    assert!(error.contains(&address), "{error}");
}

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
        let rows = rows
            .lines()
            .map(|row| row.parse::<serde_json::Value>().unwrap());
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
        (&stats["messages"], &stats["mailboxes"]),
        (&3.into(), &1.into())
    );
    let (mailboxes, _) = run_to(0, &bob, &["saf", "list", "--json"]).await;
    let mailbox: serde_json::Value = serde_json::from_str(&mailboxes).unwrap();
    assert_eq!(mailbox["recipient"], key.to_string());
    assert_eq!(
        (&mailbox["messages"], &mailbox["high"]),
        (&3.into(), &3.into())
    );
    let recipient = key.to_string();
    let (rows, _) = run_to(0, &bob, &["saf", "list", "--recipient", &recipient]).await;
    assert_eq!(rows.lines().count(), 3, "{rows}");
    assert!(!rows.contains("one") && rows.contains("high"), "{rows}");
    let (purged, _) = run_to(0, &bob, &["saf", "purge", "--expired", "--json"]).await;
    assert_eq!(purged, r#"{"purged":0}"#);

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
        assert_eq!(lines[messages]["fetched"]["new"], messages);
    }
    child.kill().await.unwrap();
    let (purged, _) = run_to(0, &bob, &["saf", "purge", "--recipient", &recipient]).await;
    assert_eq!(purged, "purged 3 messages");
    let (left, _) = run_to(0, &bob, &["saf", "list"]).await;
    assert_eq!(left, "");
    let (_, usage) = run_to(2, &bob, &["saf", "purge"]).await;
    assert!(usage.contains("--all"), "{usage}");
}

#[tokio::test]
async fn demo_loses_nothing() {
    for seed in ["1", "2"] {
        let output = Command::new(BINARY)
            .args(["demo", "--json", "--nodes", "8"])
            .args(["--messages", "100", "--seed", seed])
            .output();
        let output = within(output).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["lost"], 0, "{json}");
        assert_eq!(json["duplicated"], 0, "{json}");
        assert_eq!(json["delivered"], json["expected"], "{json}");
    }
}

#[tokio::test]
async fn offline_demo_delivers_all() {
    let output = Command::new(BINARY)
        .args([
            "demo",
            "--offline",
            "--json",
            "--nodes",
            "3",
            "--messages",
            "4",
        ])
        .output();
    let output = within(output).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let offline = &json["offline"];
    for (name, value) in [
        ("sent", 50),
        ("delivered", 50),
        ("duplicated", 0),
        ("altered", 0),
    ] {
        assert_eq!(offline[name], value, "{name}: {json}");
    }
    assert_eq!(offline["acknowledged"], 300, "{json}");
}

#[tokio::test]
async fn rates_are_shown_and_set() {
    let dir = TempDir::new().unwrap();
    let (shown, _) = run_to(0, dir.path(), &["config"]).await;
    for kind in [
        "application",
        "join",
        "discovery",
        "discovery_dial",
        "discovery_response",
        "stored_request",
        "stored_messages",
        "undecodable_bytes",
    ] {
        assert!(shown.contains(&format!("[rates.{kind}]")), "{shown}");
    }
    assert!(shown.contains("\nforward = true"), "{shown}");
    let text = "forward = false\n[rates]\njoin = { per_second = 12 }";
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let (shown, _) = run_to(0, dir.path(), &["config"]).await;
    assert!(shown.contains("[rates.join]\nper_second = 12\n"), "{shown}");
    assert!(shown.contains("\nforward = false"), "{shown}");
}

/// The operator reads in `docs/bans.md` what the code does.
#[tokio::test]
async fn documented_bans_match_the_code() {
    let mut command = Command::new(BINARY);
    let printed = within(command.args(["bans", "rules", "--json"]).output()).await;
    let rules: Vec<serde_json::Value> = serde_json::from_slice(&printed.unwrap().stdout).unwrap();
    let ban = |ban: &serde_json::Value| match (ban["who"].as_str(), ban["seconds"].as_u64()) {
        (Some(who), Some(seconds)) => format!("{who}, {} min", seconds / 60),
        _ => "nobody".to_owned(),
    };
    let rows = rules.iter().map(|rule| {
        let text = |field: &str| rule[field].as_str().unwrap().to_owned();
        let (strict, legacy) = (ban(&rule["strict"]), ban(&rule["legacy"]));
        let (offence, what, section) = (text("offence"), text("text"), text("section"));
        let framed = rule["framed_by"].as_str().unwrap_or("nobody");
        format!("| `{offence}` | {what} | {framed} | {strict} | {legacy} | {section} |\n")
    });
    let table: String = rows.collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bans.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page.ends_with(&table),
        "the table of docs/bans.md should be\n{table}"
    );
    // No ban without its row: those of connections, of messages, of stored messages.
    for offence in ["frame_too_long", "flood", "saf_too_many_messages"] {
        assert!(table.contains(&format!("`{offence}`")), "{table}");
    }
}

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

/// Sends a signal to a process.
#[cfg(unix)]
async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let killed = within(Command::new("kill").args([name, &id]).status()).await;
    assert!(killed.unwrap().success());
}

/// Adds variables to the environment of a command, which ends with this code; what it printed to standard error.
async fn with_variables(
    code: i32,
    home: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let mut command = command(home, args);
    let output = within(command.envs(variables.iter().copied()).output())
        .await
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?} {error}");
    error
}

#[tokio::test]
async fn unknown_variables_are_refused() {
    let dir = TempDir::new().unwrap();
    for (name, value, expected) in [
        ("DHT_NODE_LISTN", "", "did you mean DHT_NODE_LISTEN?"),
        ("DHT_NODE_SAF_CAPACITY_ROWS", "0", "range 1 to"),
        (
            "DHT_NODE_RATES_JOIN_PER_SECOND",
            "many",
            "not a whole number",
        ),
        ("DHT_NODE_MEMORY_MIB", "2000000", "range 1 to 1048576"),
    ] {
        let error = with_variables(3, dir.path(), &["config"], &[(name, value)]).await;
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    with_variables(
        0,
        dir.path(),
        &["config"],
        &[("DHT_NODE_SAF_CAPACITY_ROWS", "9")],
    )
    .await;
}

#[tokio::test]
async fn other_encodings_are_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), b"network = '\xff'").unwrap();
    for args in [&["config"][..], &["id"]] {
        let (_, error) = run_to(3, dir.path(), args).await;
        assert!(error.contains("not valid UTF-8"), "{error}");
    }
    std::fs::remove_file(dir.path().join("config.toml")).unwrap();
    run_to(0, dir.path(), &["init"]).await;
    std::fs::write(dir.path().join("secret_key"), b"\xff").unwrap();
    let (_, error) = run_to(4, dir.path(), &["inbox"]).await;
    assert!(error.contains("not valid UTF-8"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = command(dir.path(), &["send", "--to"]);
        command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
        let output = within(command.output()).await.unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
}

#[tokio::test]
async fn help_is_plain_in_a_pipe() {
    let mut command = Command::new(BINARY);
    let output = within(command.arg("--help").output()).await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Usage: dht-node"), "{help}");
    assert!(!help.contains('\u{1b}'), "{help}");
}

#[tokio::test]
async fn mistyped_filters_are_refused() {
    let dir = TempDir::new().unwrap();
    for (filter, meant) in [("warning", "`warn`"), ("trcae", "`trace`")] {
        let (_, error) = run_to(2, dir.path(), &["config", "--log", filter]).await;
        assert!(error.contains(meant), "{error}");
        let error = with_variables(2, dir.path(), &["config"], &[("DHT_NODE_LOG", filter)]).await;
        assert!(error.contains(meant), "{error}");
    }
    run_to(
        0,
        dir.path(),
        &["config", "--log", "warn,dht_transport=trace"],
    )
    .await;
}

#[tokio::test]
async fn one_home_has_one_process() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), "[saf]\nenabled = false").unwrap();
    let mut child = listen(dir.path(), &[]).await;
    let id = child.id().unwrap().to_string();
    let to = format!("{}::/ip4/127.0.0.1/tcp/9", secret(9).public_key());
    let (_, error) = run_to(1, dir.path(), &["run"]).await;
    assert!(
        error.contains(&format!("process {id} (dht-node listen)")),
        "{error}"
    );
    assert!(error.contains("stop it"), "{error}");
    // Commands talk to the process that has the home.
    let send = [
        "send",
        "--to",
        &to,
        "--text",
        "hi",
        "--wait",
        "received",
        "--timeout",
        "1",
    ];
    let (_, error) = run_to(6, dir.path(), &send).await;
    assert!(error.contains("stays in the outbox"), "{error}");
    let (status, _) = run_to(0, dir.path(), &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["pid"].to_string(), id);
    assert_eq!(status["outbox"]["messages"], 1);
    child.kill().await.unwrap();
    // The lock of a killed process is free.
    let mut child = listen(dir.path(), &[]).await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn run_needs_a_home() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("new");
    let (_, error) = run_to(4, &home, &["run"]).await;
    assert!(error.contains("dht-node init --home"), "{error}");
    let others = [
        &["inbox"][..],
        &["inbox", "fetch"],
        &["saf", "fetch"],
        &["saf", "list"],
        &["saf", "purge", "--all"],
    ];
    for args in others {
        run_to(4, &home, args).await;
        assert!(!home.exists(), "a mistyped home is not made: {args:?}");
    }
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("inbox.redb"), "of another key").unwrap();
    for args in [&["listen"][..], &["init"], &["id"]] {
        let (_, error) = run_to(4, &home, args).await;
        assert!(error.contains("inbox.redb"), "{error}");
        assert!(!home.join("secret_key").exists());
        assert!(!home.join("config.toml").exists());
    }
}

/// A mistyped home, such as a folder of all users, is not closed to them.
#[cfg(unix)]
#[tokio::test]
async fn foreign_folders_stay_unchanged() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("letter.txt"), "of somebody").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    for (code, args) in [
        (1, &["status"][..]),
        (4, &["run"]),
        (4, &["listen"]),
        (4, &["init"]),
    ] {
        let (_, error) = run_to(code, &shared, args).await;
        assert!(error.contains("shared"), "{error}");
        let mode = fs::metadata(&shared).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{args:?}");
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 1, "{args:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn homes_are_for_their_owner() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("open");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = listen(&home, &[]).await;
    let mut folders = vec![home];
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o} {}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o} {}", path.display());
            folders.extend(path.is_dir().then_some(path));
        }
    }
    child.kill().await.unwrap();
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
        let sent = within(sent.unwrap().wait(StateKind::Sent)).await;
        sent.unwrap();
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

/// SIGHUP takes the filter of the log and limits, names what needs a restart, and refuses a file that does not parse.
#[cfg(unix)]
#[tokio::test]
async fn hangup_reads_the_settings_again() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "log = 'warn'").unwrap();
    let mut child = listen(dir.path(), &[]).await;
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for (text, expected) in [
        (
            "log = 'debug'\nmemory_mib = 99",
            ["changed=true", "memory_mib"],
        ),
        (
            "log = 'debug'\n[transport]\nmax_connections = 99",
            ["taken=", "transport.max_connections"],
        ),
        ("log = 'loud'", ["not valid", "loud"]),
    ] {
        std::fs::write(&config, text).unwrap();
        signal(&child, "-HUP").await;
        loop {
            let line = within(lines.next_line()).await.unwrap().unwrap();
            if expected.iter().all(|part| line.contains(part)) {
                break;
            }
        }
    }
    child.kill().await.unwrap();
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
