//! A directory that is kept in memory from one node to the next.

use std::sync::Arc;

use dht_core::UnixSeconds;
use parking_lot::Mutex;

use super::{
    Directory,
    changed::Changed,
    disk::{Outdated, Stored, remembered},
};

/// Content of a directory, kept in memory from one node to the next as `DirectoryFile` keeps it on disk. Part of `MemoryHome` of
/// `dht-node`, the home of a node that is restarted within one process.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DirectoryMemory(Arc<Mutex<Stored>>);

impl DirectoryMemory {
    /// Enters what was kept in an empty directory.
    pub fn restore(&self, directory: &Directory, now: UnixSeconds) {
        let stored = self.0.lock().clone();
        directory.restore(stored, now);
        // Everything is kept each time.
        directory.0.state.write().set_outdated(Outdated {
            peers: Changed::Untracked,
            bans: Changed::Untracked,
        });
    }

    /// Keeps what the directory knows now, in the place of what was kept before.
    pub fn save(&self, directory: &Directory) {
        let peers = directory.find_all(&directory.ids()).into_iter().flatten();
        let bans = directory.ban_ids();
        let bans = bans.iter().filter_map(|id| directory.ban_of(id));
        *self.0.lock() = Stored {
            peers: peers
                .filter_map(remembered)
                .map(Arc::unwrap_or_clone)
                .collect(),
            bans: bans
                .filter(|ban| !ban.is_listed)
                .map(Arc::unwrap_or_clone)
                .collect(),
            anchors: directory.anchor_ids(),
            allowed: directory.allowed(),
            has_more: false,
        };
    }
}
