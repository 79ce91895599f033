use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};

use super::*;

const ROOM: Room = Room {
    requests: 16,
    bytes: 1_600,
};

fn admission() -> PriorityAdmission {
    PriorityAdmission::new(ROOM, &[0.75, 0.5, 0.25], 1_000)
}

const fn ask(level: usize, cause: usize, bytes: usize) -> RoomAsk {
    RoomAsk {
        level,
        cause,
        requester: None,
        bytes,
    }
}

const fn for_requester(requester: u8, bytes: usize) -> RoomAsk {
    RoomAsk {
        requester: Some([requester; 32]),
        ..ask(0, 0, bytes)
    }
}

#[test]
fn levels_fill_their_part() {
    let admission = PriorityAdmission::new(ROOM, &[1.0], 0);
    let mut held = Vec::new();
    for (level, requests) in [(3, 8), (2, 12), (1, 14), (0, 16)] {
        while let Some(place) = admission.try_acquire(ask(level, 0, 1)) {
            held.push(place);
        }
        assert_eq!(admission.held().requests, requests);
    }
    drop(held);
    assert_eq!(admission.held(), Room::default());
}

#[test]
fn a_cause_keeps_to_its_share() {
    let admission = admission();
    let fill = |cause| {
        let places: Vec<_> = (0..99)
            .map_while(|_| admission.try_acquire(ask(0, cause, 1)))
            .collect();
        places
    };
    let (second, third) = (fill(1), fill(2));
    assert_eq!((second.len(), third.len()), (8, 4));
    assert_eq!(fill(0).len(), 4);
}

/// Of 64 places for the cause, an eighth is for each requester; what is given back can be had again.
#[test]
fn a_requester_keeps_to_its_share() {
    let room = Room {
        requests: 64,
        bytes: 6_400,
    };
    let admission = PriorityAdmission::new(room, &[1.0, 1.0], 0);
    let fill = |requester| {
        let places = (0..99).map_while(|_| admission.try_acquire(for_requester(requester, 1)));
        places.collect::<Vec<_>>()
    };
    let first = fill(1);
    assert_eq!((first.len(), fill(2).len()), (8, 8));
    let other_cause = RoomAsk {
        cause: 1,
        ..for_requester(1, 1)
    };
    assert!(admission.try_acquire(other_cause).is_some());
    assert!(
        admission.try_acquire(ask(0, 0, 1)).is_some(),
        "of its own accord"
    );
    drop(first);
    assert!(admission.0.state.lock().by_requester.is_empty());
    // One request of any length, and then none.
    let large = admission.try_acquire(for_requester(1, 5_000)).unwrap();
    assert!(admission.try_acquire(for_requester(1, 1)).is_none());
    assert!(admission.try_acquire(for_requester(2, 800)).is_some());
    drop(large);
}

#[test]
fn a_large_request_may_be_alone() {
    let admission = admission();
    let large = admission.try_acquire(ask(3, 1, 9_999)).unwrap();
    assert!(admission.try_acquire(ask(0, 0, 1)).is_none());
    drop(large);
    assert!(admission.try_acquire(ask(0, 0, 1)).is_some());
}

