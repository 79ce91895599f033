//! The shares of a node's memory for messages and peers.

#[cfg(feature = "overlay")]
use dht_overlay::sync::SESSION_BYTES;
use dht_stack::ByteBudget;
use dht_transport::limits::{MAX_UNREAD_BYTES, MESSAGE_OVERHEAD_BYTES};

const MIB: usize = 1024 * 1024;

/// Least memory for queued outbound messages, in bytes: two of the largest fit.
const LEAST_QUEUED: usize = 16 * MIB;

/// Shares of [`Config::memory_mib`](crate::Config::memory_mib).
#[derive(Debug)]
pub(crate) struct Memory {
    /// Budget of inbound messages, eleven sixteenths less what subscribers, the store and the peer-sync sessions take: held from
    /// the socket until the message is queued for its subscribers, or its disposition is known. An eighth of it is reserved for peers that hold little.
    pub(crate) arriving: ByteBudget,
    /// Budget of messages queued for the subscribers of a node without a durable inbox, a sixteenth.
    pub(crate) subscribers: ByteBudget,
    /// Bytes of queued outbound messages, an eighth. Responses with stored messages are among them, and never hold more.
    pub(crate) queued: usize,
    /// Bytes that sockets received and no stream has read yet, an eighth. Each connection has
    /// [`FREE_UNREAD_BYTES`](dht_transport::limits::FREE_UNREAD_BYTES) beyond it.
    pub(crate) unread: usize,
    /// Bytes of the peer directory with its bans, a sixteenth.
    pub(crate) directory: usize,
    /// Bytes of the messages for offline peers that a node without a folder stores, a sixteenth; 0 if it stores none, or in files.
    #[cfg(feature = "saf")]
    pub(crate) stored: usize,
    /// Peer-sync sessions that peers may have, at most 100: they take a thirty-second.
    #[cfg(feature = "overlay")]
    pub(crate) sync_sessions: usize,
}

impl Memory {
    /// The shares of a node that stores messages for offline peers in memory, or does not, and has a durable inbox or not.
    pub(crate) fn new(mib: usize, stores_in_memory: bool, has_inbox: bool) -> Self {
        let total = mib.max(1).saturating_mul(MIB);
        let (queued, unread, directory) = (total / 8, total / 8, total / 16);
        #[cfg(feature = "overlay")]
        let sync_sessions = (total / 32 / SESSION_BYTES).clamp(1, dht_rpc::DEFAULT_MAX_SESSIONS);
        #[cfg(feature = "overlay")]
        let sessions = sync_sessions * SESSION_BYTES;
        #[cfg(not(feature = "overlay"))]
        let sessions = 0;
        let stored = if stores_in_memory { total / 16 } else { 0 };
        let subscribers = if has_inbox { 0 } else { total / 16 };
        let others = queued
            .saturating_add(unread)
            .saturating_add(directory)
            .saturating_add(stored)
            .saturating_add(subscribers)
            .saturating_add(sessions);
        let arriving = total.saturating_sub(others);
        Self {
            arriving: ByteBudget::with_reserve(arriving, arriving / 8),
            subscribers: ByteBudget::new(subscribers),
            queued: queued.max(LEAST_QUEUED),
            unread: unread.max(MAX_UNREAD_BYTES),
            directory,
            #[cfg(feature = "saf")]
            stored,
            #[cfg(feature = "overlay")]
            sync_sessions,
        }
    }

    /// Most inbound messages in flight: each is charged at least [`MESSAGE_OVERHEAD_BYTES`] of a budget.
    pub(crate) const fn messages(&self) -> usize {
        (self.arriving.total() + self.subscribers.total()) / MESSAGE_OVERHEAD_BYTES
    }
}

#[cfg(all(test, feature = "overlay"))]
mod tests {
    use super::*;

    #[test]
    fn sync_sessions_take_a_thirty_second() {
        for (mib, sessions) in [(1, 1), (16, 7), (256, 100), (4_096, 100)] {
            let memory = Memory::new(mib, false, true);
            assert_eq!(memory.sync_sessions, sessions, "{mib} MiB");
            let taken = sessions * SESSION_BYTES;
            assert!(memory.arriving.total() + taken == mib * MIB / 16 * 11);
        }
    }

    #[cfg(feature = "saf")]
    #[test]
    fn store_in_memory_takes_a_sixteenth() {
        let (without, with) = (Memory::new(256, false, true), Memory::new(256, true, true));
        assert_eq!((without.stored, with.stored), (0, 16 * MIB));
        let less = without.arriving.total() - with.arriving.total();
        assert_eq!(less, with.stored);
    }

    #[test]
    fn subscribers_take_a_sixteenth() {
        let (with, without) = (
            Memory::new(256, false, true),
            Memory::new(256, false, false),
        );
        assert_eq!(without.subscribers.total(), 16 * MIB);
        let less = with.arriving.total() - without.arriving.total();
        assert_eq!(less, without.subscribers.total());
    }
}
