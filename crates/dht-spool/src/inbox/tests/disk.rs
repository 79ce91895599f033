//! Failing, full and damaged disks.

use std::{fs, path::Path};

use super::*;

/// Every operation fails once, each in a history of its own; what was acknowledged is there after a power failure.
#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    let history = |disk: &FaultyDisk, fail_at: Option<u64>| -> (Vec<u64>, u64) {
        let inbox = on(disk).unwrap();
        let begun = disk.operations();
        disk.fail_at(fail_at.map(|at| begun + at));
        let mut durable = Vec::new();
        for number in 1..=6 {
            if inbox.insert(row(number)).wait().is_ok() {
                durable.push(number);
            }
        }
        // A commit whose last sync fails may be there or not.
        let acked = inbox.ack(DEFAULT_CONSUMER, 1, NOW).wait().is_ok();
        let operations = disk.operations() - begun;
        disk.fail_at(None);
        // It works again, without being opened again.
        let again = (0..2).any(|_| inbox.insert(row(7)).wait().is_ok());
        assert!(again, "failed at {fail_at:?}");
        durable.push(7);
        let crashed = on(&disk.crash(fail_at.unwrap_or(0))).unwrap();
        for number in &durable {
            let again = crashed.insert(row(*number)).wait().unwrap();
            assert_eq!(again, Inserted::AlreadyPresent, "failed at {fail_at:?}");
        }
        let held = inbox.stats().rows;
        assert_eq!(crashed.stats().rows, held, "memory says what the file says");
        assert!(!acked || !ids(&crashed, DEFAULT_CONSUMER).contains(&1));
        (durable, operations)
    };
    let (durable, operations) = history(&FaultyDisk::default(), None);
    assert_eq!(durable.len(), 7);
    for at in 0..operations {
        history(&FaultyDisk::default(), Some(at));
    }
}

/// Each operation of a commit fails. A row of which the sync failed can be read until a power failure; a copy of it that is
/// called present is there after one.
#[test]
fn unsynced_rows_are_not_believed() {
    let history = |at: u64| {
        let disk = FaultyDisk::default();
        let inbox = on(&disk).unwrap();
        insert(&inbox, [1]);
        disk.fail_at(Some(disk.operations() + at));
        let has_failed = inbox.insert(row(2)).wait().is_err();
        disk.fail_at(None);
        inbox.insert(row(2)).wait().unwrap();
        let crashed = on(&disk.crash(at)).unwrap();
        for number in [1, 2] {
            let again = crashed.insert(row(number)).wait().unwrap();
            assert_eq!(again, Inserted::AlreadyPresent, "failed at {at}");
        }
        has_failed
    };
    let operations = (0..).take_while(|at| history(*at)).count();
    assert!(operations > 2, "{operations} operations");
}

/// A process that could copy nothing after a failed sync has left its mark.
#[test]
fn unsynced_files_are_copied() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let inbox = open(&path).unwrap();
    insert(&inbox, 1..=5);
    let rows = inbox.read(DEFAULT_CONSUMER, None, ALL).unwrap();
    inbox.ack(DEFAULT_CONSUMER, rows[0].id, NOW).wait().unwrap();
    drop(inbox);
    let mark = home.path().join("inbox.redb.unsynced");
    fs::write(&mark, "").unwrap();
    for _ in 0..2 {
        let inbox = open(&path).unwrap();
        let kept = inbox.read(DEFAULT_CONSUMER, None, ALL).unwrap();
        assert_eq!(kept, rows[1..]);
        assert_eq!(inbox.stats().damaged_files, 1);
        assert!(!mark.exists() && inbox.lost().is_empty());
    }
}

#[test]
fn a_power_failure_keeps_what_resolved() {
    for seed in 1..20 {
        let disk = FaultyDisk::default();
        let inbox = on(&disk).unwrap();
        insert(&inbox, 1..=20);
        inbox.ack(DEFAULT_CONSUMER, 10, NOW).wait().unwrap();
        let unresolved: Vec<_> = (21..=40).map(|number| inbox.insert(row(number))).collect();
        let crashed = on(&disk.crash(seed)).unwrap();
        let ids = ids(&crashed, DEFAULT_CONSUMER);
        assert_eq!(ids[..10], (11..=20).collect::<Vec<_>>());
        // A row whose ticket had not resolved is there whole or not at all, and its id is not used again.
        assert_eq!(ids, (11..11 + ids.len() as u64).collect::<Vec<_>>());
        drop(unresolved);
    }
}

