//! The file of the ledger.

use std::{io, path::Path};

use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_datafile::{DataFile, FileError, OpenFile};
use dht_mailbox::StoreError;
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::state::{Changes, State};
use crate::metrics;

/// Dedup hash to the last second in which it is remembered.
const RECEIVED: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("received");
/// Dedup hash to the deliverer in whose share it is remembered. The first files have no such table: what they remember is in the
/// share of one deliverer that sends nothing.
const DELIVERERS: TableDefinition<'_, &[u8; 32], &[u8; 32]> = TableDefinition::new("deliverers");
/// Key of the responder to the newest second of its store that was read, on its clock.
const WATERMARKS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("watermarks");

/// Memory for pages of the file.
const CACHE_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct LedgerFile(OpenFile);

impl LedgerFile {
    /// Opens the file at this path, which is created if it does not exist. A damaged one is set aside, and a new one
    /// begun: messages that only it recorded may be delivered a second time.
    pub(super) fn at(path: &Path) -> Result<(Self, State), StoreError> {
        Self::open(DataFile::at(path, CACHE_BYTES))
    }

    pub(super) fn open(file: DataFile) -> Result<(Self, State), StoreError> {
        let consequence = "messages received before may be delivered again";
        let file = file.losing(consequence, metrics::damaged_file);
        let (file, state) = OpenFile::open(file, read).map_err(failure)?;
        Ok((Self(file), state))
    }

    /// Writes the changes, or `all` that is remembered to a file that took the place of a damaged one.
    pub(super) fn write(
        &self,
        changes: &Changes,
        all: impl FnOnce() -> Changes,
    ) -> Result<(), StoreError> {
        let written = self.0.write(|transaction, is_new| match is_new {
            true => write(&all(), transaction),
            false => write(changes, transaction),
        });
        written.map_err(failure)
    }

    pub(super) fn close(&self) {
        self.0.close();
    }

    pub(super) fn damaged_files(&self) -> u64 {
        self.0.damaged_files()
    }
}

fn read(transaction: &ReadTransaction) -> Result<State, FileError> {
    let mut state = State::default();
    if let Some(table) = read_table(transaction, RECEIVED)? {
        let deliverers = read_table(transaction, DELIVERERS)?;
        let mut received = Vec::new();
        for entry in table.iter()? {
            let (hash, until) = entry?;
            let from = match &deliverers {
                Some(table) => table.get(hash.value())?.map(|bytes| *bytes.value()),
                None => None,
            };
            let from = Deliverer::from_bytes(from.unwrap_or_default());
            received.push((UnixSeconds(until.value()), *hash.value(), from));
        }
        // Those of one deliverer in their order.
        received.sort_unstable();
        for (until, hash, from) in received {
            state.remember(DedupHash(hash), until, from);
        }
    }
    if let Some(table) = read_table(transaction, WATERMARKS)? {
        for entry in table.iter()? {
            let (key, at) = entry?;
            state
                .watermarks
                .insert(*key.value(), UnixSeconds(at.value()));
        }
    }
    Ok(state)
}

fn write(changes: &Changes, transaction: &WriteTransaction) -> Result<(), FileError> {
    let mut received = transaction.open_table(RECEIVED)?;
    let mut deliverers = transaction.open_table(DELIVERERS)?;
    // In this order: a message that was forgotten may have been received again.
    for hash in &changes.forgotten {
        received.remove(&hash.0)?;
        deliverers.remove(&hash.0)?;
    }
    for (hash, until, from) in &changes.received {
        received.insert(&hash.0, until.0)?;
        deliverers.insert(&hash.0, from.as_bytes())?;
    }
    let mut watermarks = transaction.open_table(WATERMARKS)?;
    for (key, at) in &changes.watermarks {
        watermarks.insert(key, at.0)?;
    }
    for key in &changes.dropped {
        watermarks.remove(key)?;
    }
    Ok(())
}

/// Tells the failures apart that a person can do something about.
fn failure(error: FileError) -> StoreError {
    match error {
        FileError::Io(error) => error.into(),
        FileError::Locked => StoreError::Locked,
        FileError::Closed => StoreError::Closed,
        error => {
            tracing::warn!(%error, "ledger cannot be read or written");
            StoreError::Io(io::ErrorKind::InvalidData)
        }
    }
}

/// Opens a table; `None` if the file has no such table yet.
fn read_table<V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, &'static [u8; 32], V>,
) -> Result<Option<ReadOnlyTable<&'static [u8; 32], V>>, FileError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ledger::Ledger;

    const FROM: Deliverer = Deliverer::from_bytes([1; 32]);

    fn write_to(file: &LedgerFile, changes: &Changes) {
        file.write(changes, Changes::default).unwrap();
    }

    #[test]
    fn messages_received_again_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let hash = DedupHash([1; 32]);
        let changes = Changes {
            received: vec![(hash, UnixSeconds(9), FROM)],
            forgotten: vec![hash],
            ..Changes::default()
        };
        write_to(&LedgerFile::at(&path).unwrap().0, &changes);
        let (_, state) = LedgerFile::at(&path).unwrap();
        assert_eq!(state.received.snapshot(), [(hash, UnixSeconds(9), FROM)]);
    }

    /// The rows that only memory has are written to the file that takes its place.
    #[test]
    fn a_file_damaged_meanwhile_is_rebuilt() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        let hashes = [DedupHash([1; 32]), DedupHash([2; 32])];
        let peer = dht_core::test_util::public_key(1);
        let ledger = Ledger::open(&path).unwrap();
        ledger.receive(&hashes[..1], UnixSeconds(9), FROM).unwrap();
        ledger.read_up_to(&peer, UnixSeconds(5)).unwrap();
        // As after an error of the device.
        let file = ledger.file.as_ref().unwrap();
        file.0.write(|_, _| Err(FileError::Closed)).unwrap_err();
        fs::write(&path, "no database").unwrap();
        ledger.receive(&hashes[1..], UnixSeconds(9), FROM).unwrap();
        assert_eq!(ledger.damaged_files(), 1);
        drop(ledger);
        let ledger = Ledger::open(&path).unwrap();
        assert!(hashes.iter().all(|hash| ledger.contains(hash)));
        assert_eq!(ledger.watermark(&peer), Some(UnixSeconds(5)));
    }

    /// As an older version left it on a full disk, and with any page damaged: the node runs, and nothing is thrown away.
    #[test]
    fn damaged_files_are_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.redb");
        {
            let (file, _) = LedgerFile::at(&path).unwrap();
            let received = (0..=255)
                .map(|n| (DedupHash([n; 32]), UnixSeconds(9), FROM))
                .collect();
            let changes = Changes {
                received,
                ..Changes::default()
            };
            write_to(&file, &changes);
        }
        let whole = fs::read(&path).unwrap();
        let mut damaged = vec![vec![0; 73_728], b"no database".to_vec()];
        for page in (0..whole.len()).step_by(4096) {
            let mut copy = whole.clone();
            copy[page..page + 64].fill(0xff);
            damaged.push(copy);
        }
        let mut aside = 0;
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let (file, _) = LedgerFile::at(&path).unwrap();
            write_to(&file, &Changes::default());
            aside = fs::read_dir(home.path()).unwrap().count() - 1;
            assert_eq!(file.damaged_files(), aside as u64);
        }
        assert!((3..=16).contains(&aside), "{aside}");
        let first = fs::read(path.with_extension("redb.damaged-1")).unwrap();
        assert_eq!(first, [0; 73_728]);
    }
}
