//! Counts a message and its copies, and takes the table over into another one as after a restart.

use dht_core::{DedupHash, UnixSeconds};
use dht_dedup::{DedupMeta, DedupTable};

fn main() {
    let now = UnixSeconds(1_700_000_000);
    let meta = DedupMeta {
        signed: true,
        expires: Some(now.saturating_add(3_600)),
    };
    let message = DedupHash([1; 32]);

    let table = DedupTable::new(50_000, [7; 16]); // a random seed in a node
    let first = table.record(&message, meta, now);
    let second = table.record(&message, meta, now);
    println!("occurrences: {first}, then {second}");
    assert_eq!((first, second), (1, 2));

    let restarted = DedupTable::new(50_000, [8; 16]);
    let restored = restarted.restore(table.snapshot(), now);
    println!("restored: {restored}");
    assert_eq!(restarted.record(&message, meta, now), 3);

    let later = now.saturating_add(4 * 3_600);
    println!(
        "kept after four hours: {}",
        restarted
            .snapshot()
            .iter()
            .filter(|entry| entry.until >= later)
            .count()
    );
}
