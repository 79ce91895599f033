use bytes::Bytes;
use dht_core::{UnixSeconds, test_util::public_key};

use super::*;
use crate::faulty::FaultyDisk;

mod disk;
mod model;
mod room;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn entry(number: u64) -> NewEntry {
    NewEntry {
        key: None,
        recipient: public_key(number % 2),
        message_type: 5,
        payload: Bytes::from(format!("message {number}")),
        options: EntryOptions {
            ttl_seconds: 100,
            direct_only: true,
            replicas: Some(3),
        },
        created_at: NOW,
        frame: None,
    }
}

fn named(number: u64, key: &str) -> NewEntry {
    NewEntry {
        key: Some(key.to_owned()),
        ..entry(number)
    }
}

fn outbox(config: OutboxConfig) -> Outbox {
    Outbox::in_memory(config)
}

fn on(disk: &FaultyDisk, config: OutboxConfig) -> Outbox {
    Outbox {
        journal: Arc::new(crate::disk::on(disk.file(), config).unwrap()),
    }
}

fn put(outbox: &Outbox, entry: NewEntry) -> EntryId {
    outbox.put(entry).wait().unwrap().id()
}

/// Entries that wait for an attempt, by id.
fn waiting(outbox: &Outbox) -> Vec<Entry> {
    let all = outbox.list(EntryFilter::default(), None, usize::MAX);
    let waiting = all.unwrap().into_iter();
    waiting
        .filter(|entry| entry.next_attempt.is_some())
        .collect()
}

fn at(seconds: u64) -> UnixSeconds {
    NOW.saturating_add(seconds)
}

#[test]
fn an_entry_is_read_as_put() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, named(1, "order-1"));
    let expected = Entry {
        id,
        key: Some("order-1".to_owned()),
        recipient: public_key(1),
        message_type: 5,
        payload_bytes: 9,
        options: entry(1).options,
        created_at: NOW,
        expires_at: at(100),
        state: SendState::Queued,
        attempts: 0,
        next_attempt: Some(NOW),
        last_error: None,
        ended_at: None,
    };
    assert_eq!(waiting(&outbox), std::slice::from_ref(&expected));
    let content = outbox.content(id).unwrap();
    assert_eq!(content, Some(EntryContent::Payload("message 1".into())));
    assert_eq!(outbox.get(id).unwrap(), Some(expected.clone()));
    assert_eq!(outbox.get_by_key("order-1").unwrap(), Some(expected));
    assert_eq!(outbox.get(9).unwrap(), None);
    assert_eq!(outbox.get_by_key("order-2").unwrap(), None);
}

#[test]
fn a_key_names_one_message() {
    let outbox = outbox(OutboxConfig {
        ended_seconds: 10,
        ..OutboxConfig::default()
    });
    let id = put(&outbox, named(1, "a"));
    let mut later = named(1, "a");
    later.created_at = at(50);
    assert_eq!(outbox.put(later).wait().unwrap(), Put::Existing(id));
    assert_eq!(outbox.put(named(1, "b")).wait().unwrap(), Put::New(2));
    let mut others = vec![named(2, "a"), named(1, "a"), named(1, "a")];
    others[1].options.replicas = None;
    others[2].recipient = public_key(2);
    for other in others {
        let refused = outbox.put(other).wait().unwrap_err();
        assert_eq!(refused, SpoolError::KeyReused);
    }
    for key in ["", &"k".repeat(129)] {
        let refused = outbox.put(named(1, key)).wait().unwrap_err();
        assert_eq!(refused, SpoolError::InvalidKey);
    }
    outbox.update(id, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.put(named(1, "a")).wait().unwrap(), Put::Existing(id));
    outbox.expire(at(11)).wait().unwrap();
    assert_eq!(outbox.put(named(2, "a")).wait().unwrap(), Put::New(3));
}

#[test]
fn attempts_are_counted_and_planned() {
    let outbox = outbox(OutboxConfig::default());
    for number in 1..=3 {
        put(&outbox, entry(number));
    }
    let planned = || {
        let waiting = waiting(&outbox).into_iter();
        waiting
            .filter_map(|entry| Some((entry.id, entry.next_attempt?)))
            .collect::<Vec<_>>()
    };
    assert_eq!(planned(), [(1, NOW), (2, NOW), (3, NOW)]);
    let retry = |id, seconds, error: Option<&str>| {
        let transition = Transition::Retry {
            at: at(seconds),
            error: error.map(ToOwned::to_owned),
        };
        outbox.update(id, transition, NOW).wait().unwrap()
    };
    assert_eq!(retry(1, 15, Some("no route")), StateKind::Queued);
    retry(1, 20, None);
    retry(2, 10, None);
    assert_eq!(planned(), [(1, at(20)), (2, at(10)), (3, NOW)]);
    outbox.update(3, Transition::Received, NOW).wait().unwrap();
    assert_eq!(planned(), [(1, at(20)), (2, at(10))]);
    assert_eq!(outbox.stats().waiting, 2);
    let entry = outbox.get(1).unwrap().unwrap();
    assert_eq!(entry.attempts, 2);
    assert_eq!(entry.last_error.as_deref(), Some("no route"));
    assert_eq!(outbox.get(2).unwrap().unwrap().last_error, None);
}

