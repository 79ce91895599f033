//! The duplicate table across restarts: a file in the node's home.
//!
//! Without it, a restart would open the door to the replay of everything that has not expired yet.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dht_core::{Clock as _, DedupHash, SharedClock, UnixSeconds};
use dht_inbound::{DedupEntry, DedupTable};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

/// The file, within a node's home.
const FILE: &str = "seen.redb";

/// Where a damaged file is put aside; it replaces the one before.
const DAMAGED: &str = "seen.redb.damaged";

/// How often the table is written. What came since is lost with a crash, as is nothing with a shutdown.
const INTERVAL: Duration = Duration::from_secs(120);

/// Hash to sightings, the last second in which it must be remembered, and whether it was signed.
const SEEN: TableDefinition<'_, &[u8; 32], (u32, u64, bool)> = TableDefinition::new("seen_v1");

/// The file of a running node. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct SeenFile(Arc<Database>);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum SeenError {
    #[error("another process has it open")]
    Locked,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(#[from] redb::Error),
}

impl SeenFile {
    /// Opens the file in `home` and fills `table` from it. A damaged one is put aside with a warning. `None`, with a
    /// warning, if there is no way to keep one: the node runs as well, but forgets with its end.
    pub(crate) async fn open(
        home: &Path,
        table: &Arc<DedupTable>,
        clock: &SharedClock,
    ) -> Option<Self> {
        let (home, table, now) = (home.to_path_buf(), Arc::clone(table), clock.now());
        let opened = spawn_blocking(move || open_or_replace(&home, &table, now)).await;
        match opened {
            Ok(Ok(file)) => Some(file),
            Ok(Err(error)) => {
                tracing::warn!(%error, "messages seen will not be remembered across a restart");
                None
            }
            Err(_panicked) => None,
        }
    }

    /// Writes the table again and again.
    pub(crate) async fn keep(self, table: Arc<DedupTable>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to write yet.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.save(&table).await;
        }
    }

    /// Writes the table; durable when it returns, unless the device fails, which is logged.
    pub(crate) async fn save(&self, table: &Arc<DedupTable>) {
        let (file, table) = (self.clone(), Arc::clone(table));
        let saved = spawn_blocking(move || file.write(&table.snapshot())).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "messages seen were not written");
        }
    }

    fn write(&self, entries: &[DedupEntry]) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        transaction.delete_table(SEEN)?;
        {
            let mut table = transaction.open_table(SEEN)?;
            // In order of keys, which is the order of the pages.
            let mut entries: Vec<&DedupEntry> = entries.iter().collect();
            entries.sort_unstable_by_key(|entry| entry.key);
            for entry in entries {
                table.insert(&entry.key.0, (entry.hits, entry.until.0, entry.signed))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn read(&self, most: usize) -> Result<Vec<DedupEntry>, redb::Error> {
        let transaction = self.0.begin_read()?;
        let table = match transaction.open_table(SEEN) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for row in table.iter()?.take(most) {
            let (key, value) = row?;
            let (hits, until, signed) = value.value();
            entries.push(DedupEntry {
                key: DedupHash(*key.value()),
                hits,
                until: UnixSeconds(until),
                signed,
            });
        }
        Ok(entries)
    }
}

fn open_or_replace(
    home: &Path,
    table: &DedupTable,
    now: UnixSeconds,
) -> Result<SeenFile, SeenError> {
    std::fs::create_dir_all(home)?;
    let path = home.join(FILE);
    match load(&path, table.ceiling()) {
        Ok((file, entries)) => {
            let restored = table.restore(entries, now);
            tracing::debug!(restored, "messages seen before this start");
            Ok(file)
        }
        Err(SeenError::Damaged(error)) => {
            let aside: PathBuf = home.join(DAMAGED);
            tracing::warn!(
                %error, aside = %aside.display(),
                "the file of messages seen is damaged and put aside; copies of old messages may pass"
            );
            std::fs::rename(&path, &aside)?;
            load(&path, 0).map(|(file, _)| file)
        }
        Err(error) => Err(error),
    }
}

fn load(path: &Path, most: usize) -> Result<(SeenFile, Vec<DedupEntry>), SeenError> {
    let database = Database::create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => SeenError::Locked,
        error => SeenError::Damaged(error.into()),
    })?;
    let file = SeenFile(Arc::new(database));
    let entries = file.read(most).map_err(SeenError::Damaged)?;
    Ok((file, entries))
}

#[cfg(test)]
mod tests {
    use dht_inbound::Sighting;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    fn table(entries: u8) -> DedupTable {
        let table = DedupTable::new(100, [3; 16]);
        for at in 0..entries {
            let sighting = Sighting {
                expires: None,
                signed: at % 2 == 0,
            };
            table.record(&DedupHash([at; 32]), sighting, NOW);
        }
        table
    }

    fn sorted(table: &DedupTable) -> Vec<DedupEntry> {
        let mut entries = table.snapshot();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    #[test]
    fn what_was_written_is_read_again_and_replaces_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        for entries in [20, 7] {
            let before = table(entries);
            let fresh = DedupTable::new(100, [4; 16]);
            let file = open_or_replace(home.path(), &fresh, NOW).unwrap();
            file.write(&before.snapshot()).unwrap();
            drop(file);
            let after = DedupTable::new(100, [4; 16]);
            open_or_replace(home.path(), &after, NOW).unwrap();
            assert_eq!(sorted(&after), sorted(&before));
        }
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_a_new_one_begun() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), vec![0x5a; 9_000]).unwrap();
        let file = open_or_replace(home.path(), &table(0), NOW).unwrap();
        assert!(home.path().join(DAMAGED).exists());
        file.write(&table(5).snapshot()).unwrap();
        drop(file);
        let after = table(0);
        open_or_replace(home.path(), &after, NOW).unwrap();
        assert_eq!(after.len(), 5);
    }

    #[test]
    fn a_file_in_use_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let _running = open_or_replace(home.path(), &table(0), NOW).unwrap();
        let second = open_or_replace(home.path(), &table(0), NOW);
        assert!(matches!(second, Err(SeenError::Locked)));
        assert!(!home.path().join(DAMAGED).exists());
    }
}
