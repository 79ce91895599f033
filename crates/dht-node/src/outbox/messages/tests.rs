use bytes::Bytes;
use dht_core::{
    DedupHash, Features, MessageTag, NodeId, PublicKey, RemotePeer,
    test_util::{NOW, public_key},
};
use dht_dedup::DedupMeta;
use dht_peers::{Connections, Direction};
use dht_spool::{EntryOptions, SendState};

use futures::FutureExt as _;

use super::*;
use crate::outbox::{
    event::{CopyOutcome, Now, SendingAction, SendingEvent},
    retry_queue::RETRYING,
    send_budget::SendBudget,
};

const AT: Now = Now {
    at: Duration::ZERO,
    unix: NOW,
};

/// Adds a message that waits for its second attempt.
fn add(messages: &mut Messages, id: EntryId, recipient: PublicKey) {
    let entry = Entry {
        id,
        key: None,
        recipient,
        message_type: 7,
        payload_bytes: 0,
        options: EntryOptions::default(),
        created_at: NOW,
        expires_at: NOW.saturating_add(60),
        state: SendState::Queued,
        attempts: 1,
        next_attempt: Some(NOW),
        last_error: None,
        ended_at: None,
    };
    let sending = Sending::new(&entry, &NodeId::default(), 3, AT);
    messages.insert(&entry, sending, Load::OnDisk);
}

fn messages(count: u64) -> Messages {
    let reachability = Arc::new(ReachabilityTracker::new(Connections::new()));
    let mut messages = Messages::new(watch::Sender::default(), reachability);
    for id in 1..=count {
        // Eight for a recipient.
        add(&mut messages, id, public_key(id.div_ceil(8)));
    }
    messages
}

fn sealed() -> SealedFrame {
    SealedFrame {
        body_bytes: 0,
        frame: Bytes::new(),
        hash: DedupHash([0; 32]),
        meta: DedupMeta {
            signed: true,
            expires: None,
        },
        tag: MessageTag(0),
    }
}

/// A peer that appears while a message waits to be read must not make it read, and counted, twice.
#[test]
fn waiting_messages_are_read_once() {
    let mut messages = messages(1);
    for _ in 0..2 * RETRYING {
        assert_eq!(messages.take_due(AT.at), [0; 0]);
        let appeared = SendingEvent::Appeared { recipient: true };
        messages.change(1, |sending| sending.handle(appeared, AT));
        messages.refresh(1);
        assert_eq!(messages.take_due(AT.at), [0; 0]);
        assert_eq!(messages.next_to_read(), Some(1));
        assert_eq!(messages.next_to_read(), None);
        messages.has_read(1, None, SendPermit::default());
        messages.refresh(1);
    }
}

#[test]
fn few_messages_are_retried_at_once() {
    let count = RETRYING as u64 + 1;
    let mut messages = messages(count);
    messages.take_due(AT.at);
    let read: Vec<_> = std::iter::from_fn(|| messages.next_to_read()).collect();
    assert_eq!(read.len(), RETRYING);
    let last = (1..=count).find(|id| !read.contains(id)).unwrap();
    for id in read {
        messages.has_read(id, Some(sealed()), SendPermit::default());
        let start = SendingEvent::Start { connected: true };
        messages.change(id, |sending| sending.handle(start, AT));
        messages.refresh(id);
        assert!(messages.held(id).is_some());
    }
    assert_eq!(*messages.busy.borrow(), RETRYING);
    assert_eq!(messages.next_to_read(), None);
    messages.remove(1);
    assert_eq!(messages.next_to_read(), Some(last));
    messages.remove(last);
    messages.has_read(last, Some(sealed()), SendPermit::default());
    assert_eq!(*messages.busy.borrow(), RETRYING - 1);
    assert_eq!(
        messages
            .take_expired(NOW.saturating_add(61), |_| true)
            .len(),
        RETRYING - 1
    );
}

