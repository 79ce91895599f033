//! Reads of the spool under way. Each shows entries as they were when it began.

use std::collections::BTreeSet;

use dht_spool::EntryId;

/// Knows which entries of a listing may have ended since.
#[derive(Debug, Default)]
pub(super) struct Listings {
    under_way: usize,
    /// Messages that ended since the first of these reads began. Bounded by the rows of the spool.
    ended: BTreeSet<EntryId>,
}

impl Listings {
    pub(super) const fn begin(&mut self) {
        self.under_way += 1;
    }

    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.ended.clear();
        }
    }

    /// The end of a message is in the spool.
    pub(super) fn note_end(&mut self, id: EntryId) {
        if self.under_way > 0 {
            self.ended.insert(id);
        }
    }

    /// Whether the message ended after a read began that may show it as it was before.
    pub(super) fn has_ended(&self, id: EntryId) -> bool {
        self.ended.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_entry_is_not_listed() {
        let mut listings = Listings::default();
        listings.begin();
        listings.begin();
        listings.note_end(1);
        listings.end();
        assert!(listings.has_ended(1) && !listings.has_ended(2));
        listings.end();
        listings.note_end(2);
        // A listing that begins now shows the end of both.
        listings.begin();
        assert!(!listings.has_ended(1) && !listings.has_ended(2));
    }
}
