//! How a node divides its memory for messages.

use dht_stack::ByteBudget;
use dht_transport::limits::{MAX_UNREAD_BYTES, MESSAGE_OVERHEAD_BYTES};

const MIB: usize = 1024 * 1024;

/// The least for messages on their way out: two of the largest fit.
const LEAST_QUEUED: usize = 16 * MIB;

/// Shares of the memory a node is given for messages.
#[derive(Debug)]
pub(crate) struct Memory {
    /// For what arrives, three quarters of it all: held from the socket until the message's fate is known. An eighth
    /// is in reserve for peers that hold little.
    pub(crate) arriving: ByteBudget,
    /// Bytes for what waits to be sent, an eighth.
    pub(crate) queued: usize,
    /// Bytes for what came in and was not read yet, the last eighth, beyond the little that each connection has free
    /// ([`FREE_UNREAD_BYTES`](dht_transport::limits::FREE_UNREAD_BYTES)).
    pub(crate) unread: usize,
}

impl Memory {
    pub(crate) fn new(mib: usize) -> Self {
        let total = mib.max(1).saturating_mul(MIB);
        let (queued, unread) = (total / 8, total / 8);
        let arriving = total.saturating_sub(queued).saturating_sub(unread);
        Self {
            arriving: ByteBudget::with_reserve(arriving, arriving / 8),
            queued: queued.max(LEAST_QUEUED),
            unread: unread.max(MAX_UNREAD_BYTES),
        }
    }

    /// Messages that can be under way at one time: each is charged at least this much of the budget.
    pub(crate) const fn messages(&self) -> usize {
        self.arriving.total() / MESSAGE_OVERHEAD_BYTES
    }
}
