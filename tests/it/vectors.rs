//! The golden vectors of the checkout, and what the runner makes of others.

use std::fs;
use std::path::Path;

use dht_tests::vectors::check_directory;
use serde_json::{Value, json};

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

fn checkout(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/dht-core/tests/vectors");
    let text = fs::read(directory.join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Outcome of a file with these cases.
fn check(name: &str, cases: Vec<Value>) -> (usize, usize, String) {
    let directory = tempfile::tempdir().unwrap();
    let text = serde_json::to_vec(&json!({ "about": "a test", "cases": cases })).unwrap();
    fs::write(directory.path().join(name), text).unwrap();
    let report = check_directory(directory.path()).unwrap();
    (report.passed(), report.failed(), report.to_string())
}

/// Every case of the checkout without one of its fields, for every field: either the field is one that cases of this
/// shape may lack, or the case fails. No case passes because what was to be compared is not there.
#[test]
fn case_without_a_field_fails() {
    /// Fields that say again what others say, or that only people read.
    const OPTIONAL: [(&str, &[&str]); 8] = [
        ("challenge_hashes", &["body"]),
        (
            "envelopes_invalid",
            &[
                "name",
                "masked_sender_public",
                "secret_nonce",
                "ephemeral_secret",
            ],
        ),
        ("identity_messages", &["name"]),
        // Only what is to be signed again has a nonce, and not all of that has a challenge.
        ("identity_signatures", &["name", "reason", "challenge"]),
        ("keys", &["name"]),
        ("message_signatures", &["name"]),
        ("multiaddr", &["bytes", "display"]),
        ("padding", &["name", "unpadded_len"]),
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/dht-core/tests/vectors");
    let mut removed = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.trim_end_matches(".json");
        let optional = OPTIONAL.iter().find(|(of, _)| *of == stem);
        let optional = optional.map_or(&[][..], |(_, fields)| *fields);
        let file = checkout(&name);
        let mut shapes = std::collections::BTreeSet::new();
        let mut lacking = Vec::new();
        for case in file["cases"].as_array().unwrap() {
            let case = case.as_object().unwrap();
            // Two of a shape say no more than one, save where they are judged differently.
            let verdicts = ["valid", "accepted", "decodes", "parses", "kind"];
            let verdict = verdicts.map(|field| case.get(field).map(Value::to_string));
            if !shapes.insert((case.keys().cloned().collect::<Vec<_>>(), verdict)) {
                continue;
            }
            for field in case.keys() {
                if !optional.contains(&field.as_str()) {
                    let mut without = case.clone();
                    without.remove(field);
                    lacking.push(Value::Object(without));
                }
            }
        }
        removed += lacking.len();
        let (passed, _, report) = check(&name, lacking);
        assert_eq!(passed, 0, "{report}");
    }
    assert!(removed > 100, "only {removed}");
}

#[test]
fn files_are_recognised_by_name() {
    let cases = || {
        checkout("node_ids.json")["cases"]
            .as_array()
            .unwrap()
            .clone()
    };
    let count = cases().len();
    for name in [
        "node_ids.json",
        "more-node_ids.json",
        "node_ids_2.json",
        "hidden.node_ids.v3.json",
    ] {
        let (passed, failed, report) = check(name, cases());
        assert_eq!((passed, failed), (count, 0), "{report}");
    }
    for name in ["nodeids.json", "node_idsx.json", "ids.json"] {
        let (passed, failed, report) = check(name, cases());
        assert_eq!((passed, failed), (0, 1), "{report}");
    }
}

#[test]
fn unknown_kind_always_fails() {
    for name in [
        "hashing.json",
        "padding.json",
        "multiaddr.json",
        "message_signatures.json",
    ] {
        let cases = checkout(name)["cases"].as_array().unwrap().clone();
        let with_kind = |mut case: Value| {
            case["kind"] = json!("sonnet");
            case
        };
        let (passed, _, report) = check(name, cases.into_iter().map(with_kind).collect());
        assert_eq!(passed, 0, "{report}");
    }
}

#[test]
fn large_numbers_take_no_memory() {
    let huge = u64::MAX;
    let cases = [
        (
            "padding.json",
            json!({"encoded_body_len": huge, "pad_bytes": 0, "padded_len": 0, "wire_body_len": 0}),
        ),
        (
            "padding.json",
            json!({"name": "", "padded_len": huge, "length_prefix": 0, "accepted": true}),
        ),
        (
            "dedup_hashes.json",
            json!({"message_signature": "", "body_len": huge, "body_seed": 0, "hash": ""}),
        ),
        (
            "distances.json",
            json!({"kind": "closest", "target": "", "node_ids": [], "sorted": [], "closest": [], "k": huge}),
        ),
        ("keys.json", json!("no object")),
        ("keys.json", json!(null)),
    ];
    for (name, case) in cases {
        let (passed, failed, report) = check(name, vec![case]);
        assert_eq!((passed, failed), (0, 1), "{report}");
    }
}

#[test]
fn unknown_files_and_wrong_values_fail() {
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
