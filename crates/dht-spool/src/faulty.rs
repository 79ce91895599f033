//! A disk in memory that fails, fills up and forgets, on demand.

use std::{io, sync::Arc};

use dht_datafile::{DataFile, TestFolder};
use parking_lot::Mutex;
use redb::StorageBackend;

/// A file in memory with a memory of what was synced, and the one that is to take its place. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
    /// Reads and writes are of the file that is to take the place of the other.
    is_new: bool,
}

#[derive(Debug, Default)]
struct State {
    file: Content,
    new: Content,
    /// Writes, resizes and syncs so far.
    operations: u64,
    /// The operation that fails, and all after it.
    fail_at: Option<u64>,
    /// Bytes the disk holds before it is full.
    capacity: Option<usize>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As the syncs left it.
    durable: Vec<u8>,
    /// Writes since the last one.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl FaultyDisk {
    pub(crate) fn file(&self) -> DataFile {
        DataFile::on(self.clone(), 1 << 20)
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().file.bytes.len()
    }

    /// Lets this operation fail, and all after it; `None` repairs the disk.
    pub(crate) fn fail_at(&self, operation: Option<u64>) {
        self.state.lock().fail_at = operation;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.state.lock().capacity = bytes;
    }

    /// The disk as the end of the process leaves it: everything written is there.
    pub(crate) fn kill(&self) -> Self {
        Self::of(self.state.lock().file.bytes.clone())
    }

    /// The disk as a power failure leaves it: what was synced, and of the writes since then what `seed` says.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let content = &state.file;
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
        let file = Content {
            durable: bytes.clone(),
            bytes,
            unsynced: Vec::new(),
        };
        let state = State {
            file,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            is_new: false,
        }
    }
}

impl State {
    /// Counts an operation, and gives the file it is of.
    fn step(&mut self, is_new: bool) -> io::Result<&mut Content> {
        let now = self.operations;
        self.operations += 1;
        match self.fail_at {
            Some(at) if now >= at => Err(io::Error::other("fault to order")),
            _ => Ok(self.content(is_new)),
        }
    }

    fn content(&mut self, is_new: bool) -> &mut Content {
        match is_new {
            true => &mut self.new,
            false => &mut self.file,
        }
    }

    fn room(&self, is_new: bool, len: usize) -> io::Result<()> {
        let used = match is_new {
            true => self.new.bytes.len(),
            false => self.file.bytes.len(),
        };
        match self.capacity {
            Some(capacity) if len > capacity.max(used) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Content {
    /// Only what was written since the last sync: of one that failed, the disk keeps in memory what it did not write.
    fn sync(&mut self) {
        for (offset, data) in std::mem::take(&mut self.unsynced) {
            let end = offset + data.len();
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[offset..end].copy_from_slice(&data);
        }
        self.durable.resize(self.bytes.len(), 0);
    }
}

impl TestFolder for FaultyDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }

    fn open_new(&self) -> io::Result<Box<dyn StorageBackend>> {
        self.state.lock().new = Content::default();
        Ok(Box::new(Self {
            is_new: true,
            ..self.clone()
        }))
    }

    fn take_new(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(true)?.sync();
        state.file = std::mem::take(&mut state.new);
        Ok(())
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().content(self.is_new).bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut state = self.state.lock();
        let content = state.content(self.is_new);
        let bytes = content.bytes.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut state = self.state.lock();
        state.step(self.is_new)?;
        state.room(self.is_new, len)?;
        let content = state.content(self.is_new);
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
        let mut state = self.state.lock();
        match state.step(self.is_new) {
            Ok(content) => {
                content.sync();
                Ok(())
            }
            Err(error) => {
                state.content(self.is_new).unsynced.clear();
                Err(error)
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let mut state = self.state.lock();
        state.step(self.is_new)?;
        state.room(self.is_new, end)?;
        let content = state.content(self.is_new);
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(data);
        content.unsynced.push((start, data.to_vec()));
        Ok(())
    }
}
