//! State of the ledger. Performs no I/O and reads no clock.

use std::collections::HashMap;

use dht_core::{DedupHash, Deliverer, UnixSeconds};

use super::received::Received;

/// Received messages remembered. Beyond it the oldest of the deliverer with most is forgotten.
pub(super) const MAX_RECEIVED: usize = 200_000;
/// Messages received that wait for the file, and messages forgotten that do. Further ones are remembered in memory only; of
/// those forgotten, the file is rid when it is opened again.
const MAX_NOTED: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) received: Received,
    pub(super) watermarks: HashMap<[u8; 32], UnixSeconds>,
    /// Rows not yet written: noted, or refused by the file.
    noted: Changes,
}

/// Rows to write in one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) received: Vec<(DedupHash, UnixSeconds, Deliverer)>,
    pub(super) forgotten: Vec<DedupHash>,
    pub(super) watermarks: Vec<([u8; 32], UnixSeconds)>,
    pub(super) dropped: Vec<[u8; 32]>,
}

impl State {
    /// Remembers a message, and notes which other one loses its place to it.
    pub(super) fn remember(&mut self, hash: DedupHash, until: UnixSeconds, from: Deliverer) {
        self.received.insert(hash, until, from);
        while self.received.len() > MAX_RECEIVED
            && let Some(hash) = self.received.pop_largest()
        {
            note(&mut self.noted.forgotten, [hash]);
        }
    }

    /// Notes a message that is remembered for the file.
    pub(super) fn note(&mut self, hash: DedupHash, until: UnixSeconds, from: Deliverer) {
        note(&mut self.noted.received, [(hash, until, from)]);
    }

    /// Forgets the messages whose time is over, and returns them.
    pub(super) fn prune(&mut self, now: UnixSeconds) -> Vec<DedupHash> {
        self.received.prune(now)
    }

    /// Forgets the messages that `is_lost` names, written or not, and returns those that were remembered.
    pub(super) fn forget(
        &mut self,
        is_lost: impl Fn(&DedupHash) -> bool,
    ) -> Vec<(DedupHash, UnixSeconds, Deliverer)> {
        self.noted.received.retain(|row| !is_lost(&row.0));
        let mut lost = self.received.snapshot();
        lost.retain(|row| is_lost(&row.0));
        self.received.remove(is_lost);
        lost
    }

    /// The rows not yet written, which are taken to be written.
    pub(super) fn take_noted(&mut self) -> Changes {
        std::mem::take(&mut self.noted)
    }

    /// Every row, to be written to a new file.
    #[cfg(feature = "redb")]
    pub(super) fn all(&self) -> Changes {
        Changes {
            received: self.received.snapshot(),
            watermarks: self
                .watermarks
                .iter()
                .map(|(key, at)| (*key, *at))
                .collect(),
            ..Changes::default()
        }
    }

    /// Notes rows that the file did not take.
    pub(super) fn note_again(&mut self, changes: Changes) {
        note(&mut self.noted.received, changes.received);
        note(&mut self.noted.forgotten, changes.forgotten);
    }

    /// Bytes of the tables, room for further entries included.
    pub(super) fn allocated_bytes(&self) -> usize {
        let received =
            self.noted.received.capacity() * size_of::<(DedupHash, UnixSeconds, Deliverer)>();
        let watermarks = self.watermarks.capacity() * size_of::<([u8; 32], UnixSeconds)>();
        let forgotten = self.noted.forgotten.capacity() * size_of::<DedupHash>();
        self.received.allocated_bytes() + received + watermarks + forgotten
    }
}

/// Adds rows up to [`MAX_NOTED`].
fn note<T>(noted: &mut Vec<T>, rows: impl IntoIterator<Item = T>) {
    let room = MAX_NOTED.saturating_sub(noted.len());
    noted.extend(rows.into_iter().take(room));
}

impl Changes {
    pub(super) const fn is_empty(&self) -> bool {
        self.received.is_empty()
            && self.forgotten.is_empty()
            && self.watermarks.is_empty()
            && self.dropped.is_empty()
    }
}
