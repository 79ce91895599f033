use super::{
    attempt::{RECEIPT_WAIT, ROOM_WAIT},
    *,
};
use bytes::Bytes;
use dht_core::test_util::public_key;
use dht_spool::{EntryOptions, StateKind};

mod holders;
mod model;

const WANTED: usize = 3;
const TTL: u64 = 3 * 24 * 60 * 60;

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
        recipient: public_key(1),
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

/// The recipient has it, whatever the application or the clock did meanwhile: sent again, it would be there twice.
#[test]
fn receipt_counts_after_the_end() {
    let withdraw = |sending: &mut Sending| {
        let reason = "withdrawn".to_owned();
        sending.end(SendState::Failed { reason });
    };
    for end in [withdraw, Sending::expire] {
        for late in [false, true] {
            let mut sending = sending(EntryOptions::default());
            start(&mut sending);
            sending.handle(written(true), at(0));
            end(&mut sending);
            let receipt = SendingEvent::Receipt(*sending.recipient(), Answer::Received);
            let actions = match late {
                true => sending.handle_late(receipt.clone(), at(1)),
                false => sending.handle(receipt.clone(), at(1)),
            };
            assert_eq!(actions, [SendingAction::Persist(Transition::Received)]);
            assert_eq!(sending.state(), &SendState::Received);
            assert_eq!(sending.handle(receipt, at(2)), [], "it is written once");
        }
    }
}

/// Its application may take the message a moment later.
#[test]
fn recipient_is_asked_after_the_end() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.expire();
    let recipient = *sending.recipient();
    let ask = |wait| SendingAction::Ask(recipient, wait);
    assert_eq!(sending.handle(written(true), at(1)), [ask(Duration::ZERO)]);
    let neither = || SendingEvent::Receipt(recipient, Answer::Neither);
    assert_eq!(sending.handle(neither(), at(2)), [ask(LATE_ASK_WAIT)]);
    let over = 1 + DECISION_WAIT.as_secs();
    assert_eq!(sending.handle(neither(), at(over)), [], "for a while");
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

/// Its copies would be written to eight nodes and their replacements in every attempt, and none would keep one.
#[test]
fn too_large_for_holders_stays_direct() {
    let mut sending = sending(EntryOptions::default());
    sending.note_body(MAX_STORED_BODY_BYTES);
    assert!(sending.is_for_holders());
    sending.note_body(MAX_STORED_BODY_BYTES + 1);
    let told = "too large for holders: 524289 bytes, at most 524288; refused";
    for _attempt in 0..2 {
        let start = SendingEvent::Start { connected: false };
        let failed = SendingEvent::Direct(CopyOutcome::Failed("refused".into()));
        sending.handle(start, at(0));
        let mut actions = sending.handle(failed, at(0));
        assert_eq!(actions.pop_front(), Some(SendingAction::Search));
        assert!(
            matches!(actions.make_contiguous(), [SendingAction::Persist(Transition::Retry { error, .. })] if error.as_deref() == Some(told)),
            "{actions:?}"
        );
        assert_eq!(sending.last_error(), Some(told));
    }
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

#[test]
fn unreadable_messages_wait_a_minute() {
    let mut sending = sending(EntryOptions::default());
    sending.postpone(at(7));
    assert_eq!(sending.deadline(), Some(at(67).at));
}