#[test]
fn a_killed_process_loses_nothing_resolved() {
    let disk = FaultyDisk::default();
    let inbox = on(&disk).unwrap();
    insert(&inbox, 1..=20);
    let killed = on(&disk.kill()).unwrap();
    assert_eq!(ids(&killed, DEFAULT_CONSUMER).len(), 20);
}

#[test]
fn ids_are_never_used_again() {
    let disk = FaultyDisk::default();
    let far = NOW.saturating_add(1 << 40);
    for life in 0..3 {
        let inbox = on(&disk).unwrap();
        let id = inbox.insert(row(life)).wait().unwrap();
        assert_eq!(id, Inserted::New(life + 1));
        inbox.ack(DEFAULT_CONSUMER, life + 1, NOW).wait().unwrap();
        assert_eq!(inbox.expire(far).wait().unwrap().forgotten, 1);
    }
}

#[test]
fn full_disk_is_named_and_left() {
    let disk = FaultyDisk::default();
    let inbox = on(&disk).unwrap();
    insert(&inbox, 1..=10);
    disk.set_capacity(Some(disk.len()));
    let large = |number| NewRow {
        payload: Bytes::from(vec![1; 4 << 20]),
        ..row(number)
    };
    let full = inbox.insert(large(11)).wait();
    assert_eq!(full.unwrap_err(), SpoolError::DiskFull);
    assert_eq!(ids(&inbox, DEFAULT_CONSUMER).len(), 10, "reading goes on");
    assert_eq!(inbox.stats().rows, 10);
    assert!(inbox.stats().last_commit_failed, "the operator sees it");
    // A restart on the full disk.
    drop(inbox);
    let inbox = on(&disk).unwrap();
    assert_eq!(ids(&inbox, DEFAULT_CONSUMER).len(), 10);
    let full = inbox.insert(large(11)).wait();
    assert_eq!(full.unwrap_err(), SpoolError::DiskFull);
    disk.set_capacity(None);
    assert_eq!(inbox.insert(large(11)).wait().unwrap(), Inserted::New(11));
    assert!(!inbox.stats().last_commit_failed);
}

fn open(path: &Path) -> Result<Inbox, SpoolError> {
    Inbox::open(path, InboxConfig::default(), NOW)
}

fn aside(path: &Path, number: u32) -> std::path::PathBuf {
    format!("{}.damaged-{number}", path.display()).into()
}

#[test]
fn a_file_is_private_and_locked() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let inbox = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err(), SpoolError::Locked);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    inbox.close();
    open(&path).unwrap();
    let elsewhere = open(&home.path().join("missing").join("inbox.redb"));
    let not_found = std::io::ErrorKind::NotFound;
    assert_eq!(elsewhere.unwrap_err(), SpoolError::Io(not_found));
}

#[test]
fn an_unreadable_file_is_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    for (number, garbage) in [&b"not a database"[..], &[7; 100_000]].iter().enumerate() {
        fs::write(&path, garbage).unwrap();
        let inbox = open(&path).unwrap();
        assert_eq!(inbox.stats().damaged_files, number as u64 + 1);
        insert(&inbox, [1]);
    }
    assert!(aside(&path, 1).exists() && aside(&path, 2).exists());
    assert_eq!(open(&path).unwrap().stats().rows, 1);
}

/// Opens copies of a file of 60 rows with one damaged page each. Answers how many were set aside, and the rows kept of
/// those.
fn damage(home: &Path, whole: &[u8]) -> (usize, usize) {
    let (mut damaged, mut kept) = (0, 0);
    let pages = whole.len() / 4096;
    for page in (1..pages).step_by(1 + pages / 25) {
        let mut bytes = whole.to_vec();
        for byte in &mut bytes[page * 4096..page * 4096 + 64] {
            *byte ^= 0x55;
        }
        let path = home.join(format!("{page}.redb"));
        fs::write(&path, &bytes).unwrap();
        let inbox = open(&path).unwrap();
        let rows = inbox.read(DEFAULT_CONSUMER, None, ALL).unwrap();
        for row in &rows {
            let fill = row.message.payload[0];
            assert!(row.message.payload.iter().all(|byte| *byte == fill));
        }
        if inbox.stats().damaged_files > 0 {
            damaged += 1;
            kept += rows.len();
        } else {
            assert!(rows.len() >= 59, "redb goes back one commit");
        }
        insert(&inbox, [1000]);
    }
    (damaged, kept)
}

