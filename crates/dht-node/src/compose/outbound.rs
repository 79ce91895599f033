//! The outbound side of a node: the pipeline, and the searches for unknown recipients.

use std::{sync::Arc, time::Duration};

use dht_core::SendQueue;
use dht_outbound::{
    Connector, Outbound, PipelineParts, SearchCause, SearchLimits, Searcher, pipeline,
};
#[cfg(feature = "overlay")]
use dht_overlay::{
    lookup::{Finder, LookupConfig},
    sync::Learner,
};
use dht_transport::Transport;

use crate::{
    adapters::ToTransport,
    config::Config,
    context::NodeContext,
    discovery::{Dialler, Discoveries},
    tasks::Tasks,
};
#[cfg(feature = "overlay")]
use crate::{discovery::LOOKUPS, overlay::SyncLinks};

/// The outbound pipeline and the search for unknown recipients.
pub(super) struct OutboundParts {
    pub(super) config: dht_outbound::Config,
    /// Does not search: searches themselves leave through it.
    pub(super) door: Outbound,
    pub(super) outbound: Outbound,
    pub(super) discoveries: Discoveries,
    /// For the operator.
    pub(super) connector: Connector<Dialler>,
    /// For messages that are tried again.
    pub(super) retry_connector: Connector<Dialler>,
}

impl OutboundParts {
    pub(super) fn start(
        shared: &NodeContext,
        config: &Config,
        transport: &Transport,
        tasks: &Tasks,
    ) -> Self {
        let settings = dht_outbound::Config {
            discovery_seconds: config.discovery_seconds,
            ..config.outbound.clone()
        };
        let parts = PipelineParts {
            identity: Arc::clone(&shared.identity),
            connections: shared.connections.clone(),
            directory: shared.directory.clone(),
            clock: Arc::clone(&shared.clock),
            entropy: Arc::clone(&shared.entropy),
            dedup: shared.dedup.clone(),
        };
        let sink = ToTransport {
            transport: transport.clone(),
            counters: Arc::clone(&shared.counters),
            events: shared.events.clone(),
        };
        let (door, worker) = Outbound::new(&settings, pipeline(parts, &settings, sink));
        tasks.spawn("outbound worker", worker.run());
        let limits = SearchLimits {
            timeout: Duration::from_secs(config.discovery_seconds),
            ..SearchLimits::default()
        };
        let (identity, entropy) = (Arc::clone(&shared.identity), Arc::clone(&shared.entropy));
        let searcher = Searcher::new(door.clone(), identity, entropy, limits);
        #[cfg(feature = "overlay")]
        let finder = {
            let learner = Learner {
                directory: shared.directory.clone(),
                bans: shared.bans.clone(),
                clock: Arc::clone(&shared.clock),
                claims: config.claim_policy(),
            };
            let links = SyncLinks(transport.clone());
            Finder::new(links, learner, LookupConfig::default(), LOOKUPS)
        };
        let discoveries = Discoveries::new(
            searcher,
            #[cfg(feature = "overlay")]
            config.lookups.then_some(&finder),
        );
        let connector = |cause| {
            Connector::new(
                Dialler(transport.clone()),
                Arc::new(discoveries.for_cause(cause).clone()),
                shared.directory.clone(),
                Arc::clone(&shared.clock),
                limits.timeout,
            )
        };
        Self {
            config: settings,
            outbound: door.with_discovery(Arc::new(connector(SearchCause::Application))),
            door,
            connector: connector(SearchCause::Operator),
            retry_connector: connector(SearchCause::Retry),
            discoveries,
        }
    }

    /// The outbound side, through which the other parts of the node send.
    pub(super) fn send_queue(&self) -> Arc<dyn SendQueue> {
        Arc::new(self.door.clone())
    }
}
