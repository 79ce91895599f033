//! What a node has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dht_core::{Disposition, DropReason};

/// Totals since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Peers connected now.
    pub connections: usize,
    /// Peers known.
    pub known_peers: usize,
    /// Completed handshakes in either direction.
    pub handshakes: u64,
    /// Bytes read from sockets.
    pub bytes_received: u64,
    /// Bytes written to sockets.
    pub bytes_sent: u64,
    /// Messages received, whatever became of them.
    pub messages_received: u64,
    /// Messages the application got.
    pub delivered: u64,
    /// Messages passed on for others.
    pub forwarded: u64,
    /// Messages seen before.
    pub duplicates_dropped: u64,
    /// Messages dropped for any other reason.
    pub dropped: u64,
    /// Bytes of received messages held in memory now.
    pub memory_used_bytes: usize,
    /// Bytes of received messages that may be held.
    pub memory_limit_bytes: usize,
}

/// Counts dispositions.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    delivered: AtomicU64,
    forwarded: AtomicU64,
    duplicates: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    pub(crate) fn record(&self, disposition: Disposition) {
        self.received.fetch_add(1, Relaxed);
        let counter = match disposition {
            Disposition::Delivered => &self.delivered,
            Disposition::Forwarded => &self.forwarded,
            Disposition::Dropped(DropReason::Duplicate | DropReason::Rebroadcast) => {
                &self.duplicates
            }
            Disposition::Dropped(_) => &self.dropped,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Fills in what is counted here.
    pub(crate) fn fill(&self, stats: &mut Stats) {
        stats.messages_received = self.received.load(Relaxed);
        stats.delivered = self.delivered.load(Relaxed);
        stats.forwarded = self.forwarded.load(Relaxed);
        stats.duplicates_dropped = self.duplicates.load(Relaxed);
        stats.dropped = self.dropped.load(Relaxed);
    }
}
