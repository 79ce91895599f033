//! Damaged files: what is kept, what is told, and crashes meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dht_datafile::watch_steps;
use parking_lot::Mutex;

use super::*;

const PAGE: usize = 4096;

fn open(path: &Path) -> Inbox {
    Inbox::open(path, InboxConfig::default(), NOW).unwrap()
}

fn messages(inbox: &Inbox, consumer: &str) -> BTreeMap<RowId, NewRow> {
    let rows = inbox.read(consumer, None, ALL).unwrap();
    rows.into_iter().map(|row| (row.id, row.message)).collect()
}

/// A closed file of rows with payloads of `bytes`, of which "second" has acked the first ten.
fn written(path: &Path, rows: u64, bytes: usize) -> BTreeMap<RowId, NewRow> {
    let inbox = open(path);
    inbox.add_consumer("second", Start::Oldest).wait().unwrap();
    let tickets: Vec<_> = (1..=rows)
        .map(|number| {
            inbox.insert(NewRow {
                payload: Bytes::from(vec![u8::try_from(number % 251).unwrap(); bytes]),
                ..row_of_its_own(number)
            })
        })
        .collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    let all = messages(&inbox, DEFAULT_CONSUMER);
    let tenth = *all.keys().nth(9).unwrap();
    inbox.ack("second", tenth, NOW).wait().unwrap();
    all
}

/// Copies of a folder as a crash before each step of `act` leaves it.
fn crashes(home: &Path, copies: &Path, act: impl FnOnce()) -> Vec<PathBuf> {
    let made = Arc::new(Mutex::new(Vec::new()));
    let (home, copies, watched) = (home.to_owned(), copies.to_owned(), Arc::clone(&made));
    watch_steps(Some(Box::new(move || {
        let mut made = watched.lock();
        let copy = copies.join(made.len().to_string());
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&home).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        made.push(copy);
    })));
    act();
    watch_steps(None);
    Arc::try_unwrap(made).unwrap().into_inner()
}

/// Also with a part of the new file: a crash leaves the old file or the whole new one.
#[test]
fn crashed_rescues_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let all = written(&path, 60, 2000);
    let mut bytes = fs::read(&path).unwrap();
    // The first payload that lies in the file.
    let at = bytes
        .windows(2000)
        .position(|it| it.iter().all(|byte| *byte == 30));
    bytes[at.unwrap()] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut kept = BTreeMap::new();
    let folders = crashes(home.path(), copies.path(), || {
        let inbox = open(&path);
        assert_eq!(inbox.stats().damaged_files, 1);
        kept = messages(&inbox, DEFAULT_CONSUMER);
    });
    assert_eq!(kept.len(), all.len() - 1);
    assert!(folders.len() > 5, "{} steps", folders.len());
    for (number, folder) in folders.iter().enumerate() {
        let path = folder.join("inbox.redb");
        let new = folder.join("inbox.redb.new");
        if path.exists() && new.exists() {
            let whole = fs::read(&new).unwrap();
            for length in [0, 100, whole.len() / 2, whole.len() - 1] {
                let part = tempfile::tempdir().unwrap();
                fs::copy(&path, part.path().join("inbox.redb")).unwrap();
                let length = length.min(whole.len());
                fs::write(part.path().join("inbox.redb.new"), &whole[..length]).unwrap();
                let inbox = open(&part.path().join("inbox.redb"));
                assert_eq!(messages(&inbox, DEFAULT_CONSUMER), kept);
            }
        }
        let inbox = open(&path);
        assert_eq!(messages(&inbox, DEFAULT_CONSUMER), kept, "step {number}");
        assert_eq!(inbox.stats().damaged_files, 1, "step {number}");
        assert_eq!(inbox.lost().hashes.len(), 1, "step {number}");
        assert!(!new.exists());
        insert(&inbox, [1000]);
    }
}

/// A file has its name once it is whole: none is taken for a damaged one.
#[test]
fn crashed_beginnings_damage_nothing() {
    let home = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let folders = crashes(home.path(), copies.path(), || drop(open(&path)));
    assert!(folders.len() > 3, "{} steps", folders.len());
    for folder in folders {
        let new = folder.join("inbox.redb.new");
        if !new.exists() {
            fs::write(new, "").unwrap();
        }
        let inbox = open(&folder.join("inbox.redb"));
        assert_eq!(inbox.stats().damaged_files, 0);
        insert(&inbox, [1]);
    }
}

/// The failure to read the rescued file may pass.
#[cfg(unix)]
#[test]
fn an_unreadable_rescue_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let new = home.path().join("inbox.redb.new");
    std::os::unix::fs::symlink(home.path(), &new).unwrap();
    let refused = Inbox::open(&path, InboxConfig::default(), NOW);
    let Err(SpoolError::Leftover {
        path: named,
        source,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert!(matches!(*source, SpoolError::Io(_)), "{source}");
    assert_eq!(named, new);
    assert!(new.is_symlink() && !path.exists());
    fs::remove_file(&new).unwrap();
    insert(&open(&path), [1]);
}

/// Another database, or an outbox: this one does not throw it away.
#[test]
fn a_foreign_rescue_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let new = home.path().join("inbox.redb.new");
    let table = redb::TableDefinition::<u64, u64>::new("foreign");
    let foreign = redb::Database::create(&new).unwrap();
    let transaction = foreign.begin_write().unwrap();
    transaction.open_table(table).unwrap();
    transaction.commit().unwrap();
    drop(foreign);
    let refused = Inbox::open(&path, InboxConfig::default(), NOW).unwrap_err();
    assert!(refused.to_string().contains("inbox.redb.new"), "{refused}");
    assert!(new.exists() && !path.exists());
    fs::remove_file(&new).unwrap();
    // A file that was begun and never filled is removed.
    drop(redb::Database::create(&new).unwrap());
    insert(&open(&path), [1]);
    assert!(!new.exists());
}

