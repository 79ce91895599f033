use bytes::Bytes;
use dht_core::{Entropy as _, PublicKey, SecretKey, SeededEntropy};
use dht_spool::{EntryOptions, StateKind};
use proptest::prelude::*;

use super::{
    attempt::{RECEIPT_WAIT, ROOM_WAIT},
    *,
};

const WANTED: usize = 3;
const TTL: u64 = 3 * 24 * 60 * 60;

fn key(seed: u64) -> PublicKey {
    SecretKey::random(&mut SeededEntropy::new(seed).rng()).public_key()
}

fn id(seed: u8) -> NodeId {
    NodeId::from_bytes(&[seed; 13]).unwrap()
}

const fn at(seconds: u64) -> Now {
    Now {
        at: Duration::from_secs(seconds),
        unix: UnixSeconds(1_000 + seconds),
    }
}

fn sending(options: EntryOptions) -> Sending {
    Sending::new(&entry(options), &id(9), WANTED, at(0))
}

fn entry(options: EntryOptions) -> Entry {
    Entry {
        id: 1,
        key: None,
        recipient: key(1),
        message_type: 7,
        payload_bytes: Bytes::new().len() as u64,
        options,
        created_at: at(0).unix,
        expires_at: at(0).unix.saturating_add(TTL),
        state: SendState::Queued,
        attempts: 0,
        next_attempt: Some(at(0).unix),
        last_error: None,
        ended_at: None,
    }
}

fn start(sending: &mut Sending) {
    let actions = sending.handle(SendingEvent::Start { connected: true }, at(0));
    assert_eq!(actions, [SendingAction::SendDirect(Duration::ZERO)]);
}

fn written(receipts: bool) -> SendingEvent {
    SendingEvent::Direct(match receipts {
        true => CopyOutcome::Written,
        false => CopyOutcome::Unconfirmed(1),
    })
}

#[test]
fn receipt_ends_a_message() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let recipient = *sending.recipient();
    let actions = sending.handle(written(true), at(0));
    assert_eq!(actions, [SendingAction::Ask(recipient, Duration::ZERO)]);
    assert_eq!(sending.state(), &SendState::Sent);
    let actions = sending.handle(SendingEvent::Receipt(recipient, Answer::Received), at(1));
    assert_eq!(actions, [SendingAction::Persist(Transition::Received)]);
    assert!(sending.is_ended());
}

#[test]
fn silence_sends_copies_to_holders() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(written(true), at(0));
    assert_eq!(sending.handle(SendingEvent::Tick, at(4)), []);
    let actions = sending.handle(SendingEvent::Tick, at(5));
    let copies = SendingAction::SendToHolders {
        most: WANTED,
        except: vec![],
    };
    assert_eq!(actions, [copies, SendingAction::Search]);
    sending.handle(SendingEvent::Chosen(vec![id(2)]), at(5));
    let holder = SendingEvent::Holder(id(2), CopyOutcome::Written);
    assert_eq!(
        sending.handle(holder, at(5)),
        [SendingAction::Ask(id(2), Duration::ZERO)]
    );
    let actions = sending.handle(SendingEvent::Receipt(id(2), Answer::Stored), at(6));
    assert!(matches!(
        actions.front(),
        Some(SendingAction::Persist(Transition::Stored {
            holders: 1,
            retry_at: Some(_)
        }))
    ));
    // A late receipt of the recipient still counts.
    let recipient = *sending.recipient();
    sending.handle(SendingEvent::Receipt(recipient, Answer::Received), at(7));
    assert_eq!(sending.state(), &SendState::Received);
}

