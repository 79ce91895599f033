//! `demo`.

use tokio::process::Command;

use super::{BINARY, within};

#[tokio::test]
async fn demo_loses_nothing() {
    for seed in ["1", "2"] {
        let output = Command::new(BINARY)
            .args(["demo", "--json", "--nodes", "8"])
            .args(["--messages", "100", "--seed", seed])
            .output();
        let output = within(output).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        // Nodes that find each other dial each other at the same time, and the seed ends, which is no fault.
        let said = String::from_utf8(output.stderr).unwrap();
        for fault in ["two processes", "not reached"] {
            assert!(!said.contains(fault), "{said}");
        }
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