/// Wherever the id of a row lies in the file.
#[test]
fn one_wrong_id_loses_nothing_silently() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let all = written(&path, 20, 50);
    let whole = fs::read(&path).unwrap();
    let id = all.keys().nth(14).unwrap().to_le_bytes();
    let places = whole.windows(8).enumerate().filter(|(_, it)| *it == id);
    let mut lossy = 0;
    for (at, _) in places {
        let mut bytes = whole.clone();
        bytes[at + 4] ^= 0x40;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("inbox.redb");
        fs::write(&path, bytes).unwrap();
        let inbox = open(&path);
        if messages(&inbox, DEFAULT_CONSUMER).len() < all.len() {
            assert!(!inbox.lost().is_empty(), "byte {at}");
            lossy += 1;
        }
    }
    assert!(lossy > 0);
}

/// Every place of a head, and of the place of a consumer: no message comes out as another one, and none is skipped.
#[test]
fn one_wrong_bit_forges_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let all = written(&path, 20, 50);
    let whole = fs::read(&path).unwrap();
    let (first, some) = all.iter().nth(14).unwrap();
    let cursor = first - 5;
    // The head of a row around its hash, and what is behind the name of a consumer.
    let mut places = Vec::new();
    for (at, found) in whole.windows(32).enumerate() {
        if found == some.hash.0 {
            places.extend((at - 12..at + 120).map(|it| (it, (at..at + 60).contains(&it))));
        }
        if found.starts_with(&cursor.to_le_bytes()) {
            places.extend((at..at + 24).map(|it| (it, false)));
        }
    }
    assert!(places.len() > 150, "{} places", places.len());
    let path = home.path().join("flipped.redb");
    for (number, (at, is_head)) in places.into_iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (number % 8);
        fs::write(&path, bytes).unwrap();
        let inbox = open(&path);
        let held = messages(&inbox, DEFAULT_CONSUMER);
        // An id out of order hides others of its page from a search.
        assert!(
            !is_head || held.len() >= 19,
            "{} rows, byte {at}",
            held.len()
        );
        for (id, message) in &held {
            let expected = NewRow {
                // Only its share depends on it.
                deliverer: message.deliverer,
                ..all[id].clone()
            };
            assert_eq!(*message, expected, "byte {at}");
        }
        // Unless its name is damaged, it goes on.
        if let Ok(rows) = inbox.read("second", None, ALL) {
            let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
            let left = held.keys().filter(|id| **id > cursor);
            assert!(left.clone().all(|id| ids.contains(id)), "byte {at}");
        }
        drop(inbox);
        for entry in fs::read_dir(home.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("flipped") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// Entries of a leaf of redb, 0 of a branch: what a page that cannot be read may cost (redb's `docs/design.md`).
fn entries(page: &[u8]) -> Option<usize> {
    (page[0] == 1).then(|| usize::from(u16::from_le_bytes([page[2], page[3]])))
}

/// Any page but the header, branches and the one that names the tables.
#[test]
fn a_zeroed_page_costs_its_rows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let all = written(&path, 400, 60);
    let whole = fs::read(&path).unwrap();
    let (mut damaged, mut leaves) = (0, 0);
    for (number, page) in whole.chunks_exact(PAGE).enumerate().skip(1) {
        let (is_branch, entries) = (page[0] == 2, entries(page));
        let names = page.windows(8).any(|it| it == b"payloads");
        if names || !is_branch && entries.is_none() {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[number * PAGE..(number + 1) * PAGE].fill(0);
        let path = home.path().join(format!("{number}.redb"));
        fs::write(&path, bytes).unwrap();
        let inbox = open(&path);
        let held = messages(&inbox, DEFAULT_CONSUMER);
        for (id, message) in &held {
            assert_eq!(message.payload, all[id].payload);
        }
        let lost = all.len() - held.len();
        if let Some(entries) = entries {
            assert!(lost <= entries, "page {number}: {lost} of {entries}");
            leaves += usize::from(lost > 0);
        }
        damaged += inbox.stats().damaged_files;
        let told = inbox.lost();
        assert!(told.others || told.hashes.len() == lost, "page {number}");
        assert!(lost == 0 || !told.is_empty(), "page {number}");
    }
    assert!(
        damaged > 20 && leaves > 15,
        "{damaged} pages, {leaves} leaves"
    );
}

#[test]
fn lost_messages_are_told_until_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let all = written(&path, 60, 2000);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(2000)
        .position(|it| it.iter().all(|byte| *byte == 30));
    bytes[at.unwrap()] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let expected = Lost {
        hashes: vec![all.values().nth(29).unwrap().hash],
        others: false,
    };
    for _ in 0..2 {
        let inbox = open(&path);
        assert_eq!(inbox.lost(), expected, "also after a restart");
        assert!(!inbox.contains(&expected.hashes[0]));
    }
    let inbox = open(&path);
    inbox.forget_lost(inbox.lost()).wait().unwrap();
    assert!(inbox.lost().is_empty());
    drop(inbox);
    assert!(open(&path).lost().is_empty());
    fs::write(&path, "nothing of it is left").unwrap();
    let inbox = open(&path);
    assert!(inbox.lost().others && inbox.lost().hashes.is_empty());
    inbox.forget_lost(inbox.lost()).wait().unwrap();
    drop(inbox);
    assert!(open(&path).lost().is_empty());
}
