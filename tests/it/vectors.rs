//! The golden vectors of the checkout, and what the runner makes of others.

use std::fs;
use std::path::Path;

use dht_tests::vectors::check_directory;

#[test]
fn every_vector_of_the_checkout_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/dht-core/tests/vectors");
    let report = check_directory(&directory).unwrap();
    assert_eq!(report.failed(), 0, "\n{report}");
    assert_eq!(
        report.to_string().lines().count(),
        14 + 1,
        "a file without a line\n{report}"
    );
    assert!(report.passed() > 400, "cases are missing\n{report}");
}

#[test]
fn unknown_files_and_kinds_and_wrong_values_fail() {
    let cases = [
        ("poems.json", r#"{"cases":[{"kind":"sonnet"}]}"#),
        ("keys.json", r#"{"cases":[{"kind":"emoji"}]}"#),
        ("keys.json", r#"{"cases":[]}"#),
        ("keys.json", "not json"),
        (
            "padding.json",
            r#"{"cases":[{"encoded_body_len":0,"pad_bytes":5995,"padded_len":6000,"wire_body_len":6016}]}"#,
        ),
        (
            "multiaddr.json",
            r#"{"cases":[{"text":"/foo/1","parses":true,"bytes":""}]}"#,
        ),
    ];
    for (name, text) in cases {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name), text).unwrap();
        let report = check_directory(directory.path()).unwrap();
        assert_eq!(
            (report.passed(), report.failed()),
            (0, 1),
            "{name}: {text}\n{report}"
        );
    }
}
