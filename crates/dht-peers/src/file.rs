//! The directory across restarts: a file in the node's home.
//!
//! Proven and heard-of peers have a table each. A peer that is proven in the file was authenticated by this node itself: those
//! that the operator named and that were never reached are heard of.

mod row;

use std::{io, path::Path, sync::Arc, time::Duration};

use dht_core::{NodeId, UnixSeconds};
use dht_datafile::{DataFile, FileError, OpenFile};
use parking_lot::Mutex;
use redb::{
    ReadTransaction, ReadableTable as _, Table, TableDefinition, TableError, WriteTransaction,
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
    directory: Directory,
    file: OpenFile,
    /// Content of the file beside peers and bans.
    lists: Mutex<Lists>,
}

/// Node ids that are written whole whenever one changes.
#[derive(Debug, PartialEq, Eq)]
struct Lists {
    anchors: Vec<NodeId>,
    allowed: Vec<NodeId>,
}

// === impl DirectoryFile ===

impl DirectoryFile {
    /// Name of the file within a node's home.
    pub const NAME: &str = "peers.redb";

    /// Opens the file in `home` and enters its peers, bans and [anchors](Directory::anchors) in the directory. A damaged file
    /// is set aside with a warning. `None`, with a warning, if no file can be kept there: the node works as well, but
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
        std::fs::create_dir_all(home)?;
        let file = DataFile::at(&home.join(Self::NAME), CACHE_BYTES)
            .losing("peers are learned anew", metrics::damaged_file);
        let (file, stored) = OpenFile::open(file, read)?;
        let lists = Lists {
            anchors: stored.anchors.clone(),
            allowed: stored.allowed.clone(),
        };
        let restored = directory.restore(stored, now);
        tracing::debug!(restored, "peers known before this start");
        Ok(Self(Arc::new(Inner {
            directory: directory.clone(),
            file,
            lists: Mutex::new(lists),
        })))
    }

    /// Damaged files beside the one in use.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.0.file.damaged_files()
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
        let Inner {
            directory, file, ..
        } = &*self.0;
        let mut written = self.0.lists.lock();
        let lists = Lists {
            anchors: directory.anchor_ids(),
            allowed: directory.allowed(),
        };
        let outdated = directory.take_outdated();
        if outdated.peers.is_empty() && outdated.bans.is_empty() && lists == *written {
            return Ok(());
        }
        // A file that took the place of a damaged one is written whole: a write has failed before.
        match file.write(|transaction, _is_new| write(transaction, directory, outdated, &lists)) {
            Ok(()) => {
                *written = lists;
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

// === reading ===

fn read(transaction: &ReadTransaction) -> Result<Stored, FileError> {
    let mut stored = Stored::default();
    let mut unreadable = 0_usize;
    for (table, is_proven) in [(PROVEN, true), (HEARD_OF, false)] {
        for_each(transaction, table, |id, row| {
            match row::decode_peer(id, row, is_proven) {
                Ok(peer) => stored.peers.push(peer),
                Err(row::Unreadable) => unreadable += 1,
            }
        })?;
    }
    for_each(transaction, BANS, |id, row| {
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
) -> Result<(), FileError> {
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

fn write(
    transaction: &WriteTransaction,
    directory: &Directory,
    outdated: Outdated,
    lists: &Lists,
) -> Result<(), FileError> {
    let ids = match outdated.peers {
        Changed::Ids(ids) => ids.into_iter().collect(),
        Changed::All | Changed::Untracked => {
            transaction.delete_table(PROVEN)?;
            transaction.delete_table(HEARD_OF)?;
            directory.ids()
        }
    };
    write_peers(transaction, directory, &ids)?;
    let ids = match outdated.bans {
        Changed::Ids(ids) => ids.into_iter().collect(),
        Changed::All | Changed::Untracked => {
            transaction.delete_table(BANS)?;
            directory.ban_ids()
        }
    };
    write_bans(transaction, directory, &ids)?;
    transaction.delete_table(ANCHORS)?;
    let mut anchors = transaction.open_table(ANCHORS)?;
    for (at, id) in (0_u8..).zip(&lists.anchors) {
        anchors.insert(at, id.as_bytes())?;
    }
    transaction.delete_table(ALLOWED)?;
    let mut allowed = transaction.open_table(ALLOWED)?;
    for id in &lists.allowed {
        allowed.insert(id.as_bytes(), ())?;
    }
    Ok(())
}

fn write_peers(
    transaction: &WriteTransaction,
    directory: &Directory,
    ids: &[NodeId],
) -> Result<(), FileError> {
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
) -> Result<(), FileError> {
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
) -> Result<(), FileError> {
    match row {
        Some(row) => table.insert(id.as_bytes(), row)?,
        None => table.remove(id.as_bytes())?,
    };
    Ok(())
}

#[cfg(test)]
mod tests;
