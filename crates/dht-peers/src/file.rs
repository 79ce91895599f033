//! The directory across restarts: a file in the node's home.
//!
//! Proven and heard-of peers have a table each. A peer that is proven in the file was authenticated by this node itself: those
//! that the operator named and that were never reached are heard of.

mod row;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dht_core::{NodeId, UnixSeconds};
use parking_lot::Mutex;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    Table, TableDefinition, TableError, WriteTransaction, backends::FileBackend,
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    directory::{
        Directory, MAX_ANCHORS,
        changed::Changed,
        disk::{Outdated, Stored, remembered},
    },
    metrics,
};

/// Where a damaged file is put aside; it replaces the one before.
const DAMAGED: &str = "peers.redb.damaged";

/// How often changes are written. A crash loses what came since; a shutdown loses nothing.
const INTERVAL: Duration = Duration::from_secs(30);

/// Memory for pages of the file.
const CACHE_BYTES: usize = 1024 * 1024;

/// Peers that are encoded under one lock of the directory.
const CHUNK: usize = 256;

type Key = [u8; NodeId::LENGTH];
type Rows = TableDefinition<'static, &'static Key, &'static [u8]>;

const PROVEN: Rows = TableDefinition::new("proven_v1");
const HEARD_OF: Rows = TableDefinition::new("heard_of_v1");
const BANS: Rows = TableDefinition::new("bans_v1");
/// Position to node id.
const ANCHORS: TableDefinition<'_, u8, &Key> = TableDefinition::new("anchors_v1");
/// The allow list.
const ALLOWED: TableDefinition<'_, &Key, ()> = TableDefinition::new("allowed_v1");

/// Writes what changes in a [`Directory`] to the file `peers.redb`, and fills it from there at the start. Cloning shares the
/// file.
#[derive(Clone, Debug)]
pub struct DirectoryFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: PathBuf,
    directory: Directory,
    /// Damaged files beside the one in use: 0 or 1.
    damaged: u64,
    disk: Mutex<Disk>,
}

#[derive(Debug)]
struct Disk {
    /// `None` after a failure: redb refuses everything until the file is opened again.
    database: Option<Database>,
    /// Content of the file beside peers and bans.
    lists: Lists,
}

/// Node ids that are written whole whenever one changes.
#[derive(Debug, PartialEq, Eq)]
struct Lists {
    anchors: Vec<NodeId>,
    allowed: Vec<NodeId>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("another process has it open")]
    Locked,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] redb::Error),
    #[error("redb panicked")]
    Panicked,
}

// === impl DirectoryFile ===

impl DirectoryFile {
    /// Name of the file within a node's home.
    pub const NAME: &str = "peers.redb";

    /// Opens the file in `home` and enters its peers, bans and [anchors](Directory::anchors) in the directory. A damaged file
    /// is put aside with a warning. `None`, with a warning, if no file can be kept there: the node works as well, but
    /// forgets with its end.
    pub async fn open(home: &Path, directory: &Directory, now: UnixSeconds) -> Option<Self> {
        let (home, directory) = (home.to_path_buf(), directory.clone());
        let opened = spawn_blocking(move || Self::open_blocking(&home, &directory, now)).await;
        opened.ok().flatten()
    }

