//! State shared by readers and the writer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::{Mutex, RwLock};

use crate::{index::Index, log::Segments, metrics, record::RowId, stats::StoreStats};

/// The index, the open segments and the counts. Only the writer changes rows.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: RwLock<Index>,
    pub(super) segments: Arc<Segments>,
    stats: Mutex<StoreStats>,
    damaged: AtomicU64,
}

impl Shared {
    pub(super) fn new(index: Index, segments: Arc<Segments>, damaged: u64) -> Self {
        Self {
            index: RwLock::new(index),
            segments,
            stats: Mutex::default(),
            damaged: AtomicU64::new(damaged),
        }
    }

    /// Counts a row whose bytes do not check, once.
    pub(super) fn note_damage(&self, id: RowId) {
        if self.index.write().note_damage(id) {
            self.damaged.fetch_add(1, Relaxed);
            metrics::damaged(1);
            tracing::warn!(row = id.0, "a stored message is damaged");
        }
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            damaged: self.damaged.load(Relaxed),
            ..*self.stats.lock()
        }
    }

    pub(super) fn set_stats(&self, stats: StoreStats) {
        *self.stats.lock() = stats;
    }
}
