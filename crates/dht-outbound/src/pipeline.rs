//! The layers from a request to the sink: specification 04, section 1.

use std::sync::Arc;

use dht_core::{NodeIdentity, SendRequest, SharedClock, SharedEntropy};
use dht_dedup::DedupTable;
use dht_peers::{Connections, Directory};
use tower::{BoxError, ServiceBuilder};
use tower_service::Service;

use crate::{
    config::Config,
    deliver::{Deliveries, FanOutLayer, OutboundMessage},
    log::{LogMessageLayer, LogRequestLayer},
    seal::SealLayer,
    select::SelectLayer,
};

/// Parts of a node that the pipeline works with.
#[derive(Clone)]
pub struct PipelineParts {
    /// Signs, and encrypts as, this node.
    pub identity: Arc<NodeIdentity>,
    /// The peers connected now.
    pub connections: Connections,
    /// Peers that are known, connected or not.
    pub directory: Directory,
    /// The time, for expiry and bans.
    pub clock: SharedClock,
    /// Randomness, one generator a message.
    pub entropy: SharedEntropy,
    /// The duplicate table, shared with the inbound side.
    pub dedup: DedupTable,
}

/// Composes the pipeline. A request meets: log, select, seal and remember, fan out, log, `sink`.
///
/// `sink` takes a message when it has put it into the peer's queue; it must not wait for a dial or a write.
///
/// Specification 04, section 1.
pub fn pipeline<S>(
    parts: PipelineParts,
    config: &Config,
    sink: S,
) -> impl Service<SendRequest, Response = Deliveries, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ use<S>
where
    S: Service<OutboundMessage, Error: Into<BoxError> + Send, Response: Send, Future: Send>
        + Clone
        + Send
        + Sync
        + Unpin,
{
    let PipelineParts {
        identity,
        connections,
        directory,
        clock,
        entropy,
        dedup,
    } = parts;
    let select = config.select.clone();
    ServiceBuilder::new()
        .layer(LogRequestLayer)
        // Outside sealing: a message without recipients costs no arithmetic.
        .layer(SelectLayer::new(
            connections,
            directory,
            select,
            Arc::clone(&clock),
            entropy,
        ))
        // Outside the fan-out, so that a message is sealed and encoded once for all recipients.
        .layer(SealLayer::new(identity, clock, config.clone(), dedup))
        .layer(FanOutLayer)
        .layer(LogMessageLayer)
        .service(sink)
}

impl std::fmt::Debug for PipelineParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipelineParts")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