/// A holder that does not store the message, or does not answer, makes room for the next one at once.
#[test]
fn refusing_holders_are_replaced() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(
        SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
        at(0),
    );
    sending.handle(SendingEvent::Chosen(vec![id(2), id(3), id(4)]), at(0));
    for holder in 2..5 {
        let copy = SendingEvent::Holder(id(holder), CopyOutcome::Written);
        sending.handle(copy, at(0));
    }
    assert!(!sending.is_writing());
    let next = |except: &[u8]| SendingAction::SendToHolders {
        most: 1,
        except: except.iter().copied().map(id).collect(),
    };
    let refused = SendingEvent::Receipt(id(3), Answer::Neither);
    assert_eq!(sending.handle(refused, at(1)), [next(&[2, 3, 4])]);
    assert!(sending.is_writing());
    // The first is written down at once, how many they are at the end of the attempt.
    let stored = |holder| SendingEvent::Receipt(id(holder), Answer::Stored);
    let confirmed = SendingAction::Persist(Transition::Confirmed { holders: 1 });
    assert_eq!(sending.handle(stored(2), at(1)), [confirmed]);
    assert_eq!(sending.handle(stored(4), at(1)), []);
    assert!(sending.is_trying());
    sending.handle(SendingEvent::Chosen(vec![id(5)]), at(1));
    let silent = SendingEvent::Receipt(id(5), Answer::Silent);
    assert_eq!(sending.handle(silent, at(2)), [next(&[2, 3, 4, 5])]);
    sending.handle(SendingEvent::Chosen(vec![id(6)]), at(2));
    assert!(!sending.can_be_withdrawn(), "two holders deliver it");
    let actions = sending.handle(SendingEvent::Receipt(id(6), Answer::Stored), at(2));
    let (holders, retry_at) = (3, None);
    assert_eq!(
        actions,
        [SendingAction::Persist(Transition::Stored {
            holders,
            retry_at
        })]
    );
    assert!(sending.is_complete());
    // Its holders deliver it when the recipient is back; nothing but its receipt counts.
    sending.handle(SendingEvent::Appeared { recipient: true }, at(60));
    assert_eq!(sending.deadline(), None);
    let stored = SendingEvent::Receipt(id(7), Answer::Stored);
    assert_eq!(sending.handle_late(stored, at(60)), []);
    let recipient = *sending.recipient();
    let actions = sending.handle(SendingEvent::Receipt(recipient, Answer::Received), at(61));
    assert_eq!(actions, [SendingAction::Persist(Transition::Received)]);
}

#[test]
fn direct_only_never_goes_to_holders() {
    let mut sending = sending(EntryOptions {
        direct_only: true,
        ..EntryOptions::default()
    });
    start(&mut sending);
    let failed = SendingEvent::Direct(CopyOutcome::Failed("refused".into()));
    let actions = sending.handle(failed, at(0));
    assert!(
        matches!(actions.front(), Some(SendingAction::Persist(Transition::Retry { error, .. })) if error.as_deref() == Some("refused"))
    );
    assert_eq!(actions.len(), 1);
}

/// No application of this node takes it in time, which has no text of its own.
#[test]
fn earlier_error_is_not_emptied() {
    let mut entry = entry(EntryOptions::default());
    entry.last_error = Some("of an earlier life".to_owned());
    let mut sending = Sending::new(&entry, &entry.recipient.node_id(), WANTED, at(0));
    sending.handle(SendingEvent::Start { connected: true }, at(0));
    let deadline = sending.deadline().unwrap().as_secs();
    let actions = sending.handle(SendingEvent::Tick, at(deadline));
    assert!(
        matches!(
            actions.front(),
            Some(SendingAction::Persist(Transition::Retry {
                error: None,
                ..
            }))
        ),
        "{actions:?}"
    );
}

/// The recipient does not listen, and after a restart nobody is there to ask for it.
#[test]
fn exact_errors_outlive_vague_ones() {
    let mut first = sending(EntryOptions::default());
    start(&mut first);
    first.handle(
        SendingEvent::Direct(CopyOutcome::Failed("refused".into())),
        at(0),
    );
    let mut entry = entry(EntryOptions::default());
    entry.last_error = first.last_error().map(str::to_owned);
    let mut restarted = Sending::new(&entry, &id(9), WANTED, at(0));
    start(&mut restarted);
    restarted.handle(SendingEvent::Direct(CopyOutcome::Unknown), at(0));
    assert_eq!(restarted.last_error(), None);
    restarted.handle(SendingEvent::Found(Err("not found".into())), at(0));
    assert_eq!(restarted.last_error(), Some("refused"));
    restarted.handle(SendingEvent::Chosen(Vec::new()), at(0));
    assert_eq!(restarted.last_error(), Some("refused"));
}

