//! What store-and-forward needs of the node, made of its parts.

use std::sync::Arc;

use dht_core::{Clock as _, DedupHash, RemotePeer, Severity, SharedClock, UnixSeconds};
use dht_inbound::{BanTerms, DedupTable, Sighting};
use dht_peers::Directory;
use dht_saf::{BanSink, Duplicates};

/// Bans in the directory; the connection is closed by whoever watches the bans.
pub(super) struct ToDirectory {
    pub(super) directory: Directory,
    pub(super) clock: SharedClock,
}

impl BanSink for ToDirectory {
    fn ban(&self, peer: &RemotePeer, severity: Severity, reason: &'static str) {
        let terms = BanTerms::default();
        let seconds = match severity {
            Severity::High => terms.long_seconds,
            Severity::Low | Severity::Medium => terms.short_seconds,
        };
        let now = self.clock.now();
        let until = now.saturating_add(seconds);
        tracing::warn!(peer = %peer.node_id, seconds, reason, "peer banned");
        self.directory
            .ban(peer.public_key, until, severity, reason, now);
    }
}

/// The duplicate table of the inbound stack.
pub(super) struct Table(pub(super) Arc<DedupTable>);

impl Duplicates for Table {
    fn record(
        &self,
        key: &DedupHash,
        signed: bool,
        expires: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> u32 {
        self.0.record(key, Sighting { signed, expires }, now)
    }
}
