//! The index file, written later and by another thread.
//!
//! A commit of the index need not be on the device when it returns: everything since the last one that is can be
//! read again from the log. So nobody who waits for the writer should wait for the index: what redb writes is kept
//! in memory, in order and with the syncs between, until [`IndexFile::settle`] does it all. Reads see it at once.
//!
//! The order is what makes a file that was left half way readable: redb overwrites, after a commit, pages that only
//! the state before it used. A settling that fails is owed in full, and tried again with the next one: a full disk
//! takes nothing from what is in memory.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::disk::DiskFile;

/// Bytes that may be owed before whoever writes more pays.
const MOST_OWED: u64 = 96 << 20;

/// The index file.
#[derive(Debug)]
pub(super) struct IndexFile {
    inner: DiskFile,
    /// Held by whoever pays.
    paying: Mutex<()>,
    debt: Mutex<Debt>,
    /// The file is given up: whoever still holds it must not touch it.
    retired: AtomicBool,
}

/// Hands an [`IndexFile`] to redb while the store keeps hold of it.
#[derive(Debug)]
pub(super) struct IndexHandle(pub(super) Arc<IndexFile>);

#[derive(Debug, Default)]
struct Debt {
    /// Whether changes are owed instead of made.
    deferred: bool,
    /// What is owed, in order.
    owed: Vec<Change>,
    /// The same writes by place and number.
    pages: BTreeMap<(u64, u64), Arc<[u8]>>,
    /// Changes so far.
    count: u64,
    bytes: u64,
    /// The longest write in `pages`.
    longest: u64,
    /// The length once everything is paid, if it changes.
    length: Option<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    /// Offset, number, bytes.
    Write(u64, u64, Arc<[u8]>),
    Resize(u64),
    Sync,
}

