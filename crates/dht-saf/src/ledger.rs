//! The messages a node has received, and how far it has read the store of each responder.
//!
//! The dedup table forgets within a day, while nodes store messages for three days. Without the ledger a node that
//! returns would be served messages that it has.

#[cfg(feature = "redb")]
mod file;
mod received;
mod state;

use std::fmt;

use dht_core::{DedupHash, Deliverer, PublicKey, UnixSeconds};
use dht_mailbox::StoreError;
use parking_lot::Mutex;

use self::state::{Changes, State};

/// Responders whose watermark is remembered. Beyond it the one with the oldest watermark is forgotten.
const MAX_RESPONDERS: usize = 4096;

/// Received messages and the watermark of each responder, in memory and in a file. At most 200 000 messages, in equal shares for all
/// deliverers that need theirs, and 4096 watermarks.
///
/// Entries that the file did not take, as when the disk is full, are written by the next [`Ledger::flush`] that
/// succeeds.
pub struct Ledger {
    /// `None` for a ledger that ends with the process.
    #[cfg(feature = "redb")]
    file: Option<file::LedgerFile>,
    state: Mutex<State>,
}

impl Ledger {
    /// Opens the ledger in this file, which is created if it does not exist. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Locked`] while another process has the file open.
    #[cfg(feature = "redb")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, StoreError> {
        file::LedgerFile::at(path.as_ref()).map(Self::of)
    }

    /// A ledger that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            #[cfg(feature = "redb")]
            file: None,
            state: Mutex::default(),
        }
    }

    /// Whether calls wait for a device: false in memory.
    #[must_use]
    pub const fn blocks(&self) -> bool {
        #[cfg(feature = "redb")]
        return self.file.is_some();
        #[cfg(not(feature = "redb"))]
        false
    }

    /// Damaged files beside the one in use.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        #[cfg(feature = "redb")]
        return self
            .file
            .as_ref()
            .map_or(0, file::LedgerFile::damaged_files);
        #[cfg(not(feature = "redb"))]
        0
    }

    #[cfg(feature = "redb")]
    fn of((file, state): (file::LedgerFile, State)) -> Self {
        Self {
            file: Some(file),
            state: Mutex::new(state),
        }
    }

    /// The newest second of this responder's store that was read, on its clock.
    #[must_use]
    pub fn watermark(&self, responder: &PublicKey) -> Option<UnixSeconds> {
        self.state
            .lock()
            .watermarks
            .get(responder.as_bytes())
            .copied()
    }

    /// Whether this message was received before.
    #[must_use]
    pub fn contains(&self, hash: &DedupHash) -> bool {
        self.state.lock().received.contains(hash)
    }

    /// Remembers messages of one deliverer until a time, durably when it returns. Blocks.
    ///
    /// # Errors
    /// When the device fails. They are remembered until the process ends, and the next [`Ledger::flush`] writes them.
    pub fn receive(
        &self,
        hashes: &[DedupHash],
        until: UnixSeconds,
        from: Deliverer,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for hash in hashes {
            state.remember(*hash, until, from);
        }
        let mut changes = state.take_noted();
        drop(state);
        let received = hashes.iter().map(|hash| (*hash, until, from));
        changes.received.extend(received);
        self.write_noted(changes)
    }

    /// Remembers a message that arrived live, so that it is not accepted out of a store again. Does not block: the next
    /// [`Ledger::flush`] writes it.
    pub fn note(&self, hash: DedupHash, until: UnixSeconds, from: Deliverer) {
        let mut state = self.state.lock();
        state.remember(hash, until, from);
        state.note(hash, until, from);
    }

    /// Writes the entries not yet written. Blocks.
    ///
    /// # Errors
    /// When the device fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        let noted = self.state.lock().take_noted();
        if noted.is_empty() {
            return Ok(());
        }
        self.write_noted(noted)
    }

    /// Every message remembered, and until when: the dedup table of a new run begins with these.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(DedupHash, UnixSeconds)> {
        let rows = self.state.lock().received.snapshot();
        rows.into_iter().map(|row| (row.0, row.1)).collect()
    }

    /// Records how far a responder was read; an earlier second than before changes nothing. Blocks.
    ///
    /// # Errors
    /// When the device fails. It is remembered until the process ends.
    pub fn read_up_to(&self, responder: &PublicKey, at: UnixSeconds) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        {
            let mut state = self.state.lock();
            let mark = state.watermarks.entry(*responder.as_bytes()).or_default();
            if *mark >= at {
                return Ok(());
            }
            *mark = at;
            changes.watermarks.push((*responder.as_bytes(), at));
            if state.watermarks.len() > MAX_RESPONDERS
                && let Some((_, oldest)) =
                    state.watermarks.iter().map(|(key, at)| (*at, *key)).min()
            {
                state.watermarks.remove(&oldest);
                changes.dropped.push(oldest);
            }
        }
        self.write(&changes)
    }

    /// Forgets messages whose time is over; returns how many. Blocks.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prune(&self, now: UnixSeconds) -> Result<usize, StoreError> {
        let changes = Changes {
            forgotten: self.state.lock().prune(now),
            ..Changes::default()
        };
        if !changes.is_empty() {
            self.write(&changes)?;
        }
        Ok(changes.forgotten.len())
    }

    /// Forgets the messages that `is_lost` names, as the application's inbox has lost them, and has each responder read
    /// again from `seconds` earlier, durably when it returns. Returns how many. Blocks.
    ///
    /// # Errors
    /// When the device fails; the messages are remembered then.
    pub fn forget(
        &self,
        is_lost: impl Fn(&DedupHash) -> bool,
        seconds: u64,
    ) -> Result<usize, StoreError> {
        let mut changes = Changes::default();
        let lost: Vec<_> = {
            let mut state = self.state.lock();
            let lost = state.forget(&is_lost);
            for (key, mark) in &mut state.watermarks {
                *mark = UnixSeconds(mark.0.saturating_sub(seconds));
                changes.watermarks.push((*key, *mark));
            }
            lost
        };
        changes.forgotten = lost.iter().map(|row| row.0).collect();
        if let Err(error) = self.write(&changes) {
            let mut state = self.state.lock();
            for (hash, until, from) in lost {
                state.remember(hash, until, from);
            }
            return Err(error);
        }
        Ok(lost.len())
    }

    /// Writes the entries not yet written and closes the file, so that it can be opened again. Blocks.
    ///
    /// # Errors
    /// When the device fails; it is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let flushed = match self.flush() {
            Err(StoreError::Closed) => Ok(()),
            other => other,
        };
        #[cfg(feature = "redb")]
        if let Some(file) = &self.file {
            file.close();
        }
        flushed
    }

    /// Number of messages remembered as received.
    #[must_use]
    pub fn received(&self) -> usize {
        self.state.lock().received.len()
    }

    /// Bytes of memory that the ledger takes, room for further messages included.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.state.lock().allocated_bytes()
    }

    /// Writes, and keeps the rows for the next time if that fails.
    fn write_noted(&self, changes: Changes) -> Result<(), StoreError> {
        let written = self.write(&changes);
        if written.is_err() {
            self.state.lock().note_again(changes);
        }
        written
    }

    #[cfg(feature = "redb")]
    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        self.file.as_ref().map_or(Ok(()), |file| {
            file.write(changes, || self.state.lock().all())
        })
    }

    #[cfg(not(feature = "redb"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "a file may fail"
    )]
    const fn write(&self, _changes: &Changes) -> Result<(), StoreError> {
        Ok(())
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("received", &self.received())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "redb")]
#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use dht_core::test_util::public_key;
    use dht_mailbox::{
        Disk as _, DiskFile,
        test_util::{Faults, FaultyDisk},
    };

    use dht_datafile::{DataFile, TestFolder};

    use super::{state::MAX_RECEIVED, *};

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
    const FROM: Deliverer = Deliverer::from_bytes([1; 32]);

    #[test]
    fn a_restart_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let (hash, peer) = (DedupHash([7; 32]), public_key(1));
        {
            let ledger = Ledger::open(&path).unwrap();
            ledger
                .receive(&[hash], NOW.saturating_add(10), FROM)
                .unwrap();
            ledger.read_up_to(&peer, NOW).unwrap();
            ledger.read_up_to(&peer, UnixSeconds(5)).unwrap();
        }
        let ledger = Ledger::open(&path).unwrap();
        assert!(ledger.contains(&hash) && !ledger.contains(&DedupHash([8; 32])));
        assert_eq!(ledger.watermark(&peer), Some(NOW), "it does not step back");
        assert_eq!(ledger.watermark(&public_key(2)), None);
        let noted = DedupHash([9; 32]);
        ledger.note(noted, NOW.saturating_add(20), FROM);
        assert!(ledger.contains(&noted));
        ledger.flush().unwrap();
        drop(ledger);
        let ledger = Ledger::open(&path).unwrap();
        assert!(ledger.contains(&noted));
        assert_eq!(ledger.snapshot().len(), 2);
        assert_eq!(ledger.prune(NOW.saturating_add(10)).unwrap(), 0);
        assert_eq!(ledger.prune(NOW.saturating_add(11)).unwrap(), 1);
        assert!(!ledger.contains(&hash));
    }

    #[test]
    fn lost_messages_are_fetched_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let [kept, lost, noted] = [7, 8, 9].map(|n| DedupHash([n; 32]));
        let until = NOW.saturating_add(10);
        {
            let ledger = Ledger::open(&path).unwrap();
            ledger.receive(&[kept, lost], until, FROM).unwrap();
            ledger.note(noted, until, FROM);
            ledger.read_up_to(&public_key(1), NOW).unwrap();
            assert_eq!(ledger.forget(|hash| *hash != kept, 100).unwrap(), 2);
            assert!(ledger.contains(&kept) && !ledger.contains(&lost));
            assert!(!ledger.contains(&noted));
        }
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.snapshot(), [(kept, until)]);
        let mark = ledger.watermark(&public_key(1));
        assert_eq!(mark, Some(UnixSeconds(NOW.0 - 100)));
    }

    #[test]
    fn losses_not_written_are_remembered() {
        let disk = FaultyDisk::new();
        let ledger = on(&disk);
        let lost = DedupHash([7; 32]);
        ledger.receive(&[lost], NOW, FROM).unwrap();
        disk.set_faults(Faults {
            fail_at: Some(disk.operations() + 1),
            span: 1_000,
            ..Faults::default()
        });
        ledger.forget(|_| true, 100).unwrap_err();
        assert!(ledger.contains(&lost));
        disk.set_faults(Faults::default());
        assert_eq!(ledger.forget(|_| true, 100).unwrap(), 1);
        assert!(!on(&disk.kill()).contains(&lost));
    }

    #[derive(Debug)]
    struct File(Arc<dyn DiskFile>);

    impl redb::StorageBackend for File {
        fn len(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_size(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    struct Folder(FaultyDisk);

    impl TestFolder for Folder {
        fn open(&self) -> io::Result<Box<dyn redb::StorageBackend>> {
            Ok(Box::new(File(self.0.open("ledger")?)))
        }
        fn open_new(&self) -> io::Result<Box<dyn redb::StorageBackend>> {
            let new = self.0.open("ledger.new")?;
            new.set_size(0)?;
            Ok(Box::new(File(new)))
        }
        fn take_new(&self) -> io::Result<()> {
            self.0.open("ledger.new")?.sync()?;
            self.0.rename("ledger.new", "ledger")
        }
    }

    fn on(disk: &FaultyDisk) -> Ledger {
        let file = DataFile::on(Folder(disk.clone()), 1 << 20);
        Ledger::of(file::LedgerFile::open(file).unwrap())
    }

    #[test]
    fn failed_writes_are_repeated_later() {
        let disk = FaultyDisk::new();
        let ledger = on(&disk);
        let until = NOW.saturating_add(9);
        let names: Vec<_> = (1..=4).map(|n| DedupHash([n; 32])).collect();
        ledger.receive(&names[..1], until, FROM).unwrap();
        for tear in [false, true] {
            disk.set_faults(Faults {
                fail_at: Some(disk.operations() + 1),
                span: 1_000,
                tear,
                ..Faults::default()
            });
            ledger.receive(&names[1..2], until, FROM).unwrap_err();
            ledger.note(names[2], until, FROM);
            ledger.flush().unwrap_err();
            assert!(names[..3].iter().all(|name| ledger.contains(name)));
            disk.set_faults(Faults::default());
        }
        ledger.receive(&names[3..], until, FROM).unwrap();
        ledger.flush().unwrap();
        let again = on(&disk.kill());
        assert!(names.iter().all(|name| again.contains(name)));
    }

    /// Each operation of a write to one table fails; later ones, to the other, do not rest on its pages, which a power failure
    /// loses.
    #[test]
    fn failed_syncs_are_not_believed() {
        let until = NOW.saturating_add(9);
        let history = |at: u64| {
            let disk = FaultyDisk::new();
            let ledger = on(&disk);
            let names = [DedupHash([1; 32]), DedupHash([2; 32])];
            ledger.receive(&names[..1], until, FROM).unwrap();
            ledger.read_up_to(&public_key(1), NOW).unwrap();
            disk.set_faults(Faults {
                fail_at: Some(disk.operations() + at),
                span: 1_000,
                ..Faults::default()
            });
            let has_failed = ledger.read_up_to(&public_key(2), NOW).is_err();
            disk.set_faults(Faults::default());
            ledger.receive(&names[1..], until, FROM).unwrap();
            disk.sync_names().unwrap();
            let crashed = on(&disk.crash(at));
            assert!(names.iter().all(|name| crashed.contains(name)), "{at}");
            assert_eq!(crashed.watermark(&public_key(1)), Some(NOW), "{at}");
            has_failed
        };
        let operations = (0..).take_while(|at| history(*at)).count();
        assert!(operations > 2, "{operations} operations");
    }

    fn name(n: usize) -> DedupHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        DedupHash(hash)
    }

    /// A flood of one deliverer makes room for itself: what few messages of another one are known stays known, after a restart
    /// too.
    #[test]
    fn flood_flushes_no_received_message() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let quiet = Deliverer::from_bytes([2; 32]);
        let (early, late) = (NOW.saturating_add(10), NOW.saturating_add(20));
        let few: Vec<_> = (0..10).map(name).collect();
        {
            let ledger = Ledger::open(&path).unwrap();
            ledger.receive(&few, early, quiet).unwrap();
            for from in (10..MAX_RECEIVED + 1_000).step_by(50_000) {
                let flood: Vec<_> = (from..from + 50_000).map(name).collect();
                ledger.receive(&flood, late, FROM).unwrap();
            }
            assert!(few.iter().all(|hash| ledger.contains(hash)));
        }
        let ledger = Ledger::open(&path).unwrap();
        ledger.receive(&[name(1 << 40)], late, FROM).unwrap();
        assert_eq!(ledger.received(), MAX_RECEIVED);
        assert!(few.iter().all(|hash| ledger.contains(hash)));
        assert!(!ledger.contains(&name(10)) && ledger.contains(&name(1 << 40)));
    }

    #[test]
    fn both_tables_are_bounded() {
        let ledger = Ledger::in_memory();
        let first: Vec<_> = (0..MAX_RECEIVED).map(name).collect();
        ledger.receive(&first, NOW, FROM).unwrap();
        ledger
            .receive(&[name(MAX_RECEIVED)], NOW.saturating_add(1), FROM)
            .unwrap();
        assert_eq!(ledger.received(), MAX_RECEIVED);
        assert!(ledger.contains(&name(MAX_RECEIVED)) && !ledger.contains(&name(0)));
        for n in MAX_RECEIVED..MAX_RECEIVED + 50_000 {
            ledger.note(name(n), NOW.saturating_add(2), FROM);
        }
        assert_eq!(ledger.received(), MAX_RECEIVED);
        ledger.flush().unwrap();
        let bytes = ledger.allocated_bytes();
        assert!(bytes < 65 * MAX_RECEIVED, "{bytes}");
    }
}
