//! The table across restarts: a file in the node's home.
//!
//! Without it, every message that has not expired could be replayed after a restart.

use std::{path::Path, sync::Arc, time::Duration};

use dht_core::{DedupHash, UnixSeconds};
use dht_datafile::{DataFile, FileError, OpenFile};
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableError};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    metrics,
    table::{DedupEntry, DedupTable},
};

/// The file, within a node's home.
const FILE: &str = "seen.redb";

/// Memory for pages of the file.
const CACHE_BYTES: usize = 1024 * 1024;

/// How often the table is written. A crash loses what came since; a shutdown loses nothing.
const INTERVAL: Duration = Duration::from_secs(120);

/// Hash to occurrences, the second until which it is kept, and whether the message was signed.
const SEEN: TableDefinition<'_, &[u8; 32], (u32, u64, bool)> = TableDefinition::new("seen_v1");

/// Writes a [`DedupTable`] to the file `seen.redb`, again and again, and fills it from there at the start. Cloning
/// shares the file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    file: Arc<OpenFile>,
    table: DedupTable,
}

impl SnapshotFile {
    /// Opens the file in `home` and fills `table` from it. A damaged file is set aside with a warning. `None`, with a
    /// warning, if no file can be kept there: the node works as well, but forgets with its end.
    pub async fn open(home: &Path, table: &DedupTable, now: UnixSeconds) -> Option<Self> {
        let (home, table) = (home.to_path_buf(), table.clone());
        let opened = spawn_blocking(move || load(&home, &table, now)).await;
        match opened {
            Ok(Ok(file)) => Some(file),
            Ok(Err(error)) => {
                tracing::warn!(%error, "messages seen will not be remembered across a restart");
                None
            }
            Err(_panicked) => None,
        }
    }

    /// Damaged files beside the one in use.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.file.damaged_files()
    }

    /// Writes the table every two minutes. Never returns.
    pub async fn keep(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to write yet.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.save().await;
        }
    }

    /// Writes the table; durable when it returns true. False, with a warning, if the device fails.
    pub async fn save(&self) -> bool {
        let file = self.clone();
        let saved = spawn_blocking(move || file.write(&file.table.snapshot())).await;
        if let Ok(Err(error)) = &saved {
            tracing::warn!(%error, "messages seen were not written");
        }
        matches!(saved, Ok(Ok(())))
    }

    fn write(&self, entries: &[DedupEntry]) -> Result<(), FileError> {
        self.file.write(|transaction, _is_new| {
            transaction.delete_table(SEEN)?;
            let mut table = transaction.open_table(SEEN)?;
            // In order of keys, which is the order of the pages.
            let mut entries: Vec<&DedupEntry> = entries.iter().collect();
            entries.sort_unstable_by_key(|entry| entry.key);
            for entry in entries {
                table.insert(
                    &entry.key.0,
                    (entry.occurrences, entry.until.0, entry.signed),
                )?;
            }
            Ok(())
        })
    }
}

fn load(home: &Path, table: &DedupTable, now: UnixSeconds) -> Result<SnapshotFile, FileError> {
    std::fs::create_dir_all(home)?;
    let consequence = "copies of old messages may pass";
    let file =
        DataFile::at(&home.join(FILE), CACHE_BYTES).losing(consequence, metrics::damaged_file);
    let (file, entries) = OpenFile::open(file, |rows| read(rows, table.ceiling()))?;
    let restored = table.restore(entries, now);
    tracing::debug!(restored, "messages seen before this start");
    Ok(SnapshotFile {
        file: Arc::new(file),
        table: table.clone(),
    })
}

fn read(transaction: &ReadTransaction, most: usize) -> Result<Vec<DedupEntry>, FileError> {
    let table = match transaction.open_table(SEEN) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut entries = Vec::new();
    for row in table.iter()?.take(most) {
        let (key, value) = row?;
        let (occurrences, until, signed) = value.value();
        entries.push(DedupEntry {
            key: DedupHash(*key.value()),
            occurrences,
            until: UnixSeconds(until),
            signed,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DedupMeta;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn table(entries: u8) -> DedupTable {
        let table = DedupTable::new(100, [3; 16]);
        for at in 0..entries {
            let meta = DedupMeta {
                expires: None,
                signed: at % 2 == 0,
            };
            table.record(&DedupHash([at; 32]), meta, NOW);
        }
        table
    }

    fn sorted(table: &DedupTable) -> Vec<DedupEntry> {
        let mut entries = table.snapshot();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    #[test]
    fn written_entries_replace_older_ones() {
        let home = tempfile::tempdir().unwrap();
        for entries in [20, 7] {
            let before = table(entries);
            let fresh = DedupTable::new(100, [4; 16]);
            let file = load(home.path(), &fresh, NOW).unwrap();
            file.write(&before.snapshot()).unwrap();
            drop(file);
            let after = DedupTable::new(100, [4; 16]);
            load(home.path(), &after, NOW).unwrap();
            assert_eq!(sorted(&after), sorted(&before));
        }
    }

    #[test]
    fn damaged_file_is_put_aside() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), vec![0x5a; 9_000]).unwrap();
        let file = load(home.path(), &table(0), NOW).unwrap();
        assert!(home.path().join("seen.redb.damaged-1").exists());
        assert_eq!(file.damaged_files(), 1);
        file.write(&table(5).snapshot()).unwrap();
        drop(file);
        let after = table(0);
        load(home.path(), &after, NOW).unwrap();
        assert_eq!(after.len(), 5);
    }

    /// The file leads to a place where none can be made, as to a disk that is missing.
    #[cfg(unix)]
    #[test]
    fn unmade_file_is_not_damaged() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        std::os::unix::fs::symlink(home.path().join("none/file"), &path).unwrap();
        let opened = load(home.path(), &table(0), NOW);
        assert!(matches!(opened, Err(FileError::Io(_))));
        assert!(path.is_symlink());
        std::fs::remove_file(&path).unwrap();
        let file = load(home.path(), &table(0), NOW).unwrap();
        assert_eq!(file.damaged_files(), 0);
    }

    #[test]
    fn file_in_use_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let _running = load(home.path(), &table(0), NOW).unwrap();
        let second = load(home.path(), &table(0), NOW);
        assert!(matches!(second, Err(FileError::Locked)));
        assert!(!home.path().join("seen.redb.damaged-1").exists());
    }
}