    /// As [`open`](Self::open), on a thread that may block.
    #[must_use]
    pub fn open_blocking(home: &Path, directory: &Directory, now: UnixSeconds) -> Option<Self> {
        match Self::load(home, directory, now) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(%error, "peers will not be remembered across a restart");
                None
            }
        }
    }

    fn load(home: &Path, directory: &Directory, now: UnixSeconds) -> Result<Self, FileError> {
        fs::create_dir_all(home)?;
        let (database, stored) = open_or_replace(home)?;
        let lists = Lists {
            anchors: stored.anchors.clone(),
            allowed: stored.allowed.clone(),
        };
        let restored = directory.restore(stored, now);
        tracing::debug!(restored, "peers known before this start");
        Ok(Self(Arc::new(Inner {
            home: home.to_path_buf(),
            directory: directory.clone(),
            damaged: home.join(DAMAGED).exists().into(),
            disk: Mutex::new(Disk {
                database: Some(database),
                lists,
            }),
        })))
    }

    /// Damaged files beside the one in use, as found when it was opened: 0 or 1.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.0.damaged
    }

    /// Writes what changed every half minute. Never returns.
    pub async fn keep(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to write yet.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.0.directory.update_anchors();
            // A failure is logged, and the next tick tries again.
            let _ = self.save().await;
        }
    }

    /// Writes what changed, which is durable then.
    ///
    /// # Errors
    /// An error of the device, which is logged; the next call writes everything.
    pub async fn save(&self) -> io::Result<()> {
        let file = self.clone();
        // It fails only if the runtime shuts down.
        let saved = spawn_blocking(move || file.save_blocking()).await;
        saved.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// As [`save`](Self::save), on a thread that may block.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_blocking(&self) -> io::Result<()> {
        let Inner { directory, .. } = &*self.0;
        let mut disk = self.0.disk.lock();
        let lists = Lists {
            anchors: directory.anchor_ids(),
            allowed: directory.allowed(),
        };
        let outdated = directory.take_outdated();
        if outdated.peers.is_empty() && outdated.bans.is_empty() && lists == disk.lists {
            return Ok(());
        }
        let database = match disk.database.take() {
            Some(database) => Ok((database, outdated)),
            // A new file, or one whose rows may be any.
            None => open_or_replace(&self.0.home).map(|(database, _)| {
                let all = Outdated {
                    peers: Changed::All,
                    bans: Changed::All,
                };
                (database, all)
            }),
        };
        let written = database.and_then(|(database, outdated)| {
            contain(|| commit(&database, directory, outdated, &lists))?;
            Ok(database)
        });
        match written {
            Ok(database) => {
                disk.database = Some(database);
                disk.lists = lists;
                Ok(())
            }
            Err(error) => {
                directory.outdate();
                tracing::warn!(%error, "changes of the known peers were not written");
                Err(match error {
                    FileError::Io(error) => error,
                    error => io::Error::other(error),
                })
            }
        }
    }
}

// === files ===

/// Opens the file, or a new one in the place of one that is damaged.
fn open_or_replace(home: &Path) -> Result<(Database, Stored), FileError> {
    let path = home.join(DirectoryFile::NAME);
    match open(&path) {
        Err(error @ (FileError::Damaged(_) | FileError::Panicked)) => {
            let aside = home.join(DAMAGED);
            metrics::damaged_file();
            tracing::warn!(
                %error, aside = %aside.display(),
                "the file of known peers is damaged and put aside; peers are learned anew"
            );
            fs::rename(&path, &aside)?;
            open(&path)
        }
        opened => opened,
    }
}

fn open(path: &Path) -> Result<(Database, Stored), FileError> {
    let is_new = !path.exists();
    let file = open_private(path)?;
    let opened = contain(|| {
        let database = FileBackend::new(file).and_then(|backend| {
            Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
        });
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => FileError::Locked,
            error => FileError::Damaged(error.into()),
        })?;
        let stored = read(&database)?;
        Ok((database, stored))
    });
    // As on a full disk: redb opens no file that was left half made.
    opened.map_err(|error| match error {
        FileError::Damaged(error) if is_new => {
            let _ = fs::remove_file(path);
            FileError::Io(io::Error::other(error))
        }
        error => error,
    })
}

/// Opens a file for reading and writing that only its owner may open; made if it is not there.
fn open_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Redb may panic on a file that was damaged while it was open.
fn contain<T>(access: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(access)).unwrap_or(Err(FileError::Panicked))
}

// === reading ===

