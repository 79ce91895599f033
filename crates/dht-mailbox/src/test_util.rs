//! Doubles for the tests of this and other crates: a disk that fails, tears and forgets on demand.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// A disk in memory with faults to order and a memory of what was synced.
///
/// [`FaultyDisk::crash`] gives the disk as a power failure would leave it: of everything written since the last
/// sync of each file, an arbitrary part is there.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names as the last [`Disk::sync_names`] left them.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    faults: Faults,
    /// Writes and syncs so far.
    operations: u64,
}

/// Faults that a [`FaultyDisk`] injects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The operation (write, sync, resize, rename, counted from the start) that fails, with all after it for `span`.
    pub fail_at: Option<u64>,
    /// How many operations fail from there on; 0 counts as 1.
    pub span: u64,
    /// Whether a failing operation panics.
    pub panics: bool,
    /// Whether a failing write leaves half of its bytes.
    pub tear: bool,
    /// Bytes the disk holds before it is full.
    pub capacity: Option<u64>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Handle {
    content: Arc<Mutex<Content>>,
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Writes, syncs, resizes and renames so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Bytes in all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        let state = self.state.lock();
        state
            .files
            .values()
            .map(|file| file.lock().bytes.len() as u64)
            .sum()
    }

    /// The disk as the end of the process leaves it: everything written is there.
    #[must_use]
    pub fn kill(&self) -> Self {
        self.copy(|content| content.bytes.clone(), false)
    }

    /// The disk as a power failure leaves it: what was synced, and of the rest what `seed` says.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = seed | 1;
        self.copy(
            |content| {
                let mut bytes = content.durable.clone();
                for (offset, data) in &content.unsynced {
                    // xorshift: a third is lost, a third torn, a third there
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let keep = match random % 3 {
                        0 => continue,
                        1 => data.len() / 2,
                        _ => data.len(),
                    };
                    let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                    if bytes.len() < start + keep {
                        bytes.resize(start + keep, 0);
                    }
                    if let (Some(target), Some(source)) =
                        (bytes.get_mut(start..start + keep), data.get(..keep))
                    {
                        target.copy_from_slice(source);
                    }
                }
                // A length that was not synced may be there or not.
                if random.is_multiple_of(2) && bytes.len() < content.bytes.len() {
                    bytes.resize(content.bytes.len(), 0);
                }
                bytes
            },
            true,
        )
    }

    fn copy(&self, mut survive: impl FnMut(&Content) -> Vec<u8>, synced_names: bool) -> Self {
        let state = self.state.lock();
        let names = if synced_names {
            &state.durable_names
        } else {
            &state.files
        };
        let files: BTreeMap<_, _> = names
            .iter()
            .map(|(name, file)| {
                let bytes = survive(&file.lock());
                let content = Content {
                    durable: bytes.clone(),
                    bytes,
                    unsynced: Vec::new(),
                };
                (name.clone(), Arc::new(Mutex::new(content)))
            })
            .collect();
        let state = State {
            durable_names: files.clone(),
            files,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl State {
    /// Counts an operation and says whether it fails.
    fn step(&mut self) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        match self.faults.fail_at {
            Some(at) if now >= at && now - at < self.faults.span.max(1) => {
                assert!(!self.faults.panics, "fault to order");
                Err(io::Error::other("fault to order"))
            }
            _ => Ok(()),
        }
    }

    fn room(&self, more: u64) -> io::Result<()> {
        let used: u64 = self
            .files
            .values()
            .map(|file| file.lock().bytes.len() as u64)
            .sum();
        match self.faults.capacity {
            Some(capacity) if used + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let content = self
            .state
            .lock()
            .files
            .entry(name.to_owned())
            .or_default()
            .clone();
        Ok(Arc::new(Handle {
            content,
            state: self.state.clone(),
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().files.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().files.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.durable_names = state.files.clone();
        Ok(())
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = self.content.lock();
        let bytes = content.bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let length = self.content.lock().bytes.len() as u64;
        state.room(len.saturating_sub(length))?;
        let mut content = self.content.lock();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        content.bytes.resize(len, 0);
        // Correctness of the model: a shorter length takes effect at once, as file systems journal it.
        content.durable.truncate(len);
        content.unsynced.retain_mut(|(offset, data)| {
            let room = len.saturating_sub(usize::try_from(*offset).unwrap_or(usize::MAX));
            data.truncate(room);
            !data.is_empty()
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let outcome = self.state.lock().step();
        let mut content = self.content.lock();
        let unsynced = std::mem::take(&mut content.unsynced);
        // A failed sync leaves in memory what it did not write, and no later one writes it.
        outcome?;
        for (offset, data) in unsynced {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let end = start.saturating_add(data.len());
            if content.durable.len() < end {
                content.durable.resize(end, 0);
            }
            if let Some(target) = content.durable.get_mut(start..end) {
                target.copy_from_slice(&data);
            }
        }
        let length = content.bytes.len();
        content.durable.resize(length, 0);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.step();
        let data = match &outcome {
            Err(_) if state.faults.tear => data.get(..data.len() / 2).unwrap_or_default(),
            Err(_) => return outcome,
            Ok(()) => data,
        };
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.saturating_add(data.len());
        let length = self.content.lock().bytes.len();
        state.room(end.saturating_sub(length) as u64)?;
        let mut content = self.content.lock();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        if let Some(target) = content.bytes.get_mut(start..end) {
            target.copy_from_slice(data);
        }
        content.unsynced.push((offset, data.to_vec()));
        outcome
    }
}
