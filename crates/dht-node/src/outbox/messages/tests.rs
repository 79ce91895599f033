use bytes::Bytes;
use dht_core::{
    DedupHash, Entropy as _, MessageTag, NodeId, SecretKey, SeededEntropy, test_util::NOW,
};
use dht_dedup::DedupMeta;
use dht_spool::{EntryOptions, SendState};

use super::*;
use crate::outbox::event::{Event, Now};

const AT: Now = Now {
    at: Duration::ZERO,
    unix: NOW,
};

fn messages(count: u64) -> Messages {
    let mut messages = Messages::new(Arc::default());
    let secret = SecretKey::random(&mut SeededEntropy::new(1).rng());
    for id in 1..=count {
        let entry = Entry {
            id,
            key: None,
            recipient: secret.public_key(),
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
    messages
}

fn sealed() -> SealedFrame {
    SealedFrame {
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
        let appeared = Event::Appeared { recipient: true };
        messages.change(1, |sending| sending.handle(appeared, AT));
        messages.settle(1);
        assert_eq!(messages.take_due(AT.at), [0; 0]);
        assert_eq!(messages.next_to_read(), Some(1));
        assert_eq!(messages.next_to_read(), None);
        messages.has_read(1, None);
        messages.settle(1);
    }
}

#[test]
fn few_messages_are_retried_at_once() {
    let count = RETRYING as u64 + 1;
    let mut messages = messages(count);
    messages.take_due(AT.at);
    let read: Vec<_> = std::iter::from_fn(|| messages.next_to_read()).collect();
    assert_eq!(read.len(), RETRYING);
    for id in read {
        messages.has_read(id, Some(sealed()));
        let start = Event::Start { connected: true };
        messages.change(id, |sending| sending.handle(start, AT));
        messages.settle(id);
        assert!(messages.held(id).is_some());
    }
    assert_eq!(messages.busy.load(Ordering::Acquire), RETRYING);
    assert_eq!(messages.next_to_read(), None);
    messages.remove(1);
    assert_eq!(messages.next_to_read(), Some(count));
    messages.remove(count);
    messages.has_read(count, Some(sealed()));
    assert_eq!(messages.busy.load(Ordering::Acquire), RETRYING - 1);
    assert_eq!(
        messages.take_expired(NOW.saturating_add(61)).len(),
        RETRYING - 1
    );
}