fn read(database: &Database) -> Result<Stored, redb::Error> {
    let transaction = database.begin_read()?;
    let mut stored = Stored::default();
    let mut unreadable = 0_usize;
    for (table, is_proven) in [(PROVEN, true), (HEARD_OF, false)] {
        for_each(&transaction, table, |id, row| {
            match row::decode_peer(id, row, is_proven) {
                Ok(peer) => stored.peers.push(peer),
                Err(row::Unreadable) => unreadable += 1,
            }
        })?;
    }
    for_each(&transaction, BANS, |id, row| {
        match row::decode_ban(id, row) {
            Ok(ban) => stored.bans.push(ban),
            Err(row::Unreadable) => unreadable += 1,
        }
    })?;
    match transaction.open_table(ANCHORS) {
        Ok(table) => {
            for entry in table.iter()?.take(MAX_ANCHORS) {
                stored.anchors.extend(row::node_id(entry?.1.value()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match transaction.open_table(ALLOWED) {
        Ok(table) => {
            for entry in table.iter()? {
                stored.allowed.extend(row::node_id(entry?.0.value()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if unreadable > 0 {
        stored.has_more = true;
        tracing::warn!(unreadable, "rows of the file of known peers were dropped");
    }
    // A directory with less room than the file needs keeps the newest.
    stored
        .peers
        .sort_by_key(|peer| (peer.last_seen, peer.added_at));
    Ok(stored)
}

fn for_each(
    transaction: &ReadTransaction,
    table: Rows,
    mut visit: impl FnMut(&Key, &[u8]),
) -> Result<(), redb::Error> {
    match transaction.open_table(table) {
        Ok(table) => {
            for entry in table.iter()? {
                let (id, row) = entry?;
                visit(id.value(), row.value());
            }
            Ok(())
        }
        Err(TableError::TableDoesNotExist(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

// === writing ===

fn commit(
    database: &Database,
    directory: &Directory,
    outdated: Outdated,
    lists: &Lists,
) -> Result<(), FileError> {
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let ids = match outdated.peers {
            Changed::Ids(ids) => ids.into_iter().collect(),
            Changed::All | Changed::Untracked => {
                transaction.delete_table(PROVEN)?;
                transaction.delete_table(HEARD_OF)?;
                directory.ids()
            }
        };
        write_peers(&transaction, directory, &ids)?;
        let ids = match outdated.bans {
            Changed::Ids(ids) => ids.into_iter().collect(),
            Changed::All | Changed::Untracked => {
                transaction.delete_table(BANS)?;
                directory.ban_ids()
            }
        };
        write_bans(&transaction, directory, &ids)?;
        transaction.delete_table(ANCHORS)?;
        {
            let mut table = transaction.open_table(ANCHORS)?;
            for (at, id) in (0_u8..).zip(&lists.anchors) {
                table.insert(at, id.as_bytes())?;
            }
        }
        transaction.delete_table(ALLOWED)?;
        {
            let mut table = transaction.open_table(ALLOWED)?;
            for id in &lists.allowed {
                table.insert(id.as_bytes(), ())?;
            }
        }
        Ok(transaction.commit()?)
    };
    Ok(write()?)
}

fn write_peers(
    transaction: &WriteTransaction,
    directory: &Directory,
    ids: &[NodeId],
) -> Result<(), redb::Error> {
    let mut proven = transaction.open_table(PROVEN)?;
    let mut heard_of = transaction.open_table(HEARD_OF)?;
    let mut row = Vec::new();
    for ids in ids.chunks(CHUNK) {
        for (id, peer) in ids.iter().zip(directory.find_all(ids)) {
            let peer = peer.and_then(remembered);
            row.clear();
            if let Some(peer) = &peer {
                row::encode_peer(peer, &mut row);
            }
            let is_proven = peer.map(|peer| peer.is_proven());
            set(&mut proven, id, (is_proven == Some(true)).then_some(&*row))?;
            set(
                &mut heard_of,
                id,
                (is_proven == Some(false)).then_some(&*row),
            )?;
        }
    }
    Ok(())
}

fn write_bans(
    transaction: &WriteTransaction,
    directory: &Directory,
    ids: &[NodeId],
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(BANS)?;
    let mut row = Vec::new();
    for id in ids {
        let ban = directory.ban_of(id).filter(|ban| !ban.is_listed);
        row.clear();
        if let Some(ban) = &ban {
            row::encode_ban(ban, &mut row);
        }
        set(&mut table, id, ban.map(|_| &*row))?;
    }
    Ok(())
}

fn set(
    table: &mut Table<'_, &'static Key, &'static [u8]>,
    id: &NodeId,
    row: Option<&[u8]>,
) -> Result<(), redb::Error> {
    match row {
        Some(row) => table.insert(id.as_bytes(), row)?,
        None => table.remove(id.as_bytes())?,
    };
    Ok(())
}

#[cfg(test)]
mod tests;
