use dht_core::test_util::public_key;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const CONFIG: TrackerConfig = TrackerConfig {
    match_ids: true,
    answer_seconds: 120,
    patience_seconds: 30,
};

fn request(id: u32) -> Request {
    Request {
        id,
        since: 0,
        limit: 50,
        left: None,
    }
}

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

#[test]
fn the_oldest_pending_request_is_forgotten() {
    let mut tracker = FetchTracker::new(CONFIG);
    let ids: Vec<_> = (0..=MAX_PEERS)
        .map(|n| {
            let mut bytes = [0; 13];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(&bytes).unwrap()
        })
        .collect();
    for (n, peer) in ids.iter().enumerate() {
        tracker.register(*peer, request(1), NOW.saturating_add(n as u64));
        tracker.begin(*peer, NOW);
    }
    assert!(!tracker.is_pending(&ids[0]) && tracker.is_pending(&ids[1]));
    assert_eq!(tracker.fetches.len(), MAX_PEERS);
}

#[test]
fn a_second_request_renews_both() {
    let mut tracker = FetchTracker::new(CONFIG);
    tracker.register(id(1), request(7), NOW);
    tracker.register(id(1), request(8), NOW.saturating_add(100));
    assert_eq!(
        tracker.take(&id(1), Some(7), NOW.saturating_add(220)),
        Ok(Some(request(7)))
    );
    assert_eq!(
        tracker.take(&id(1), Some(8), NOW.saturating_add(221)),
        Err(Unrequested::TooLate)
    );
    assert_eq!(
        tracker.take(&id(1), Some(8), NOW),
        Err(Unrequested::NotPending)
    );
}

#[test]
fn old_requests_are_forgotten() {
    let mut tracker = FetchTracker::new(CONFIG);
    tracker.register(id(1), request(7), NOW);
    tracker.tick(NOW.saturating_add(240));
    assert!(tracker.is_pending(&id(1)));
    tracker.tick(NOW.saturating_add(241));
    assert!(!tracker.is_pending(&id(1)));
}

#[test]
fn legacy_takes_any_id() {
    let mut tracker = FetchTracker::new(TrackerConfig {
        match_ids: false,
        ..CONFIG
    });
    tracker.register(id(1), request(7), NOW);
    assert_eq!(tracker.take(&id(1), Some(99), NOW), Ok(Some(request(7))));
    assert!(!tracker.is_pending(&id(1)));
}

#[test]
fn pages_without_news_end_a_fetch() {
    let mut tracker = FetchTracker::new(CONFIG);
    tracker.begin(id(1), NOW);
    let page = |n: u64| DedupHash([u8::try_from(n).unwrap(); 32]);
    let new = PageCounts {
        new: 1,
        ..PageCounts::default()
    };
    let mut now = NOW;
    for n in 0..20 {
        now = now.saturating_add(29);
        assert!(
            tracker.continues(&id(1), page(n), new, now),
            "messages come slowly"
        );
    }
    let known = PageCounts {
        known: 50,
        ..PageCounts::default()
    };
    let last = (20..60).find(|n| {
        now = now.saturating_add(29);
        !tracker.continues(&id(1), page(*n), known, now)
    });
    assert_eq!(last, Some(30), "five minutes of nothing new");
}

#[test]
fn slow_delivery_is_not_silent_peer() {
    let mut tracker = FetchTracker::new(CONFIG);
    tracker.begin(id(1), NOW);
    tracker.delivering(&id(1));
    let later = NOW.saturating_add(500);
    assert_eq!(tracker.tick(later), None);
    tracker.delivered(&id(1), later);
    assert_eq!(tracker.tick(later.saturating_add(30)), None);
    let silent = tracker.tick(later.saturating_add(31));
    assert_eq!(silent.map(|summary| summary.silent), Some(1));
}

#[test]
fn silent_peers_are_not_awaited_again() {
    let mut tracker = FetchTracker::new(CONFIG);
    let silent = |summary: Option<FetchSummary>| summary.map(|summary| summary.silent);
    tracker.begin(id(1), NOW);
    assert_eq!(silent(tracker.tick(NOW.saturating_add(30))), None);
    assert_eq!(silent(tracker.tick(NOW.saturating_add(31))), Some(1));

    let again = NOW.saturating_add(100);
    tracker.register(id(1), request(7), again);
    tracker.begin(id(1), again);
    assert_eq!(silent(tracker.tick(again.saturating_add(2))), Some(1));

    // Messages that it sends after all are taken, and it is waited for as others are.
    assert_eq!(
        tracker.take(&id(1), Some(7), again.saturating_add(3)),
        Ok(Some(request(7)))
    );
    let later = again.saturating_add(100);
    tracker.begin(id(1), later);
    assert_eq!(silent(tracker.tick(later.saturating_add(30))), None);
}

/// A message of a peer that was given up is no end of its rows.
#[test]
fn late_peers_are_asked_on() {
    let mut tracker = FetchTracker::new(CONFIG);
    tracker.register(id(1), request(7), NOW);
    tracker.begin(id(1), NOW);
    let late = NOW.saturating_add(CONFIG.patience_seconds + 1);
    assert!(tracker.tick(late).is_some());
    assert_eq!(tracker.take(&id(1), Some(7), late), Ok(Some(request(7))));
    let (page, counts) = (DedupHash([1; 32]), PageCounts::default());
    assert!(tracker.continues(&id(1), page, counts, late));
    assert!(
        !tracker.continues(&id(1), page, counts, late),
        "the same page again"
    );
}
