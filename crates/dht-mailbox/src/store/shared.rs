//! What readers and the writer share.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadTransaction, ReadableDatabase};

use super::StoreStats;
use crate::{disk::DiskFile, error::StoreError};

/// The open index and the open segments.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// `None` while the index is given up after a failure.
    database: RwLock<Option<Arc<Database>>>,
    segments: RwLock<HashMap<u32, DiskFile>>,
    stats: Mutex<StoreStats>,
}

impl Shared {
    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.database
            .read()
            .clone()
            .ok_or_else(|| StoreError::Index("not available".into()))
    }

    pub(super) fn set_database(&self, database: Option<Arc<Database>>) {
        // The old one is dropped, and closed, after the lock is free.
        let _old = std::mem::replace(&mut *self.database.write(), database);
    }

    /// The state after the last commit.
    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.database()?.begin_read()?)
    }

    pub(super) fn segment(&self, number: u32) -> Option<DiskFile> {
        self.segments.read().get(&number).cloned()
    }

    pub(super) fn add_segment(&self, number: u32, file: DiskFile) {
        self.segments.write().insert(number, file);
    }

    pub(super) fn remove_segment(&self, number: u32) {
        self.segments.write().remove(&number);
    }

    pub(super) fn clear_segments(&self) {
        self.segments.write().clear();
    }

    pub(super) fn stats(&self) -> StoreStats {
        *self.stats.lock()
    }

    pub(super) fn set_stats(&self, stats: StoreStats) {
        *self.stats.lock() = stats;
    }
}