#[test]
fn stock_peer_lost_early_is_doubted() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let actions = sending.handle(written(false), at(0));
    assert!(matches!(
        actions.front(),
        Some(SendingAction::Persist(Transition::Sent {
            retry_at: Some(_)
        }))
    ));
    sending.handle(SendingEvent::ConnectionEnded, at(10));
    assert_eq!(
        sending.deadline(),
        Some(at(10).at),
        "holders get a copy at once"
    );
    assert!(sending.is_waiting());
    let actions = sending.handle(SendingEvent::Start { connected: true }, at(10));
    let copies = SendingAction::SendToHolders {
        most: WANTED,
        except: vec![],
    };
    assert_eq!(actions, [copies, SendingAction::Search]);
    sending.handle(SendingEvent::Chosen(vec![]), at(10));
    // A peer that hangs up after each copy is dialled at growing intervals, also if it comes back at once.
    assert_eq!(sending.deadline(), Some(at(15).at));
    sending.handle(SendingEvent::Appeared { recipient: true }, at(10));
    assert_eq!(sending.deadline(), Some(at(10).at));
    let actions = sending.handle(SendingEvent::Start { connected: true }, at(15));
    assert_eq!(actions, [SendingAction::SendDirect(Duration::ZERO)]);
    sending.handle(written(false), at(15));
    sending.handle(SendingEvent::ConnectionEnded, at(16));
    start_again(&mut sending, at(16));
    sending.handle(SendingEvent::Chosen(vec![]), at(16));
    assert_eq!(sending.deadline(), Some(at(26).at));
    sending.handle(SendingEvent::Appeared { recipient: true }, at(17));
    assert_eq!(sending.deadline(), Some(at(25).at));
    start_again(&mut sending, at(25));
    // This time it lasts.
    sending.handle(written(false), at(25));
    assert_eq!(
        sending.handle(SendingEvent::Tick, at(55)),
        [SendingAction::Ping(1)]
    );
    let actions = sending.handle(SendingEvent::Answers(true), at(55));
    assert_eq!(
        actions,
        [SendingAction::Persist(Transition::Sent { retry_at: None })]
    );
    assert!(sending.is_complete() && !sending.can_be_withdrawn());
    sending.handle(SendingEvent::ConnectionEnded, at(56));
    sending.handle(SendingEvent::Appeared { recipient: true }, at(57));
    assert_eq!(sending.deadline(), None);
}

/// A socket may die with the copy of a stock peer and tell nothing: after half a minute the peer has to show that it is there.
#[test]
fn silent_stock_peer_is_doubted() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(written(false), at(0));
    assert_eq!(
        sending.handle(SendingEvent::Tick, at(30)),
        [SendingAction::Ping(1)]
    );
    assert!(!sending.is_complete() && sending.deadline() > Some(at(30).at));
    sending.handle(SendingEvent::Answers(false), at(33));
    assert!(sending.is_waiting());
    assert_eq!(sending.deadline(), Some(at(33).at));
    let actions = sending.handle(SendingEvent::Start { connected: true }, at(33));
    let copies = SendingAction::SendToHolders {
        most: WANTED,
        except: vec![],
    };
    assert_eq!(actions, [copies, SendingAction::Search]);
    // An answer that comes too late finds the holders asked.
    assert_eq!(sending.handle(SendingEvent::Answers(true), at(34)), []);
    assert!(sending.is_trying());
}

/// A holder that is asked for a receipt and has nothing does not make the message sent.
#[test]
fn refused_copies_are_not_sent() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(
        SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
        at(0),
    );
    sending.handle(SendingEvent::Chosen(vec![id(2), id(3)]), at(0));
    for (holder, answer) in [(2, Answer::Neither), (3, Answer::Silent)] {
        sending.handle(
            SendingEvent::Holder(id(holder), CopyOutcome::Written),
            at(0),
        );
        sending.handle(SendingEvent::Receipt(id(holder), answer), at(1));
        sending.handle(SendingEvent::Chosen(vec![]), at(1));
        assert_eq!(*sending.state(), SendState::Queued);
    }
}

/// A peer may read a copy and hang up before the sender looks, or the copy died in the socket: it is not called sent.
#[test]
fn copy_before_hang_up_is_doubted() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let actions = sending.handle(SendingEvent::Direct(CopyOutcome::Lost), at(0));
    assert_eq!(*sending.state(), SendState::Queued);
    let copies = SendingAction::SendToHolders {
        most: WANTED,
        except: vec![],
    };
    assert_eq!(actions, [copies, SendingAction::Search]);
    // It may as well have died in the socket: a node that ends waits for the copies of holders.
    assert!(sending.is_busy());
    sending.handle(SendingEvent::Chosen(vec![id(2)]), at(0));
    assert!(sending.is_busy());
    sending.handle(SendingEvent::Holder(id(2), CopyOutcome::Written), at(0));
    assert!(!sending.is_busy());
}

