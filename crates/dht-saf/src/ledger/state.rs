//! State of the ledger. Performs no I/O and reads no clock.

use std::collections::{BTreeSet, HashMap};

use dht_core::UnixSeconds;

/// Received messages remembered. Beyond it the one whose time ends first is forgotten.
pub(super) const MAX_RECEIVED: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) received: HashMap<[u8; 32], UnixSeconds>,
    pub(super) by_end: BTreeSet<(UnixSeconds, [u8; 32])>,
    pub(super) watermarks: HashMap<[u8; 32], UnixSeconds>,
    /// Entries not yet written: noted, or refused by the file.
    pub(super) noted: Vec<([u8; 32], UnixSeconds)>,
}

/// Rows to write in one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) received: Vec<([u8; 32], UnixSeconds)>,
    pub(super) forgotten: Vec<[u8; 32]>,
    pub(super) watermarks: Vec<([u8; 32], UnixSeconds)>,
    pub(super) dropped: Vec<[u8; 32]>,
}

impl State {
    pub(super) fn remember(&mut self, hash: [u8; 32], until: UnixSeconds) {
        if let Some(before) = self.received.insert(hash, until) {
            self.by_end.remove(&(before, hash));
        }
        self.by_end.insert((until, hash));
    }

    pub(super) fn make_room(&mut self, changes: &mut Changes) {
        while self.by_end.len() > MAX_RECEIVED
            && let Some((_, hash)) = self.by_end.pop_first()
        {
            self.received.remove(&hash);
            changes.forgotten.push(hash);
        }
    }
}
