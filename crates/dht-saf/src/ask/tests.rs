use dht_core::test_util::public_key;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn id(seed: u64) -> NodeId {
    public_key(seed).node_id()
}

#[test]
fn requests_are_bounded_and_the_oldest_give_way() {
    let mut asking = Asking::new(AskConfig::default());
    let ids: Vec<_> = (0..=MAX_ASKED)
        .map(|n| {
            let mut bytes = [0; 13];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(&bytes).unwrap()
        })
        .collect();
    for (n, peer) in ids.iter().enumerate() {
        asking.register(*peer, 1, NOW.saturating_add(n as u64));
        asking.begin(*peer, NOW);
    }
    assert!(!asking.owes(&ids[0]) && asking.owes(&ids[1]));
    assert_eq!(asking.open.len(), MAX_ASKED);
}

#[test]
fn registering_again_renews_the_time_of_both() {
    let mut asking = Asking::new(AskConfig::default());
    asking.register(id(1), 7, NOW);
    asking.register(id(1), 8, NOW.saturating_add(100));
    assert_eq!(
        asking.take(&id(1), Some(7), NOW.saturating_add(220)),
        Ok(())
    );
    assert_eq!(
        asking.take(&id(1), Some(8), NOW.saturating_add(221)),
        Err(Unasked::TooLate)
    );
    assert_eq!(asking.take(&id(1), Some(8), NOW), Err(Unasked::Unrequested));
}

#[test]
fn old_requests_are_forgotten_after_twice_their_time() {
    let mut asking = Asking::new(AskConfig::default());
    asking.register(id(1), 7, NOW);
    asking.tick(NOW.saturating_add(240));
    assert!(asking.owes(&id(1)));
    asking.tick(NOW.saturating_add(241));
    assert!(!asking.owes(&id(1)));
}

#[test]
fn legacy_takes_any_id() {
    let mut asking = Asking::new(AskConfig {
        profile: AttributionProfile::Legacy,
        ..AskConfig::default()
    });
    asking.register(id(1), 7, NOW);
    assert_eq!(asking.take(&id(1), Some(99), NOW), Ok(()));
    assert!(!asking.owes(&id(1)));
}

#[test]
fn who_goes_on_for_ever_with_nothing_new_is_not_waited_for() {
    let mut asking = Asking::new(AskConfig::default());
    asking.begin(id(1), NOW);
    let page = |n: u64| DedupHash([u8::try_from(n).unwrap(); 32]);
    let new = Brought {
        new: 1,
        ..Brought::default()
    };
    let mut now = NOW;
    for n in 0..20 {
        now = now.saturating_add(29);
        assert!(
            asking.goes_on(&id(1), page(n), new, now),
            "mail comes slowly"
        );
    }
    let known = Brought {
        known: 50,
        ..Brought::default()
    };
    let last = (20..60).find(|n| {
        now = now.saturating_add(29);
        !asking.goes_on(&id(1), page(*n), known, now)
    });
    assert_eq!(last, Some(30), "five minutes of nothing new");
}

#[test]
fn a_slow_application_does_not_make_a_peer_silent() {
    let mut asking = Asking::new(AskConfig::default());
    asking.begin(id(1), NOW);
    asking.handling(&id(1));
    let later = NOW.saturating_add(500);
    assert_eq!(asking.tick(later), None);
    asking.handled(&id(1), later);
    assert_eq!(asking.tick(later.saturating_add(30)), None);
    let silent = asking.tick(later.saturating_add(31));
    assert_eq!(silent.map(|round| round.silent), Some(1));
}
