//! A disk that fills up shows in the metrics. In a process of its own, as the recorder is global.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_mailbox::{
    Disk, DiskFile, MemoryDisk, NewRecord, Query, Recipient, Retention, Store, StoreConfig,
    StoreError,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[derive(Debug)]
struct Filling {
    disk: MemoryDisk,
    full: Arc<AtomicBool>,
}

#[derive(Debug)]
struct File {
    inner: Arc<dyn DiskFile>,
    full: Arc<AtomicBool>,
}

impl Disk for Filling {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File {
            inner: self.disk.open(name)?,
            full: self.full.clone(),
        }))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_size(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(offset, data)
    }
}

fn message(n: u8) -> NewRecord {
    NewRecord {
        recipient: Recipient::from_bytes([1; 32]),
        deliverer: Deliverer::from_bytes([2; 32]),
        hash: DedupHash([n; 32]),
        retention: Retention::High,
        expires: None,
        header: Bytes::from_static(b"header"),
        body: Bytes::from_static(b"body"),
    }
}

#[tokio::test]
async fn full_disk_is_counted_and_passes() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let disk = Filling {
        disk: MemoryDisk::new(),
        full: full.clone(),
    };
    let store = Store::open_on(disk, StoreConfig::default()).unwrap();
    let now = UnixSeconds(1_700_000_000);
    let put = |n| store.insert(message(n), now);

    put(1).await.unwrap();
    // Or what opening brought is made durable meanwhile, and its failure counts as well.
    store.checkpoint().await.unwrap();
    full.store(true, Ordering::SeqCst);
    assert!(matches!(put(2).await, Err(StoreError::DiskFull)));
    assert!(matches!(put(3).await, Err(StoreError::DiskFull)));
    let held = store
        .fetch(&Query::all(Recipient::from_bytes([1; 32]), now))
        .unwrap();
    assert_eq!(held.records.len(), 1, "reading goes on");
    full.store(false, Ordering::SeqCst);
    put(2).await.unwrap();
    put(2).await.unwrap();

    let mut counted = std::collections::BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let DebugValue::Counter(value) = value {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| label.value().to_owned())
                .collect();
            counted.insert((key.key().name().to_owned(), labels.join(",")), value);
        }
    }
    let count =
        |name: &str, label: &str| counted.get(&(name.to_owned(), label.to_owned())).copied();
    assert_eq!(count("dht_mailbox_inserts_total", "fresh"), Some(2));
    assert_eq!(count("dht_mailbox_inserts_total", "known"), Some(1));
    assert_eq!(count("dht_mailbox_inserts_total", "disk_full"), Some(2));
    assert_eq!(count("dht_mailbox_failures_total", "disk_full"), Some(2));
}