#[test]
fn late_answers_leave_the_attempt_open() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let failed = || SendingEvent::Direct(CopyOutcome::Failed("down".to_owned()));
    sending.handle(failed(), at(0));
    sending.handle(SendingEvent::Chosen(vec![id(2)]), at(0));
    sending.handle(SendingEvent::Tick, at(15));
    sending.handle(SendingEvent::Chosen(vec![]), at(15));
    let first = sending.number();
    start_again(&mut sending, at(20));
    assert_ne!(sending.number(), first);
    sending.handle(failed(), at(20));
    sending.handle(SendingEvent::Chosen(vec![id(3)]), at(20));
    let confirmed = Transition::Confirmed { holders: 1 };
    assert_eq!(
        sending.handle_late(SendingEvent::Receipt(id(2), Answer::Stored), at(21)),
        [SendingAction::Persist(confirmed)]
    );
    assert_eq!(*sending.state(), SendState::Stored { holders: 1 });
    assert!(sending.is_trying(), "the other holder has not answered");
    sending.handle(SendingEvent::Receipt(id(3), Answer::Stored), at(22));
    assert_eq!(*sending.state(), SendState::Stored { holders: 2 });
    assert!(sending.is_waiting());
}

/// After a restart only the number of holders is known: they are asked again, and their answers end the attempts.
#[test]
fn restored_message_finds_its_holders() {
    let mut entry = entry(EntryOptions::default());
    (entry.state, entry.attempts) = (SendState::Stored { holders: 2 }, 1);
    let mut sending = Sending::new(&entry, &id(9), WANTED, at(0));
    start(&mut sending);
    let failed = SendingEvent::Direct(CopyOutcome::Failed("down".to_owned()));
    let actions = sending.handle(failed, at(0));
    let copies = SendingAction::SendToHolders {
        most: WANTED,
        except: vec![],
    };
    assert_eq!(actions, [copies, SendingAction::Search]);
    sending.handle(SendingEvent::Chosen(vec![id(2), id(3), id(4)]), at(0));
    for holder in 2..5 {
        sending.handle(SendingEvent::Receipt(id(holder), Answer::Stored), at(1));
    }
    assert_eq!(*sending.state(), SendState::Stored { holders: 3 });
    assert!(sending.is_complete());
}

fn start_again(sending: &mut Sending, now: Now) {
    sending.handle(SendingEvent::Start { connected: true }, now);
    assert!(sending.is_trying());
}

/// The first copy waits in this node's own queue, longer than its attempt.
#[test]
fn unanswered_copy_is_the_only_one() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    // The recipient bans fast senders: holders are not needed.
    assert_eq!(sending.handle(SendingEvent::Paced, at(10)), []);
    assert_eq!(sending.deadline(), Some(at(20).at));
    // It does not read any more.
    assert_eq!(sending.handle(SendingEvent::Tick, at(20)).len(), 2);
    sending.handle(SendingEvent::Chosen(vec![]), at(20));
    assert!(sending.is_waiting());
    let again = SendingEvent::Start { connected: true };
    assert_eq!(sending.handle(again, at(30)), []);
    // From here on a receipt is waited for.
    let asked = sending.handle(written(true), at(36));
    let recipient = *sending.recipient();
    assert_eq!(asked, [SendingAction::Ask(recipient, Duration::ZERO)]);
    assert_eq!(sending.handle(SendingEvent::Tick, at(40)), []);
    assert_eq!(sending.handle(SendingEvent::Tick, at(41)).len(), 2);
}

/// A search that lasts longer than the attempt keeps no copy from a recipient that connects meanwhile.
#[test]
fn search_delays_no_later_copy() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let unknown = || SendingEvent::Direct(CopyOutcome::Unknown);
    assert_eq!(sending.handle(unknown(), at(0)), [SendingAction::Find]);
    sending.handle(SendingEvent::Tick, at(10));
    sending.handle(SendingEvent::Chosen(vec![]), at(10));
    sending.handle(SendingEvent::Appeared { recipient: true }, at(11));
    assert_eq!(sending.deadline(), Some(at(11).at));
    let again = SendingEvent::Start { connected: true };
    let copy = [SendingAction::SendDirect(Duration::ZERO)];
    assert_eq!(sending.handle(again, at(11)), copy);
    // One that is found in time gets its copy in the same attempt.
    sending.handle(unknown(), at(11));
    assert_eq!(sending.handle(SendingEvent::Found(Ok(())), at(12)), copy);
}

