//! Arguments, and what the command line prints of itself.

use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use super::{BINARY, run_to, secret, within};

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
