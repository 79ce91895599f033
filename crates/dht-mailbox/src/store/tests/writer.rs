//! A writer that dies, and work that fails beside it.

use std::{io, sync::Arc};

use super::*;
use crate::disk::DiskFile;

/// A disk on which a write to a segment that begins with this byte panics.
#[derive(Debug)]
struct Panicking(MemoryDisk);

#[derive(Debug)]
struct PanickingFile(Arc<dyn DiskFile>);

impl Disk for Panicking {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(PanickingFile(self.0.open(name)?)))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        assert_ne!(to, crate::copy::COPY_NAME, "a defect of the copier");
        self.0.rename(from, to)
    }
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for PanickingFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(data.len() < 5_000, "a defect of the writer");
        self.0.write(offset, data)
    }
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_size(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_dead_writer_is_named() {
    let store = Store::open_on(Panicking(MemoryDisk::new()), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    assert!(store.health().is_ok());
    let died = put(&store, message(2, 1, 6_000));
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
fn a_panic_beside_the_writer_fails_one_copy() {
    let store = Store::open_on(Panicking(MemoryDisk::new()), small()).unwrap();
    put(&store, message(1, 1, 10)).unwrap();
    let failed = block_on(store.checkpoint());
    assert!(matches!(failed, Err(StoreError::Io(_))), "{failed:?}");
    put(&store, message(2, 1, 10)).unwrap();
    assert_eq!(numbers(&store, 1), [1, 2]);
}