#[test]
fn full_queue_is_tried_again() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let first = sending.handle(SendingEvent::Direct(CopyOutcome::NoRoom), at(0));
    let second = sending.handle(SendingEvent::Direct(CopyOutcome::NoRoom), at(1));
    assert_eq!(first, [SendingAction::SendDirect(ROOM_WAIT)]);
    assert_eq!(second, [SendingAction::SendDirect(ROOM_WAIT * 2)]);
}

/// Answer of the world to one action.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Written(bool),
    NoRoom,
    Unknown,
    Failed,
    Never,
    Good,
    Bad,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        any::<bool>().prop_map(Luck::Written),
        Just(Luck::NoRoom),
        Just(Luck::Unknown),
        Just(Luck::Failed),
        Just(Luck::Never),
        Just(Luck::Good),
        Just(Luck::Bad),
    ]
}

fn answer_to(action: &SendingAction, luck: Luck, recipient: NodeId) -> Option<SendingEvent> {
    let copy = match luck {
        Luck::Written(true) => CopyOutcome::Written,
        Luck::Written(false) => CopyOutcome::Unconfirmed(1),
        Luck::Good => CopyOutcome::Written,
        Luck::NoRoom => CopyOutcome::NoRoom,
        Luck::Unknown => CopyOutcome::Unknown,
        Luck::Failed | Luck::Bad => CopyOutcome::Failed("failed".into()),
        Luck::Never => return None,
    };
    Some(match action {
        SendingAction::SendDirect(_) => SendingEvent::Direct(copy),
        SendingAction::SendAgain(holder, _) => SendingEvent::Holder(*holder, copy),
        SendingAction::Ask(peer, _) if *peer == recipient => SendingEvent::Receipt(
            *peer,
            match luck {
                Luck::Good => Answer::Received,
                Luck::Failed => Answer::Silent,
                _ => Answer::Neither,
            },
        ),
        SendingAction::Ask(peer, _) => SendingEvent::Receipt(
            *peer,
            match luck {
                Luck::Good => Answer::Stored,
                Luck::Failed => Answer::Silent,
                _ => Answer::Neither,
            },
        ),
        SendingAction::SendToHolders { most, except } => {
            let fresh = (10..20).map(id).filter(|holder| !except.contains(holder));
            SendingEvent::Chosen(fresh.take((*most).min(2)).collect())
        }
        SendingAction::Search => return None,
        SendingAction::Find => SendingEvent::Found(match luck {
            Luck::Bad => Err("not found".into()),
            _ => Ok(()),
        }),
        SendingAction::Ping(_) => {
            SendingEvent::Answers(matches!(luck, Luck::Good | Luck::Written(_)))
        }
        SendingAction::DeliverLocally => SendingEvent::Local(matches!(luck, Luck::Good)),
        SendingAction::Persist(_) => return None,
    })
}

