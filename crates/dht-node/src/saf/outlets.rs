//! What store-and-forward needs of the node, made of its parts.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Clock as _, DedupHash, MessageType, Priority, RemotePeer, Severity, SharedClock, UnixSeconds,
};
use dht_inbound::{BanTerms, DedupTable, Sighting};
use dht_outbound::{Payload, SendParams, SendRequest};
use dht_peers::Directory;
use dht_saf::{BanSink, Done, Duplicates, Outbox, OutboxFull};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::node::Pipeline;

/// Requests and answers on their way at one time; one a peer is usual.
const MAX_SENDING: usize = 512;

/// Sends through the outbound pipeline and waits for the delivery, in tasks of its own.
pub(super) struct ToPipeline {
    pub(super) pipeline: Pipeline,
    pub(super) sending: Mutex<JoinSet<()>>,
}

impl Outbox for ToPipeline {
    fn send(
        &self,
        to: &RemotePeer,
        message_type: MessageType,
        part: Bytes,
        done: Done,
    ) -> Result<(), OutboxFull> {
        let priority = match message_type {
            MessageType::SafStoredMessages => Priority::Stored,
            _ => Priority::Control,
        };
        let params = SendParams::builder()
            .direct_public_key(to.public_key)
            .with_dht_message_type(message_type)
            .with_priority(priority);
        let request = SendRequest::new(params.finish(), Payload::Part(part));
        let mut sending = self.sending.lock();
        while sending.try_join_next().is_some() {}
        if sending.len() >= MAX_SENDING {
            return Err(OutboxFull);
        }
        let pipeline = self.pipeline.clone();
        sending.spawn(async move {
            let sent = match pipeline.oneshot(request).await {
                Ok(response) => match response.resolve().await {
                    Ok(states) => states.wait_single().await,
                    Err(_) => false,
                },
                Err(_) => false,
            };
            done(sent);
        });
        Ok(())
    }
}

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