#[test]
fn states_walk_to_received() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let update = |transition| outbox.update(id, transition, at(1)).wait();
    let state = || outbox.get(id).unwrap().unwrap().state;
    let retry_at = Some(at(5));
    update(Transition::Sent { retry_at }).unwrap();
    assert_eq!(state(), SendState::Sent);
    let stored = Transition::Stored {
        holders: 2,
        retry_at,
    };
    update(stored).unwrap();
    update(Transition::Sent { retry_at }).unwrap();
    assert_eq!(state(), SendState::Stored { holders: 2 });
    assert!(outbox.content(id).unwrap().is_some());
    update(Transition::Sent { retry_at: None }).unwrap();
    assert_eq!(state(), SendState::Stored { holders: 2 });
    assert_eq!(outbox.stats().waiting, 0);
    assert_eq!(outbox.content(id).unwrap(), None);
    let reason = "withdrawn".to_owned();
    let failed = update(Transition::Failed { reason });
    assert_eq!(failed.unwrap_err(), SpoolError::Ended);
    update(Transition::Received).unwrap();
    update(Transition::Received).unwrap();
    assert_eq!(state(), SendState::Received);
    assert_eq!(outbox.content(id).unwrap(), None);
    let back = update(Transition::Sent { retry_at: None });
    assert_eq!(back.unwrap_err(), SpoolError::Ended);
    let none = outbox.update(9, Transition::Received, NOW).wait();
    assert_eq!(none.unwrap_err(), SpoolError::UnknownId);
}

#[test]
fn reasons_are_cut_between_characters() {
    let outbox = outbox(OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let reason = "ä".repeat(200);
    let failed = Transition::Failed { reason };
    outbox.update(id, failed, NOW).wait().unwrap();
    let expected = SendState::Failed {
        reason: "ä".repeat(128),
    };
    assert_eq!(outbox.get(id).unwrap().unwrap().state, expected);
}

#[test]
fn a_frame_is_sent_unchanged() {
    let disk = FaultyDisk::default();
    let outbox = on(&disk, OutboxConfig::default());
    let id = put(&outbox, entry(1));
    let frame = Bytes::from(vec![8; 50]);
    outbox.set_frame(id, frame.clone()).wait().unwrap();
    assert_eq!(outbox.stats().bytes, 59);
    drop(outbox);
    let outbox = on(&disk, OutboxConfig::default());
    assert_eq!(outbox.stats().bytes, 59);
    let content = outbox.content(id).unwrap();
    assert_eq!(content, Some(EntryContent::Frame(frame.clone())));
    outbox.update(id, Transition::Received, NOW).wait().unwrap();
    assert_eq!(outbox.stats().bytes, 0);
    let ended = outbox.set_frame(id, frame).wait();
    assert_eq!(ended.unwrap_err(), SpoolError::Ended);
}

#[test]
fn lists_are_filtered_and_paged() {
    let outbox = outbox(OutboxConfig::default());
    for number in 1..=5 {
        put(&outbox, entry(number));
    }
    outbox.update(3, Transition::Received, NOW).wait().unwrap();
    let list = |filter, after, limit| {
        let entries = outbox.list(filter, after, limit).unwrap();
        entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(list(EntryFilter::default(), None, 2), [1, 2]);
    assert_eq!(list(EntryFilter::default(), Some(2), 9), [3, 4, 5]);
    let queued = EntryFilter {
        state: Some(StateKind::Queued),
        ..EntryFilter::default()
    };
    assert_eq!(list(queued, Some(1), 2), [2, 4]);
    let to_one = EntryFilter {
        recipient: Some(public_key(1)),
        ..EntryFilter::default()
    };
    assert_eq!(list(to_one, None, 2), [1, 3]);
}

/// A clock that may be wrong ends those that were put since the file was opened, also after it was loaded again.
#[test]
fn only_new_entries_end() {
    let disk = FaultyDisk::default();
    let config = OutboxConfig {
        ended_seconds: 10,
        ..OutboxConfig::default()
    };
    let before = on(&disk, config.clone());
    let old = [put(&before, entry(1)), put(&before, entry(2))];
    let failed = Transition::Failed {
        reason: String::new(),
    };
    before.update(old[1], failed, NOW).wait().unwrap();
    drop(before);
    let outbox = on(&disk, config);
    assert_eq!(outbox.newest_at(), Some(NOW));
    let new = put(&outbox, entry(3));
    disk.fail_at(Some(disk.operations()));
    outbox.put(entry(4)).wait().unwrap_err();
    disk.fail_at(None);
    let expiry = outbox.expire_new(at(1_000)).wait().unwrap();
    assert_eq!((expiry.expired, expiry.removed), (1, 0));
    let kind = |id| outbox.get(id).unwrap().map(|entry| entry.state.kind());
    assert_eq!(kind(old[0]), Some(StateKind::Queued));
    assert_eq!(kind(new), Some(StateKind::Expired));
    assert!(outbox.is_new(new) && old.iter().all(|id| !outbox.is_new(*id)));
    let expiry = outbox.expire(at(1_000)).wait().unwrap();
    assert_eq!((expiry.expired, expiry.removed), (1, 1));
}
