use std::collections::VecDeque as Queue;

use dht_core::ManualClock;
use dht_core::{Severity, test_util::public_key};
use dht_peers::policy::AttributionProfile;
use proptest::prelude::*;

use super::*;
use crate::test_support as support;
use crate::test_support::bans;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn meter(messages: u32, seconds: u64) -> FloodMeter {
    FloodMeter::new(FloodLimits { messages, seconds }, [0; 16])
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes(&[n; 13]).unwrap()
}

#[test]
fn b022_dp47_a_hundred_arrivals_are_a_hundred() {
    let meter = meter(1_000, 60);
    for _ in 0..100 {
        meter.record(&id(1), NOW);
    }
    assert_eq!(meter.count(&id(1), NOW), 100);
    assert_eq!(meter.count(&id(2), NOW), 0);
    assert_eq!(meter.total(NOW), 100);
}

#[test]
fn b023_dp47_cleared_is_zero() {
    let meter = meter(1_000, 60);
    meter.record(&id(1), NOW);
    meter.clear(&id(1));
    assert_eq!(meter.count(&id(1), NOW), 0);
    assert!(meter.is_empty());
}

#[test]
fn b024_reported_from_first_message_over_limit() {
    let meter = meter(1_000, 60);
    for _ in 0..1_000 {
        meter.record(&id(1), NOW);
    }
    assert_eq!(meter.exceeding(NOW), []);
    meter.record(&id(1), NOW);
    assert_eq!(meter.exceeding(NOW).len(), 1);
    let later = NOW.saturating_add(10);
    for _ in 0..500 {
        meter.record(&id(1), later);
    }
    let flooders = meter.exceeding(later);
    assert_eq!(flooders.len(), 1);
    assert_eq!(
        (flooders[0].messages, flooders[0].per_second),
        (1_501, 150.1)
    );
    // All of them are over at last.
    assert_eq!(meter.exceeding(NOW.saturating_add(71)), []);
}

#[test]
fn b025_first_sample_allocates_no_full_window() {
    let meter = meter(1_000, 60);
    for n in 0..8 {
        meter.record(&id(n), NOW);
    }
    let buckets = |meter: &FloodMeter| -> usize {
        let of_shard = |(_, window): (&NodeId, &Window)| window.buckets.capacity();
        let shards = meter.0.peers.shards();
        shards
            .map(|shard| shard.iter().map(of_shard).sum::<usize>())
            .sum()
    };
    assert!(buckets(&meter) <= 8 * 4, "a few buckets each");
    // However much a peer sends, it is a window at most.
    for n in 0..100_000_u64 {
        meter.record(&id(1), NOW.saturating_add(n / 100));
    }
    assert!(buckets(&meter) <= 8 * 4 + 128);
}

/// Idle peers are kept as long as the timespan.
#[test]
fn b026_idle_peers_are_kept_a_timespan() {
    let meter = meter(1_000, 2 * 60 * 60);
    meter.record(&id(1), NOW);
    assert_eq!(meter.prune(NOW.saturating_add(75 * 60)), 0);
    assert_eq!(meter.len(), 1);
    assert_eq!(meter.prune(NOW.saturating_add(2 * 60 * 60 + 1)), 1);
    assert_eq!(meter.len(), 0);

    // And at least an hour.
    let meter = self::meter(1_000, 60);
    meter.record(&id(1), NOW);
    assert_eq!(meter.prune(NOW.saturating_add(60 * 60)), 0);
    assert_eq!(meter.prune(NOW.saturating_add(60 * 60 + 1)), 1);
}

#[test]
fn strangers_are_bounded() {
    let meter = meter(1_000, 60);
    for n in 0..20_000_u64 {
        let mut bytes = [0; 13];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        meter.record(
            &NodeId::from_bytes(&bytes).unwrap(),
            NOW.saturating_add(n / 1_000),
        );
    }
    assert!(meter.len() <= MAX_METERED_PEERS);
}

/// A clock near zero or set back is no problem.
#[test]
fn clock_near_zero_or_set_back() {
    let meter = meter(1_000, 60);
    meter.record(&id(1), UnixSeconds(3));
    assert_eq!(meter.count(&id(1), UnixSeconds(3)), 1);
    meter.record(&id(1), UnixSeconds(1));
    assert_eq!(meter.count(&id(1), UnixSeconds(3)), 2);
    meter.record(&id(1), UnixSeconds(u64::MAX));
    assert_eq!(meter.count(&id(1), UnixSeconds(u64::MAX)), 1);
}

#[test]
fn a_clock_set_back_accuses_nobody() {
    let meter = meter(100, 60);
    let ahead = NOW.saturating_add(3_600);
    meter.record(&id(1), ahead);
    // One a second is within the limit, whatever the clock was before.
    for second in 0..3_000 {
        let now = NOW.saturating_add(second);
        meter.record(&id(1), now);
        assert!(meter.exceeding(now).is_empty(), "after {second} seconds");
    }
    assert_eq!(meter.count(&id(1), NOW.saturating_add(2_999)), 61);
    assert_eq!(meter.total(NOW.saturating_add(2_999)), 61);
}

#[test]
fn every_frame_is_counted_and_passed() {
    let check = Meter {
        meter: meter(1_000, 60),
        clock: Arc::new(ManualClock::new(NOW)),
    };
    let frame = support::received(bytes::Bytes::from_static(b"anything"));
    let source = frame.source.node_id;
    assert_eq!(&check.check(frame).unwrap().frame[..], b"anything");
    assert_eq!(check.meter.count(&source, NOW), 1);
}

proptest! {
    /// Up to a minute the window is exact to the second.
    #[test]
    fn counts_like_a_queue_of_instants(seconds in 1..60_u64, steps in proptest::collection::vec((0..9_u64, 1..5_u8), 0..200)) {
        let meter = meter(10, seconds);
        let mut now = NOW;
        let mut model = Queue::new();
        for (pause, times) in steps {
            now = now.saturating_add(pause);
            for _ in 0..times {
                meter.record(&id(1), now);
                model.push_back(now.0);
            }
            while model.front().is_some_and(|at| *at < now.0 - seconds) {
                model.pop_front();
            }
            prop_assert_eq!(meter.count(&id(1), now), model.len() as u64);
            prop_assert_eq!(meter.total(now), model.len() as u64);
            prop_assert_eq!(meter.exceeding(now).len(), usize::from(model.len() > 10));
        }
    }
}

#[test]
fn floods_are_banned_low() {
    let limits = FloodLimits {
        messages: 2,
        seconds: 60,
    };
    let meter = FloodMeter::new(limits, [0; 16]);
    let (bans, taken) = bans(AttributionProfile::Legacy);
    let (quiet, loud) = (public_key(2).node_id(), public_key(3).node_id());
    for _ in 0..3 {
        meter.record(&loud, NOW);
    }
    meter.record(&quiet, NOW);
    assert_eq!(meter.report(&bans, NOW), 1);
    let banned = taken.take();
    assert_eq!(banned.len(), 1);
    assert_eq!(
        (banned[0].node_id, banned[0].severity),
        (loud, Severity::Low)
    );
    assert_eq!(banned[0].until, NOW.saturating_add(600));
    assert_eq!(meter.report(&bans, NOW.saturating_add(61)), 0);
}