/// However many recipients cannot be reached, and however much room they take: one that takes copies is served at once.
#[test]
fn unreachable_recipients_starve_nobody() {
    for unreachable in [4, 100, 1_000] {
        let connections = Connections::new();
        let honest = RemotePeer::new(public_key(0), Features::NODE);
        let recipient = honest.node_id;
        connections.insert(Arc::new(honest), Direction::Outbound);
        let reachability = Arc::new(ReachabilityTracker::new(connections));
        let budgets = ByReachability::new(|| SendBudget::new(1 << 16));
        let mut messages = Messages::new(watch::Sender::default(), Arc::clone(&reachability));
        let mut taken = Vec::new();
        let mut last = 0;
        for seed in 1..=unreachable {
            let absent = public_key(seed).node_id();
            let budgets = budgets.of(reachability.of(&absent));
            while let Some(permit) = budgets.acquire(&absent, 100).now_or_never() {
                taken.push(permit);
            }
            for _ in 0..20 {
                last += 1;
                add(&mut messages, last, public_key(seed));
            }
        }
        messages.take_due(AT.at);
        let attempts = std::iter::from_fn(|| messages.next_to_read()).count();
        assert!(attempts >= 4 * 8);
        // Callers send, and a message whose first attempt failed is tried again.
        for served in 0..1_000 {
            let budgets = budgets.of(reachability.of(&recipient));
            let permit = budgets.acquire(&recipient, 100).now_or_never();
            assert!(permit.is_some(), "{served} of 1000 beside {unreachable}");
            last += 1;
            add(&mut messages, last, public_key(0));
            messages.take_due(AT.at);
            assert_eq!(messages.next_to_read(), Some(last));
            messages.has_read(last, Some(sealed()), permit.flatten().unwrap());
            messages.change(last, |sending| {
                sending.handle(SendingEvent::Start { connected: true }, AT);
                sending.handle(SendingEvent::Direct(CopyOutcome::Written), AT);
            });
            messages.refresh(last);
        }
    }
}

/// A recipient that is connected and takes no copies is none of those that do, until it takes one.
#[test]
fn failing_recipients_are_told_apart() {
    let connections = Connections::new();
    let peer = RemotePeer::new(public_key(1), Features::NODE);
    let recipient = peer.node_id;
    connections.insert(Arc::new(peer), Direction::Outbound);
    let reachability = Arc::new(ReachabilityTracker::new(connections));
    let mut messages = Messages::new(watch::Sender::default(), Arc::clone(&reachability));
    for id in 1..=2 {
        add(&mut messages, id, public_key(1));
    }
    assert_eq!(reachability.of(&recipient), Reachability::Reachable);
    messages.change(1, |sending| {
        sending.handle(SendingEvent::Start { connected: true }, AT);
    });
    let late = Now {
        at: Duration::from_secs(10),
        ..AT
    };
    messages.change(1, |sending| sending.handle(SendingEvent::Tick, late));
    assert_eq!(reachability.of(&recipient), Reachability::Unreachable);
    for event in [
        SendingEvent::Start { connected: true },
        SendingEvent::Direct(CopyOutcome::Written),
    ] {
        messages.change(2, |sending| sending.handle(event, late));
    }
    assert_eq!(reachability.of(&recipient), Reachability::Reachable);
}

/// Once its copies are written, a message waits for receipts without a turn: silent holders hold up no other.
#[test]
fn silent_holders_hold_no_turn() {
    let count = 3 * RETRYING as u64;
    let mut messages = messages(count);
    messages.take_due(AT.at);
    let mut tried = 0;
    while let Some(id) = messages.next_to_read() {
        tried += 1;
        messages.has_read(id, Some(sealed()), SendPermit::default());
        let holder = NodeId::from_bytes(&[7; 13]).unwrap();
        let silent = [
            SendingEvent::Start { connected: false },
            SendingEvent::Direct(CopyOutcome::Failed("down".to_owned())),
            SendingEvent::Chosen(vec![holder]),
            SendingEvent::Holder(holder, CopyOutcome::Written),
        ];
        for event in silent {
            assert!(messages.get(id).unwrap().sending.is_waiting() || messages.held(id).is_some());
            messages.change(id, |sending| sending.handle(event, AT));
            messages.refresh(id);
        }
        assert!(messages.get(id).unwrap().sending.is_trying());
    }
    assert_eq!(tried, count);
}

/// The frame of a message that waits for receipts is on disk: for further copies it is read again, in its turn.
#[test]
fn frame_is_read_for_holders() {
    let mut messages = messages(1);
    messages.take_due(AT.at);
    let id = messages.next_to_read().unwrap();
    messages.has_read(id, Some(sealed()), SendPermit::default());
    messages.change(id, |sending| {
        sending.handle(SendingEvent::Start { connected: true }, AT);
        sending.handle(SendingEvent::Direct(CopyOutcome::Written), AT);
    });
    messages.refresh(id);
    assert!(messages.held(id).is_none());
    let late = Now {
        at: Duration::from_secs(5),
        ..AT
    };
    assert_eq!(messages.take_due(late.at), [id]);
    let actions = messages.change(id, |sending| sending.handle(SendingEvent::Tick, late));
    let copies = actions.unwrap().pop_front().unwrap();
    messages.defer(id, copies.clone());
    messages.refresh(id);
    assert_eq!(messages.next_timer(), None, "the attempt is not given up");
    assert_eq!(messages.next_to_read(), Some(id));
    messages.has_read(id, Some(sealed()), SendPermit::default());
    messages.refresh(id);
    assert!(messages.held(id).is_some());
    assert_eq!(messages.take_deferred(id), [copies]);
}

