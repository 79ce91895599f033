//! Settings: the file, variables and SIGHUP.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::{io::AsyncBufReadExt as _, io::BufReader, process::Command};

use super::{
    BINARY, listen, run_to, runs, secret, signal, start_with, stop, with_variables, within,
};

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

#[tokio::test]
async fn listed_bans_are_permanent() {
    let dir = TempDir::new().unwrap();
    let banned = secret(9).public_key().to_string();
    let (node, said) = start_with(dir.path(), &[("DHT_NODE_BANNED", &banned)]).await;
    assert!(
        said.contains("peer banned permanently") && !said.contains("seconds="),
        "{said}"
    );
    let (listed, _) = run_to(0, dir.path(), &["bans", "list"]).await;
    assert!(listed.contains(" for ever "), "{listed}");
    stop(node).await;
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

/// As a shell leaves it: `DHT_NODE_HOME=$UNSET dht-node init` would make the key in the folder that it is called in.
#[tokio::test]
async fn empty_home_is_refused() {
    let mut command = Command::new(BINARY);
    command.arg("config").env("DHT_NODE_HOME", "");
    let output = within(command.output()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("unset DHT_NODE_HOME"), "{error}");
}

/// Which would read as a home without settings, or without a key.
#[cfg(unix)]
#[tokio::test]
async fn dangling_links_are_told() {
    for (name, code) in [("config.toml", 3), ("secret_key", 4)] {
        let dir = TempDir::new().unwrap();
        std::os::unix::fs::symlink("/nowhere/file", dir.path().join(name)).unwrap();
        for command in ["init", "id"] {
            let (_, error) = run_to(code, dir.path(), &[command]).await;
            let is_told = error.contains(name) && error.contains("is a link to /nowhere/file");
            assert!(is_told, "{error}");
        }
    }
}

#[tokio::test]
async fn mistyped_filters_are_refused() {
    let dir = TempDir::new().unwrap();
    for (filter, meant) in [("warning", "`warn`"), ("trcae", "`trace`")] {
        let (_, error) = run_to(2, dir.path(), &["config", "--log", filter]).await;
        assert!(error.contains(meant), "{error}");
        let error = with_variables(3, dir.path(), &["config"], &[("DHT_NODE_LOG", filter)]).await;
        assert!(
            error.starts_with("error: DHT_NODE_LOG: ") && error.contains(meant),
            "{error}"
        );
    }
    run_to(
        0,
        dir.path(),
        &["config", "--log", "warn,dht_transport=trace"],
    )
    .await;
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
            ["changed=true", "needs_restart=\"memory_mib\""],
        ),
        (
            "log = 'debug'\n[transport]\nmax_connections = 99",
            ["changed=false", "taken=\"transport.max_connections\""],
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
