//! Logs and metrics that an operator sees.

use std::collections::BTreeMap;

use dht_core::{Signing, test_util::NOW};
use dht_inbound::{FloodMeter, InboundConfig, describe_metrics};
use dht_peers::policy::{AttributionProfile, BanPolicy, BanTerms};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::stack::{DELIVERER, Draft, ME, Node, OTHER, key};

#[test]
fn each_message_counts_under_its_outcome() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let node = Node::new(InboundConfig::default());
            let frame = Draft::clear(Signing::Origin).frame();
            for _ in 0..3 {
                node.receive(frame.clone()).await;
            }
            node.receive(Draft::encrypted(ME).frame()).await;
            node.receive(Draft::encrypted(OTHER).frame()).await;
            node.receive(Draft::encrypted(DELIVERER).frame()).await;
            node.receive(bytes::Bytes::new()).await;
        });
    });
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let DebugValue::Counter(count) = value
            && count > 0
        {
            let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
            all.entry(key.key().name().to_owned())
                .or_default()
                .insert(labels.join(" "), count);
        }
    }
    let expected = [
        ("delivered", 2),
        ("duplicate", 2),
        ("empty", 1),
        ("forwarded", 1),
        ("not_for_us", 1),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(outcome, n)| (outcome.to_owned(), n))
        .collect();
    assert_eq!(all["dht_inbound_messages_total"], expected);
    assert_eq!(all["dht_inbound_exact_copies_total"][""], 2);
    // The deliverer of a message to itself is not banned.
    assert!(!all.contains_key("dht_peers_bans_total"));
    assert_eq!(all["dht_inbound_sent_total"]["forward sent"], 1);
    assert!(all["dht_inbound_bytes_total"][""] > 3 * 6_000);
}

#[tokio::test]
async fn flood_is_reported_not_banned() {
    let node = Node::new(InboundConfig::default());
    for _ in 0..1_001 {
        node.receive(bytes::Bytes::from_static(b"junk")).await;
    }
    let meter: &FloodMeter = &node.meter;
    let flooders = meter.exceeding(NOW);
    assert_eq!(flooders.len(), 1, "junk counts");
    assert_eq!(flooders[0].node_id, key(DELIVERER).node_id());
    let (directory, clock) = (node.directory.clone(), node.clock.clone());
    let strict = AttributionProfile::Strict;
    let policy = BanPolicy::new(strict, BanTerms::default(), directory, clock);
    assert_eq!(meter.report(&policy, NOW), 1);
    assert!(node.bans().is_empty());
}
