//! Copies for holders.

use super::*;

/// The error says what became of the copy for the recipient and why the last holder has none.
#[test]
fn error_names_the_refusing_holder() {
    let mut sending = sending(EntryOptions::default());
    start(&mut sending);
    sending.handle(
        SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
        at(0),
    );
    sending.handle(SendingEvent::Chosen(vec![id(2), id(3), id(4)]), at(0));
    for holder in 2..4 {
        sending.handle(
            SendingEvent::Holder(id(holder), CopyOutcome::Written),
            at(0),
        );
    }
    for (event, error) in [
        (
            SendingEvent::Receipt(id(2), Answer::Neither),
            "refused to store the message",
        ),
        (
            SendingEvent::Receipt(id(3), Answer::Silent),
            "did not say whether it stores the message",
        ),
        (
            SendingEvent::Holder(id(4), CopyOutcome::Failed("it left".to_owned())),
            "got no copy: it left",
        ),
    ] {
        let (SendingEvent::Receipt(holder, _) | SendingEvent::Holder(holder, _)) = event else {
            unreachable!()
        };
        sending.handle(event, at(1));
        let expected = format!("down; holder {holder} {error}");
        assert_eq!(sending.last_error(), Some(expected.as_str()));
    }
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
    let actions = sending.handle(SendingEvent::Receipt(id(5), Answer::Received), at(1));
    let next = SendingAction::SendToHolders {
        most: 1,
        except: vec![id(5)],
    };
    assert_eq!(actions, [next], "it is replaced");
    assert_eq!(*sending.state(), SendState::Queued);
    assert!(!sending.is_ended());
    sending.handle(SendingEvent::Chosen(Vec::new()), at(1));
    assert!(sending.is_waiting(), "the next attempt is planned");
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
