//! Processes killed for real. `cargo xtask crash` and `cargo xtask crash --chain` are the long versions.

use std::process::Command;

#[test]
fn killed_writer_loses_nothing_acknowledged() {
    let output = Command::new(env!("CARGO_BIN_EXE_crash"))
        .args(["--rounds", "3", "--records", "2000", "--seed", "4"])
        // How long opening takes is the machine's business here.
        .args(["--max-open-ms", "0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let last = text.lines().last().unwrap();
    let counted = last
        .strip_prefix("acknowledged ")
        .and_then(|rest| rest.strip_suffix(", lost 0, inconsistent 0"))
        .unwrap_or_else(|| panic!("{text}"));
    // The rows of the start, and what the three writers got to.
    assert!(counted.parse::<u64>().unwrap() > 2_000, "{text}");
}

#[test]
fn killed_nodes_lose_nothing_acknowledged() {
    let output = Command::new(env!("CARGO_BIN_EXE_crash"))
        .args(["--chain", "--rounds", "3", "--seed", "4"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let last = text.lines().last().unwrap();
    let counted = last
        .strip_prefix("acknowledged ")
        .and_then(|rest| rest.strip_suffix(", lost 0, twice 0"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(counted.parse::<u64>().unwrap() >= 30, "{text}");
}
