//! Counts by source.

use std::collections::{HashMap, hash_map::Entry};

use dht_core::SourceGroup;

/// Source of a socket; `None` for one that counts for no source.
pub(crate) type Source = Option<SourceGroup>;

/// Number of sockets of each source. Only sources that have one are in the map.
#[derive(Default)]
pub(super) struct SourceCounts(HashMap<SourceGroup, usize>);

impl SourceCounts {
    /// Places that a source holds; none, for a socket that counts for no source.
    pub(super) fn of(&self, source: Source) -> usize {
        let count = source.and_then(|source| self.0.get(&source));
        count.copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, source: Source) {
        if let Some(source) = source {
            *self.0.entry(source).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, source: Source) {
        if let Some(source) = source
            && let Entry::Occupied(mut count) = self.0.entry(source)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