#[test]
fn recipients_and_unsent_messages_are_indexed() {
    let mut messages = messages(17);
    let recipient = *messages.get(17).unwrap().sending.recipient();
    assert_eq!(messages.of(&recipient), [17]);
    assert_eq!(messages.queued().len(), 17);
    messages.change(17, |sending| {
        sending.handle(SendingEvent::Start { connected: true }, AT);
        sending.handle(SendingEvent::Direct(CopyOutcome::Unconfirmed(1)), AT);
    });
    assert!(!messages.queued().contains(&17));
    messages.remove(17);
    messages.remove(1);
    assert_eq!(messages.of(&recipient), [0; 0]);
    assert_eq!(messages.queued().len(), 15);
}

/// The receipt of a copy that is written after its attempt is asked for by its hash.
#[test]
fn hash_outlives_the_frame() {
    let mut messages = messages(1);
    messages.take_due(AT.at);
    assert_eq!(messages.next_to_read(), Some(1));
    messages.has_read(1, Some(sealed()), SendPermit::default());
    messages.change(1, |sending| {
        sending.handle(SendingEvent::Start { connected: false }, AT)
    });
    messages.refresh(1);
    let failed = SendingEvent::Direct(CopyOutcome::Failed("down".to_owned()));
    messages.change(1, |sending| {
        sending.handle(failed, AT);
        sending.handle(SendingEvent::Chosen(vec![]), AT)
    });
    messages.refresh(1);
    assert!(messages.held(1).is_none());
    assert_eq!(messages.get(1).unwrap().hash, Some(sealed().hash));
    let late = SendingEvent::Direct(CopyOutcome::Written);
    let asked = messages.change(1, |sending| sending.handle(late, AT));
    assert!(matches!(
        asked.unwrap().front(),
        Some(SendingAction::Ask(..))
    ));
}

/// Copies for holders that waited for the frame are not sent of a message that was received meanwhile.
#[test]
fn ended_message_defers_nothing() {
    let mut messages = messages(1);
    let copies = SendingAction::SendToHolders {
        most: 3,
        except: Vec::new(),
    };
    messages.defer(1, copies);
    messages.change(1, |sending| sending.end(SendState::Received));
    assert_eq!(messages.take_deferred(1), []);
}

/// Copies for holders that waited for the frame are not sent once their attempt is over, and begin no other one.
#[test]
fn late_frame_sends_no_copies() {
    let mut messages = messages(1);
    messages.take_due(AT.at);
    let id = messages.next_to_read().unwrap();
    messages.has_read(id, Some(sealed()), SendPermit::default());
    messages.change(id, |sending| {
        sending.handle(SendingEvent::Start { connected: true }, AT);
        sending.handle(SendingEvent::Direct(CopyOutcome::Written), AT);
    });
    messages.refresh(id);
    let late = Now {
        at: Duration::from_secs(5),
        ..AT
    };
    let actions = messages.change(id, |sending| sending.handle(SendingEvent::Tick, late));
    messages.defer(id, actions.unwrap().pop_front().unwrap());
    let over = Now {
        at: Duration::from_secs(20),
        ..AT
    };
    messages.change(id, |sending| {
        sending.handle(SendingEvent::Chosen(vec![]), over);
        sending.handle(SendingEvent::Tick, over);
    });
    assert!(messages.get(id).unwrap().sending.is_waiting());
    assert_eq!(messages.next_to_read(), Some(id));
    messages.has_read(id, Some(sealed()), SendPermit::default());
    assert_eq!(messages.take_deferred(id), []);
    assert!(!messages.is_due(id, over.at));
    messages.refresh(id);
    assert!(messages.held(id).is_none());
    assert!(messages.next_timer().is_some());
}

/// The end of the time to live is not written over an end that is still to be written down.
#[test]
fn received_message_does_not_expire() {
    let mut messages = messages(2);
    messages.change(1, |sending| sending.end(SendState::Received));
    assert_eq!(messages.take_expired(NOW.saturating_add(61), |_| true), [2]);
}
