//! Whole runs: the same seed gives the same run, another seed another one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use dht_sim::scenario::{Outcome, SCENARIOS, Settings};

fn play(name: &str, nodes: usize, seed: u64) -> Outcome {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let settings = Settings {
        nodes: Some(nodes),
        seed,
        short: true,
        ..Settings::default()
    };
    scenario.unwrap().run(settings).unwrap()
}

/// Mail arrives whether or not the nodes have found enough others.
#[test]
fn restarts_and_cuts_lose_no_mail() {
    for name in ["churn", "heal"] {
        let outcome = play(name, 8, 3);
        let mail = outcome
            .checks
            .iter()
            .filter(|check| check.what.contains("messages lost"));
        let held: Vec<_> = mail.map(|check| check.held).collect();
        assert!(
            !held.is_empty() && held.iter().all(|held| *held),
            "{outcome}"
        );
    }
}

#[test]
fn a_seed_determines_the_run() {
    let first = play("messages", 8, 7);
    // Heal needs this many nodes for receipts that are due from one peer while its connection ends.
    for (name, nodes) in [("messages", 8), ("converge", 8), ("churn", 8), ("heal", 12)] {
        let [first, again] = [play(name, nodes, 7), play(name, nodes, 7)];
        assert!(first.held, "{first}");
        assert_eq!((first.events, &first.digest), (again.events, &again.digest));
        assert_eq!(first.numbers, again.numbers);
    }
    let other = play("messages", 8, 8);
    assert!(other.held, "{other}");
    assert_ne!(first.digest, other.digest);
}

#[test]
fn too_few_nodes_are_refused() {
    let dead = SCENARIOS.iter().find(|scenario| scenario.name == "dead");
    let settings = Settings {
        nodes: Some(10),
        ..Settings::default()
    };
    let refused = dead.unwrap().run(settings).unwrap_err().to_string();
    assert_eq!(refused, "dead is played with 20 nodes or more, not with 10");
}