proptest! {
    /// Whatever the world does: no state goes back, attempts and work in them are bounded, and at any time the message has
    /// ended, is complete, or has a deadline.
    #[test]
    fn any_history_is_bounded(
        lucks in proptest::collection::vec(luck(), 1..40),
        direct_only in any::<bool>(),
        peers in proptest::collection::vec(any::<Option<bool>>(), 1..20),
    ) {
        let options = EntryOptions { direct_only, ..EntryOptions::default() };
        let mut sending = sending(options);
        let recipient = *sending.recipient();
        let (mut lucks, mut peers) = (lucks.iter().cycle(), peers.iter().cycle());
        let (mut now, mut starts, mut work) = (at(0), 0_u64, 0_u64);
        let mut kind = StateKind::Queued;
        let mut waiting = VecDeque::new();
        while now.at.as_secs() < TTL {
            let is_over = sending.is_trying() && sending.deadline() <= Some(now.at);
            let event = match waiting.pop_front() {
                // Timers go on while the world answers.
                Some(event) if is_over => {
                    waiting.push_front(event);
                    SendingEvent::Tick
                }
                Some(event) => event,
                None => {
                    let Some(next) = sending.deadline() else {
                        prop_assert!(sending.is_complete());
                        break;
                    };
                    let passed = next.max(now.at);
                    now = Now { at: passed, unix: UnixSeconds(1_000 + passed.as_secs()) };
                    if sending.is_waiting() {
                        starts += 1;
                        SendingEvent::Start { connected: starts % 2 == 0 }
                    } else {
                        match peers.next().copied().flatten() {
                            Some(true) => waiting.push_back(SendingEvent::ConnectionEnded),
                            Some(false) => waiting.push_back(SendingEvent::Appeared { recipient: false }),
                            None => {}
                        }
                        SendingEvent::Tick
                    }
                }
            };
            let actions = sending.handle(event, now);
            prop_assert!(sending.state().kind() >= kind, "{kind:?} then {:?}", sending.state());
            kind = sending.state().kind();
            for action in &actions {
                work += 1;
                let to_holders = matches!(action, SendingAction::SendToHolders { .. });
                prop_assert!(!(direct_only && to_holders));
                let luck = *lucks.next().unwrap();
                let wait = match action {
                    SendingAction::SendDirect(wait) | SendingAction::SendAgain(_, wait) | SendingAction::Ask(_, wait) => *wait,
                    _ => Duration::ZERO,
                };
                // The answer comes after the deadline of this step at the latest.
                now.at += wait;
                if let Some(event) = answer_to(action, luck, recipient) {
                    if let SendingEvent::Chosen(holders) = &event {
                        for holder in holders {
                            let copy = match luck {
                                Luck::Bad => CopyOutcome::Failed("down".to_owned()),
                                _ => CopyOutcome::Written,
                            };
                            waiting.push_back(SendingEvent::Holder(*holder, copy));
                        }
                        waiting.push_front(event);
                    } else {
                        waiting.push_back(event);
                    }
                }
            }
            if sending.is_trying() && waiting.is_empty() {
                prop_assert!(sending.deadline().is_some());
            }
        }
        // Four planned attempts an hour, and eight times as many that strangers cause.
        let most = TTL / 3_600 * 4 * 9;
        prop_assert!(starts < most, "{starts} attempts");
        prop_assert!(work < most * 40, "{work} actions");
        sending.end(SendState::Expired);
        prop_assert!(sending.is_ended() && sending.deadline().is_none());
    }
}

/// A node that was to store the message does not speak for the recipient.
#[test]
fn holders_cannot_confirm_receipt() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(
        SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
        at(1),
    );
    sending.handle(SendingEvent::Chosen(vec![id(5)]), at(1));
    sending.handle(SendingEvent::Holder(id(5), CopyOutcome::Written), at(1));
    sending.handle(SendingEvent::Receipt(id(5), Answer::Received), at(1));
    assert_eq!(*sending.state(), SendState::Sent);
    assert!(!sending.is_ended());
    assert!(sending.is_waiting(), "the next attempt is planned");
}

#[test]
fn unreadable_messages_wait_a_minute() {
    let mut sending = sending(EntryOptions::default());
    sending.postpone(at(7));
    assert_eq!(sending.deadline(), Some(at(67).at));
}

/// A recipient that runs, but whose application does not read: it says of each copy that it has not got it.
#[test]
fn unread_message_goes_to_holders() {
    let unread = |options| {
        let mut sending = sending(options);
        start(&mut sending);
        sending.handle(written(true), at(0));
        let neither = SendingEvent::Receipt(*sending.recipient(), Answer::Neither);
        sending.handle(neither, at(3));
        sending
    };
    let mut stored = unread(EntryOptions::default());
    assert_eq!(stored.deadline(), Some(RECEIPT_WAIT));
    let actions = stored.handle(SendingEvent::Tick, at(5));
    assert!(matches!(
        actions.front(),
        Some(SendingAction::SendToHolders { .. })
    ));
    let direct = unread(EntryOptions {
        direct_only: true,
        ..EntryOptions::default()
    });
    assert!(direct.deadline() > Some(at(8).at));
}

