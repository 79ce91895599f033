//! Arguments, and what the command line prints of itself.

use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use super::{BINARY, command, run_to, secret, signal, within};

#[tokio::test]
async fn wrong_usage_exits_with_two() {
    let dir = TempDir::new().unwrap();
    run_to(2, dir.path(), &["send", "--to", "nobody"]).await;
    run_to(2, dir.path(), &["listen", "--count", "many"]).await;
    run_to(2, dir.path(), &["listen", "--network", "mars"]).await;
    let zero = "0";
    for args in [
        ["demo", "--messages", "-1", "--json"],
        ["peers", "list", "--limit", "many"],
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
        assert!(error.contains("range 1 to "), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn peers_nobody_can_be_are_refused() {
    let dir = TempDir::new().unwrap();
    let (zeros, key) = ("0".repeat(64), secret(9).public_key());
    let dead = format!("{key}::/ip4/127.0.0.1/tcp/0");
    for args in [
        &["discover", &zeros][..],
        &["ping", &zeros],
        &["send", "--text", "x", "--to", &zeros],
    ] {
        let (_, error) = run_to(2, dir.path(), args).await;
        assert!(error.contains("key of nobody"), "{args:?}: {error}");
    }
    for args in [
        &["ping", &dead][..],
        &["send", "--text", "x", "--to", &dead],
        &["peers", "add", &dead],
        &["run", "--seed", &dead],
        &["probe", "--seed", &dead],
        &["inbox", "fetch", "--peer", &dead],
    ] {
        let (_, error) = run_to(2, dir.path(), args).await;
        assert!(error.contains("port 0"), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn mistyped_commands_are_told() {
    for (words, meant) in [
        (&["conf"][..], "config"),
        (&["key"], "id"),
        (&["start"], "run"),
        (&["bans", "remove"], "lift"),
        (&["peers", "ls"], "list"),
    ] {
        let output = within(Command::new(BINARY).args(words).output()).await;
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        let tip = format!("a similar subcommand exists: '{meant}'");
        assert!(error.contains(&tip), "{error}");
    }
}

/// Every row of the table of exit codes in the README, and no other code in the help.
#[cfg(unix)]
#[tokio::test]
async fn documented_exit_codes_are_returned() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (_, table) = readme.split_once("| Exit code | Means |").unwrap();
    let rows = table.lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let codes: Vec<i32> = rows
        .map(|row| row.split('|').nth(1).unwrap().trim().parse().unwrap())
        .collect();

    let help = within(Command::new(BINARY).arg("--help").output()).await;
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let (_, listed) = help.split_once("Exit codes: ").unwrap();
    let numbers = listed.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<i32> = numbers.filter_map(|digits| digits.parse().ok()).collect();
    assert_eq!(numbers, codes);

    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let taken = format!("/ip4/127.0.0.1/tcp/{port}");
    let hanging = format!("{}::{taken}", secret(9).public_key());
    let closed = format!("{}::/ip4/127.0.0.1/tcp/1", secret(9).public_key());
    for code in codes {
        let dir = TempDir::new().unwrap();
        let cases: &[&[&str]] = match code {
            0 => &[&["init"], &["config"]],
            1 => &[&["init"], &["status"]],
            2 => &[&["--nonsense"], &["peers", "list", "--limit", "0"]],
            3 => &[&["config"], &["init"], &["id"]],
            4 => &[&["run"], &["status"]],
            5 => &[&["init"], &["run", "--listen", &taken]],
            6 => &[&["send", "--text", "x", "--to", &closed]],
            130 => &[&["send", "--text", "x", "--to", &hanging]],
            code => panic!("no case for the exit code {code}"),
        };
        if code == 3 {
            std::fs::write(dir.path().join("config.toml"), "memory_mib = 0").unwrap();
        }
        for args in cases {
            // Preparation of a home for the case.
            if *args == ["init"] && !matches!(code, 0 | 3) {
                run_to(0, dir.path(), args).await;
                continue;
            }
            let mut child = command(dir.path(), args).spawn().unwrap();
            // Open until the command has ended.
            let _socket = if code == 130 {
                let silent = silent.try_clone().unwrap();
                let accepting = tokio::task::spawn_blocking(move || silent.accept());
                let socket = within(accepting).await.unwrap().unwrap();
                signal(&child, "-INT").await;
                Some(socket)
            } else {
                None
            };
            let status = within(child.wait()).await.unwrap();
            assert_eq!(status.code(), Some(code), "{args:?}");
        }
    }
}

#[tokio::test]
async fn missing_commands_show_the_help() {
    for args in [&[][..], &["peers"]] {
        let output = within(Command::new(BINARY).args(args).output()).await;
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("error: a command is missing"), "{error}");
        assert!(error.contains("Usage: dht-node"), "{error}");
    }
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