impl IndexFile {
    pub(super) fn new(inner: DiskFile) -> Self {
        Self {
            inner,
            paying: Mutex::new(()),
            debt: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Changes are owed from now on.
    pub(super) fn defer(&self) {
        self.debt.lock().deferred = true;
    }

    /// Changes are made at once from now on, unless some are still owed.
    pub(super) fn stop_deferring(&self) {
        let mut debt = self.debt.lock();
        debt.deferred = !debt.owed.is_empty();
    }

    /// Does everything that is owed.
    pub(super) fn settle(&self) -> io::Result<()> {
        let _paying = self.paying.lock();
        let owed = self.debt.lock().owed.clone();
        for change in &owed {
            self.check()?;
            match change {
                Change::Write(offset, _, data) => self.inner.write(*offset, data)?,
                Change::Resize(length) => self.inner.set_len(*length)?,
                Change::Sync => self.inner.sync_data()?,
            }
        }
        if !matches!(owed.last(), None | Some(Change::Sync)) {
            self.inner.sync_data()?;
        }
        self.debt.lock().paid(owed.len());
        Ok(())
    }

    /// Refuses every change from now on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        // Correctness: whoever is paying has either stopped or will not touch the file any more.
        drop(self.paying.lock());
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        let length = self.debt.lock().length;
        length.map_or_else(|| self.inner.len(), Ok)
    }

    fn check(&self) -> io::Result<()> {
        if self.retired.load(Ordering::SeqCst) {
            Err(io::Error::other("index file was given up"))
        } else {
            Ok(())
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(out.len()).map_err(io::Error::other)?;
        let (pages, resized) = {
            let debt = self.debt.lock();
            (debt.overlapping(offset, length), debt.length.is_some())
        };
        let whole = |page: &(u64, Arc<[u8]>)| page.0 == offset && page.1.len() == out.len();
        if let Some((_, data)) = pages.last().filter(|page| whole(page)) {
            out.copy_from_slice(data);
            return Ok(());
        }
        if resized {
            // What lies behind the end that the file has so far is either owed or zero.
            let there = self.inner.len()?.saturating_sub(offset).min(length);
            let there = usize::try_from(there).map_err(io::Error::other)?;
            let (known, rest) = out.split_at_mut(there);
            self.inner.read(offset, known)?;
            rest.fill(0);
        } else {
            self.inner.read(offset, out)?;
        }
        for (start, data) in pages {
            patch(out, offset, start, &data);
        }
        Ok(())
    }

    /// Owes a change, or says that it has to be made now.
    fn owe(&self, change: impl FnOnce(u64) -> Change) -> io::Result<bool> {
        self.check()?;
        let mut debt = self.debt.lock();
        if !debt.deferred {
            return Ok(false);
        }
        debt.count = debt.count.saturating_add(1);
        let change = change(debt.count);
        debt.add(change);
        let much = debt.bytes > MOST_OWED;
        drop(debt);
        if much {
            self.settle()?;
        }
        Ok(true)
    }
}

impl Debt {
    fn add(&mut self, change: Change) {
        match &change {
            Change::Write(offset, number, data) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                self.bytes = self.bytes.saturating_add(length);
                self.longest = self.longest.max(length);
                self.pages.insert((*offset, *number), data.clone());
            }
            Change::Resize(length) => {
                self.length = Some(*length);
                let _cut = self.pages.split_off(&(*length, 0));
            }
            Change::Sync => {}
        }
        self.owed.push(change);
    }

    /// The first `changes` are made.
    fn paid(&mut self, changes: usize) {
        for change in self.owed.drain(..changes) {
            if let Change::Write(offset, number, data) = change {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                self.bytes = self.bytes.saturating_sub(length);
                self.pages.remove(&(offset, number));
            }
        }
        if self.pages.is_empty() {
            self.longest = 0;
        }
        let resizes = |change: &Change| matches!(change, Change::Resize(_));
        if !self.owed.iter().any(resizes) {
            self.length = None;
        }
    }

    /// What is owed to these bytes, in the order in which it was written.
    fn overlapping(&self, offset: u64, length: u64) -> Vec<(u64, Arc<[u8]>)> {
        let first = offset.saturating_sub(self.longest);
        let mut found: Vec<_> = self
            .pages
            .range((first, 0)..(offset.saturating_add(length), 0))
            .filter(|((start, _), data)| {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                start.saturating_add(length) > offset
            })
            .map(|((start, number), data)| (*number, *start, data.clone()))
            .collect();
        found.sort_unstable_by_key(|(number, ..)| *number);
        found
            .into_iter()
            .map(|(_, start, data)| (start, data))
            .collect()
    }
}

/// Copies what `data`, which lies at `start`, has of the bytes `out`, which lie at `offset`.
fn patch(out: &mut [u8], offset: u64, start: u64, data: &[u8]) {
    let ahead = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let (into, skip) = (ahead(offset, start), ahead(start, offset));
    let (Some(target), Some(source)) = (out.get_mut(into..), data.get(skip..)) else {
        return;
    };
    for (to, from) in target.iter_mut().zip(source) {
        *to = *from;
    }
}

impl StorageBackend for IndexHandle {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.0.owe(|_| Change::Resize(len))? {
            return Ok(());
        }
        self.0.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.owe(|_| Change::Sync)? {
            return Ok(());
        }
        self.0.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self
            .0
            .owe(|number| Change::Write(offset, number, data.into()))?
        {
            return Ok(());
        }
        self.0.inner.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        disk::Disk as _,
        test_util::{Faults, FaultyDisk},
    };

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize, u8),
        Grow(u64),
        Sync,
        Settle,
        Fail,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Blocks of 4 bytes and their multiples, as pages are.
        let write = (0_u64..16, 0_u32..3, any::<u8>()).prop_map(|(at, order, byte)| {
            let length = 4_usize << order;
            Step::Write(at * 4 / length as u64 * length as u64, length, byte)
        });
        let step = prop_oneof![
            8 => write,
            1 => (1_u64..16).prop_map(Step::Grow),
            1 => Just(Step::Sync),
            2 => Just(Step::Settle),
            1 => Just(Step::Fail),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn what_is_owed_reads_as_if_it_were_written(steps in steps()) {
            let disk = FaultyDisk::new();
            let file = disk.open("index").unwrap();
            file.set_len(64).unwrap();
            let handle = IndexHandle(Arc::new(IndexFile::new(file.clone())));
            handle.0.defer();
            let mut model = vec![0; 64];
            for step in steps {
                match step {
                    Step::Write(at, length, byte) => {
                        let at_ = usize::try_from(at).unwrap();
                        if at_ + length <= model.len() {
                            handle.write(at, &vec![byte; length]).unwrap();
                            model[at_..at_ + length].fill(byte);
                        }
                    }
                    Step::Grow(by) => {
                        model.resize(model.len() + usize::try_from(by * 4).unwrap(), 0);
                        handle.set_len(model.len() as u64).unwrap();
                    }
                    Step::Sync => handle.sync_data().unwrap(),
                    Step::Settle => handle.0.settle().unwrap(),
                    Step::Fail => {
                        disk.set_faults(Faults { fail_at: Some(disk.operations() + 1), tear: true, ..Faults::default() });
                        let _ = handle.0.settle();
                        disk.set_faults(Faults::default());
                    }
                }
                prop_assert_eq!(handle.len().unwrap(), model.len() as u64);
                let mut all = vec![1; model.len()];
                handle.read(0, &mut all).unwrap();
                prop_assert_eq!(&all, &model);
                let mut block = [1; 4];
                handle.read(8, &mut block).unwrap();
                prop_assert_eq!(&block, &model[8..12]);
            }
            handle.0.settle().unwrap();
            let mut written = vec![1; model.len()];
            file.read(0, &mut written).unwrap();
            prop_assert_eq!(written, model);
        }
    }

    #[test]
    fn nothing_is_written_before_it_is_paid_for_or_after_it_is_given_up() {
        let disk = FaultyDisk::new();
        let file = disk.open("index").unwrap();
        let handle = IndexHandle(Arc::new(IndexFile::new(file.clone())));
        handle.0.defer();
        handle.set_len(8).unwrap();
        handle.write(0, b"12345678").unwrap();
        assert_eq!(file.len().unwrap(), 0);
        handle.0.settle().unwrap();
        assert_eq!(file.len().unwrap(), 8);
        handle.write(0, b"abcdefgh").unwrap();
        handle.0.retire();
        assert!(handle.0.settle().is_err() && handle.write(0, b"x").is_err());
        let mut kept = [0; 8];
        file.read(0, &mut kept).unwrap();
        assert_eq!(&kept, b"12345678");
    }
}
