//! Any history of a message is bounded.

use proptest::prelude::*;

use super::*;

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