#[test]
fn callers_of_cause_wait_in_order() {
    let admission = admission();
    let mut held: Vec<_> = (0..12)
        .filter_map(|_| admission.try_acquire(ask(1, 0, 1)))
        .collect();
    assert_eq!(held.len(), 12);
    let mut first = task::spawn(admission.acquire(ask(1, 0, 1)));
    let mut second = task::spawn(admission.acquire(ask(0, 0, 1)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    // Thirty more change nothing for another cause.
    let mut more: Vec<_> = (0..30)
        .map(|_| task::spawn(admission.acquire(ask(1, 0, 1))))
        .collect();
    for waiting in &mut more {
        assert_pending!(waiting.poll());
    }
    let control = admission.try_acquire(ask(0, 2, 1));
    assert!(control.is_some());
    held.pop();
    assert!(
        admission.try_acquire(ask(0, 0, 1)).is_none(),
        "no overtaking"
    );
    let place = assert_ready!(first.poll());
    assert_pending!(second.poll());
    drop(place);
    assert_ready!(second.poll()).unwrap();
}

#[test]
fn caller_that_gives_up_holds_nothing() {
    let admission = PriorityAdmission::new(ROOM, &[1.0], 1);
    let held: Vec<_> = (0..16)
        .filter_map(|_| admission.try_acquire(ask(0, 0, 1)))
        .collect();
    let mut first = task::spawn(admission.acquire(ask(0, 0, 1)));
    assert_pending!(first.poll());
    let refused = task::spawn(admission.acquire(ask(0, 0, 1))).poll();
    assert!(matches!(
        refused,
        std::task::Poll::Ready(Err(NoPlace::Full))
    ));
    drop(first);
    let mut second = task::spawn(admission.acquire(ask(0, 0, 1)));
    assert_pending!(second.poll());
    drop(held);
    // Granted, but nobody takes it.
    drop(second);
    assert_eq!(admission.held(), Room::default());
}

#[test]
fn closing_ends_the_waiting() {
    let admission = PriorityAdmission::new(ROOM, &[1.0], 10);
    let held: Vec<_> = (0..16)
        .filter_map(|_| admission.try_acquire(ask(0, 0, 1)))
        .collect();
    let mut waiting = task::spawn(admission.acquire(ask(0, 0, 1)));
    assert_pending!(waiting.poll());
    admission.close();
    assert_eq!(assert_ready!(waiting.poll()).err(), Some(NoPlace::Closed));
    drop(held);
    assert!(admission.try_acquire(ask(0, 0, 1)).is_none() && admission.is_closed());
}

#[derive(Clone, Debug)]
enum Step {
    Try(RoomAsk),
    Wait(RoomAsk),
    GiveUp(usize),
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asks = || {
        (0..LEVELS, 0_usize..3, 0_usize..300)
            .prop_map(|(level, cause, bytes)| ask(level, cause, bytes))
    };
    proptest::collection::vec(
        prop_oneof![
            asks().prop_map(Step::Try),
            asks().prop_map(Step::Wait),
            any::<usize>().prop_map(Step::GiveUp),
            any::<usize>().prop_map(Step::Release),
        ],
        0..120,
    )
}

proptest! {
    #[test]
    fn bounds_hold_and_nobody_starves(steps in steps()) {
        let admission = admission();
        let mut held: Vec<Place> = Vec::new();
        let mut waiting = VecDeque::new();
        for step in steps {
            match step {
                Step::Try(ask) => held.extend(admission.try_acquire(ask)),
                Step::Wait(ask) => {
                    let caller = admission.clone();
                    waiting.push_back((ask, task::spawn(async move { caller.acquire(ask).await })));
                }
                Step::GiveUp(n) if !waiting.is_empty() => { waiting.remove(n % waiting.len()); }
                Step::Release(n) if !held.is_empty() => { held.swap_remove(n % held.len()); }
                _ => {}
            }
            // In the order in which they came, for each cause.
            let mut behind = [false; 3];
            waiting.retain_mut(|(ask, caller)| match caller.poll() {
                std::task::Poll::Ready(place) => {
                    assert!(!behind[ask.cause], "overtaken");
                    held.push(place.unwrap());
                    false
                }
                std::task::Poll::Pending => { behind[ask.cause] = true; true }
            });
            let sum = |cause: Option<usize>| {
                let of = held.iter().filter(|place| cause.is_none_or(|cause| place.ask.cause == cause));
                of.fold(Room::default(), |sum, place| Room {
                    requests: sum.requests + 1,
                    bytes: sum.bytes + place.ask.bytes,
                })
            };
            let all = sum(None);
            prop_assert_eq!(admission.held(), all);
            prop_assert!(all.requests <= ROOM.requests && (all.bytes <= ROOM.bytes || all.requests == 1));
            for (cause, share) in [12, 8, 4].into_iter().enumerate() {
                let room = sum(Some(cause));
                prop_assert!(room.requests <= share && (room.bytes <= share * 100 || room.requests == 1));
            }
        }
        // Whoever still waits is served once the others have left.
        while !waiting.is_empty() {
            held.clear();
            let before = waiting.len();
            waiting.retain_mut(|(_, caller)| match caller.poll() {
                std::task::Poll::Ready(place) => { held.push(place.unwrap()); false }
                std::task::Poll::Pending => true,
            });
            prop_assert!(waiting.len() < before, "nobody is served");
        }
        held.clear();
        prop_assert_eq!(admission.held(), Room::default());
    }
}
