//! A writer that dies, and work that fails beside it.

use super::*;
use crate::test_util::Faults;

/// Lets the next operation of the disk panic.
fn panic_next(disk: &FaultyDisk) {
    disk.set_faults(Faults {
        fail_at: Some(disk.operations()),
        panics: true,
        ..Faults::default()
    });
}

#[test]
fn a_dead_writer_is_named() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    assert!(store.health().is_ok());
    panic_next(&disk);
    let died = put(&store, message(2, 1, 10));
    assert!(matches!(died, Err(StoreError::WriterDied)), "{died:?}");
    // The caller may have its answer before the thread has ended.
    while store.health().is_ok() {
        std::thread::yield_now();
    }
    let query = Query::all(recipient(1), NOW);
    for outcome in [
        put(&store, message(3, 1, 10)).map(drop),
        block_on(store.insert(message(3, 1, 10), NOW)).map(drop),
        block_on(store.delete(vec![RowId(1)], None)).map(drop),
        block_on(store.expire(NOW)).map(drop),
        block_on(store.checkpoint()),
        store.fetch(&query).map(drop),
        store.list(recipient(1), 1).map(drop),
        store.mailboxes(None, 1).map(drop),
        store.verify().map(drop),
        store.health(),
    ] {
        assert!(
            matches!(outcome, Err(StoreError::WriterDied)),
            "{outcome:?}"
        );
    }
    store.close();
    assert!(matches!(store.health(), Err(StoreError::WriterDied)));
}

#[test]
fn panicking_copier_fails_one_copy() {
    let disk = FaultyDisk::new();
    let store = Store::open_on(disk.clone(), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    panic_next(&disk);
    let failed = block_on(store.checkpoint());
    assert!(matches!(failed, Err(StoreError::Io(_))), "{failed:?}");
    put(&store, message(2, 1, 10)).unwrap();
    assert_eq!(numbers(&store, 1), [1, 2]);
}