/// Damage anywhere in the file: what can be read stays, the rest is set aside, nothing panics through.
#[test]
fn damaged_pages_are_contained() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let inbox = open(&path).unwrap();
    for number in 1..=60 {
        let payload = Bytes::from(vec![u8::try_from(number).unwrap(); 2000]);
        let row = NewRow {
            payload,
            ..row(number)
        };
        inbox.insert(row).wait().unwrap();
    }
    let killed = fs::read(&path).unwrap();
    drop(inbox);
    let closed = fs::read(&path).unwrap();
    for whole in [closed, killed] {
        let (damaged, kept) = damage(home.path(), &whole);
        assert!(damaged > 5, "{damaged} pages matter");
        assert!(kept > damaged * 20, "{kept} rows of {damaged} files");
        for entry in fs::read_dir(home.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

/// The ids of a file of which nothing can be read are not used again, and those of an undamaged one go on.
#[test]
fn ids_are_new_after_damage() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let open = |now| Inbox::open(&path, InboxConfig::default(), now).unwrap();
    let insert = |inbox: &Inbox, number| match inbox.insert(row(number)).wait().unwrap() {
        Inserted::New(id) => id,
        Inserted::AlreadyPresent => panic!("row {number} is new"),
    };
    let inbox = open(NOW);
    let ids = [1, 2, 3].map(|number| insert(&inbox, number));
    assert_eq!(ids, [1, 2, 3].map(|id| (NOW.0 << 20) + id));
    drop(inbox);
    let later = NOW.saturating_add(60);
    let inbox = open(later);
    let last = insert(&inbox, 4);
    assert_eq!(last, ids[2] + 1);
    drop(inbox);
    fs::write(&path, [7; 100_000]).unwrap();
    let inbox = open(later);
    assert_eq!(*inbox.newest().borrow(), later.0 << 20);
    let first = insert(&inbox, 5);
    assert!(first > last);
    let read = inbox.read(DEFAULT_CONSUMER, Some(last), ALL).unwrap();
    assert_eq!(
        read.len(),
        1,
        "a client that goes on where it was loses nothing"
    );
}

#[test]
fn ids_fit_a_json_number() {
    for seconds in [0, NOW.0, u64::from(u32::MAX), u64::MAX] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("inbox.redb");
        let inbox = Inbox::open(&path, InboxConfig::default(), UnixSeconds(seconds)).unwrap();
        assert!(*inbox.newest().borrow() < 1 << 52);
    }
}

/// Damage under an open handle: it is closed with the reason, and opening again goes on.
#[cfg(unix)]
#[test]
fn damage_while_open_closes_the_handle() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    let inbox = Inbox::open(
        &path,
        InboxConfig {
            writer: WriterConfig {
                cache_bytes: 0,
                ..WriterConfig::default()
            },
            ..InboxConfig::default()
        },
        NOW,
    )
    .unwrap();
    insert(&inbox, 1..=200);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &file,
        &vec![0xff; usize::try_from(length).unwrap() - 4096],
        4096,
    )
    .unwrap();
    let read = inbox.read(DEFAULT_CONSUMER, None, ALL);
    assert_eq!(read.unwrap_err(), SpoolError::Damaged);
    let refused = inbox.insert(row(201)).wait();
    assert_eq!(refused.unwrap_err(), SpoolError::Damaged);
    drop(inbox);
    let inbox = open(&path).unwrap();
    assert_eq!(inbox.stats().damaged_files, 1);
    insert(&inbox, [1]);
}

#[test]
fn a_newer_format_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    drop(open(&path).unwrap());
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut info = transaction.open_table(crate::disk::INFO).unwrap();
    info.insert("format", 3).unwrap();
    drop(info);
    transaction.commit().unwrap();
    drop(database);
    let expected = SpoolError::NewerFormat { found: 3, known: 2 };
    assert_eq!(open(&path).unwrap_err(), expected);
    assert!(!aside(&path, 1).exists());
    let outbox = crate::Outbox::open(&path, crate::OutboxConfig::default(), NOW);
    assert_eq!(outbox.unwrap_err(), SpoolError::WrongFile);
}

/// An emptied file is a damaged one, not a new one.
#[test]
fn emptied_files_are_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("inbox.redb");
    drop(Inbox::open(&path, InboxConfig::default(), NOW).unwrap());
    fs::File::create(&path).unwrap();
    let inbox = Inbox::open(&path, InboxConfig::default(), NOW).unwrap();
    assert_eq!(inbox.stats().damaged_files, 1);
    assert!(home.path().join("inbox.redb.damaged-1").exists());
    inbox.insert(row(1)).wait().unwrap();
}