#[test]
fn unreachable_holders_are_replaced() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let failed = || CopyOutcome::Failed("down".to_owned());
    sending.handle(SendingEvent::Direct(failed()), at(0));
    sending.handle(SendingEvent::Chosen(vec![id(2), id(3), id(4)]), at(0));
    sending.handle(SendingEvent::Receipt(id(2), Answer::Stored), at(1));
    let replace = |except| SendingAction::SendToHolders { most: 1, except };
    let actions = sending.handle(SendingEvent::Holder(id(3), failed()), at(1));
    assert_eq!(actions, [replace(vec![id(2), id(3), id(4)])]);
    sending.handle(SendingEvent::Chosen(vec![id(5)]), at(1));
    sending.handle(SendingEvent::Receipt(id(4), Answer::Stored), at(2));
    assert!(sending.is_trying(), "the replacement has not answered");
    // No more of them than copies were wanted.
    for holder in 5..7 {
        let actions = sending.handle(SendingEvent::Holder(id(holder), failed()), at(2));
        assert_eq!(actions.len(), 1);
        sending.handle(SendingEvent::Chosen(vec![id(holder + 1)]), at(2));
    }
    let actions = sending.handle(SendingEvent::Holder(id(7), failed()), at(2));
    assert!(matches!(actions.front(), Some(SendingAction::Persist(_))));
    assert_eq!(*sending.state(), SendState::Stored { holders: 2 });
    assert!(sending.is_waiting());
}

/// Nodes that stay silent neither keep their places in an attempt nor get the copies of the next one.
#[test]
fn silent_holders_are_replaced() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    let failed = || SendingEvent::Direct(CopyOutcome::Failed("down".to_owned()));
    let asked = |sending: &mut Sending, holders: &[u8], now| {
        let chosen = holders.iter().copied().map(id).collect();
        sending.handle(SendingEvent::Chosen(chosen), now);
        for holder in holders {
            let copy = CopyOutcome::Written;
            sending.handle(SendingEvent::Holder(id(*holder), copy), now);
        }
    };
    let copies = |most, except: &[u8]| SendingAction::SendToHolders {
        most,
        except: except.iter().copied().map(id).collect(),
    };
    sending.handle(failed(), at(0));
    asked(&mut sending, &[2, 3, 4], at(0));
    sending.handle(SendingEvent::Receipt(id(4), Answer::Stored), at(1));
    let actions = sending.handle(SendingEvent::Tick, at(15));
    assert_eq!(actions, [copies(2, &[2, 3, 4])]);
    asked(&mut sending, &[5, 6], at(15));
    assert_eq!(sending.deadline(), Some(at(30).at));
    // They have been replaced, and are not once more.
    let late = SendingEvent::Receipt(id(2), Answer::Silent);
    assert_eq!(sending.handle(late, at(20)), []);
    // No more of them than copies were wanted.
    let actions = sending.handle(SendingEvent::Tick, at(30));
    assert_eq!(actions, [copies(1, &[2, 3, 4, 5, 6])]);
    asked(&mut sending, &[7], at(30));
    let actions = sending.handle(SendingEvent::Tick, at(45));
    assert!(matches!(actions.front(), Some(SendingAction::Persist(_))));
    start_again(&mut sending, at(60));
    let actions = sending.handle(failed(), at(60));
    assert_eq!(actions.front(), Some(&copies(2, &[2, 3, 4, 5, 6, 7])));
    // With nobody else left they are asked again.
    let actions = sending.handle(SendingEvent::Chosen(vec![id(8)]), at(60));
    assert_eq!(actions, [copies(1, &[4, 8])]);
    assert!(sending.is_writing());
}

#[test]
fn recipient_returns_while_holders_are_asked() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(
        SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
        at(7),
    );
    sending.handle(SendingEvent::Chosen(vec![id(2)]), at(7));
    sending.handle(SendingEvent::Appeared { recipient: true }, at(8));
    sending.handle(SendingEvent::Receipt(id(2), Answer::Stored), at(9));
    assert!(sending.is_waiting());
    assert_eq!(sending.deadline(), Some(at(9).at));
}

/// The bounds of `replicas`.
#[test]
fn as_many_holders_as_asked_for() {
    for replicas in [0, 1, 255] {
        let mut sending = sending(EntryOptions {
            replicas: Some(replicas),
            ..EntryOptions::default()
        });
        start(&mut sending);
        let failed = SendingEvent::Direct(CopyOutcome::Failed("down".to_owned()));
        let actions = sending.handle(failed, at(0));
        let asked = actions.iter().find_map(|action| match action {
            SendingAction::SendToHolders { most, .. } => Some(*most),
            _ => None,
        });
        assert_eq!(asked.unwrap_or(0), usize::from(replicas));
    }
}
