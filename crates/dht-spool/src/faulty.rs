//! A disk in memory that fails, fills up and forgets, on demand.

use std::{io, sync::Arc};

use dht_datafile::DataFile;
use parking_lot::Mutex;
use redb::StorageBackend;

/// One file in memory with a memory of what was synced. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As the last sync left it.
    durable: Vec<u8>,
    /// Writes since then.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Writes, resizes and syncs so far.
    operations: u64,
    /// The operation that fails, and all after it.
    fail_at: Option<u64>,
    /// Bytes the disk holds before it is full.
    capacity: Option<usize>,
}

impl FaultyDisk {
    pub(crate) fn file(&self) -> DataFile {
        let disk = self.clone();
        DataFile::on(move || Ok(Box::new(disk.clone())), 1 << 20)
    }

    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().bytes.len()
    }

    /// Lets this operation fail, and all after it; `None` repairs the disk.
    pub(crate) fn fail_at(&self, operation: Option<u64>) {
        self.0.lock().fail_at = operation;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.0.lock().capacity = bytes;
    }

    /// The disk as the end of the process leaves it: everything written is there.
    pub(crate) fn kill(&self) -> Self {
        Self::of(self.0.lock().bytes.clone())
    }

    /// The disk as a power failure leaves it: what was synced, and of the writes since then what `seed` says.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let content = self.0.lock();
        let mut bytes = content.durable.clone();
        let mut random = seed | 1;
        for (offset, data) in &content.unsynced {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let keep = match random % 3 {
                0 => continue,
                1 => data.len() / 2,
                _ => data.len(),
            };
            if bytes.len() < offset + keep {
                bytes.resize(offset + keep, 0);
            }
            bytes[*offset..offset + keep].copy_from_slice(&data[..keep]);
        }
        if bytes.len() < content.bytes.len() {
            bytes.resize(content.bytes.len(), 0);
        }
        Self::of(bytes)
    }

    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Content {
            durable: bytes.clone(),
            bytes,
            ..Content::default()
        })))
    }
}

impl Content {
    fn step(&mut self) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        match self.fail_at {
            Some(at) if now >= at => Err(io::Error::other("fault to order")),
            _ => Ok(()),
        }
    }

    fn room(&self, len: usize) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if len > capacity.max(self.bytes.len()) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let content = self.0.lock();
        let bytes = content.bytes.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut content = self.0.lock();
        content.step()?;
        content.room(len)?;
        content.bytes.resize(len, 0);
        // A shorter length takes effect at once, as file systems journal it.
        content.durable.truncate(len);
        content.unsynced.retain_mut(|(offset, data)| {
            data.truncate(len.saturating_sub(*offset));
            !data.is_empty()
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock();
        content.step()?;
        content.durable = content.bytes.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let mut content = self.0.lock();
        content.step()?;
        content.room(end)?;
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(data);
        content.unsynced.push((start, data.to_vec()));
        Ok(())
    }
}
