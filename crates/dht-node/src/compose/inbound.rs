//! The inbound side of a node: workers, each with a stack of its own.

use std::{sync::Arc, time::Duration};

use dht_inbound::{
    AnswerCheck, FloodLimits, FloodMeter, Inbound, InboundConfig, InboundRuntime, RateLimiter,
    run_worker,
};
use dht_peers::InboundFrame;
use tokio::sync::{Mutex, mpsc};
use tower::ServiceExt as _;

use super::outbound::OutboundParts;
use crate::{
    adapters::ToApplication,
    builder::Builder,
    config::Config,
    connection_mirror::ConnectionMirror,
    context::{NodeContext, seed},
    counters::Tally,
    discovery::Answers,
    saf::SafHandle,
    tasks::Tasks,
};

/// The inbound workers: usually one for each core, each with a stack and batches of its own. A worker that waited for a batch of
/// another would leave its core idle.
pub(super) struct InboundWorkers {
    pub(super) config: InboundConfig,
    pub(super) runtime: InboundRuntime,
    pub(super) saf: SafHandle,
    pub(super) deliver: ToApplication,
    pub(super) peers: ConnectionMirror,
    pub(super) shared: NodeContext,
    /// Most messages in flight in one worker.
    pub(super) most: usize,
    pub(super) count: usize,
}

impl Builder {
    pub(super) fn inbound_runtime(
        &self,
        shared: &NodeContext,
        sending: &OutboundParts,
    ) -> InboundRuntime {
        let flood = FloodLimits {
            messages: self.config.flood_messages,
            seconds: self.config.flood_seconds,
        };
        let answers = Answers {
            searcher: sending.discoveries.searcher.clone(),
            check: AnswerCheck {
                directory: shared.directory.clone(),
                bans: shared.bans.clone(),
                clock: Arc::clone(&shared.clock),
                claims: self.config.claim_policy(),
            },
        };
        InboundRuntime {
            identity: Arc::clone(&shared.identity),
            directory: shared.directory.clone(),
            clock: Arc::clone(&shared.clock),
            entropy: Arc::clone(&shared.entropy),
            meter: FloodMeter::new(flood, seed(&shared.entropy)),
            limiter: RateLimiter::new(self.config.rates, seed(&shared.entropy)),
            dedup: shared.dedup.clone(),
            fingerprints: shared.fingerprints.clone(),
            bans: shared.bans.clone(),
            send_queue: sending.send_queue(),
            discovery: Arc::new(answers),
            validator: self.validator.clone(),
        }
    }
}

impl InboundWorkers {
    pub(super) fn start(self, messages: mpsc::Receiver<InboundFrame>, tasks: &Tasks) {
        let messages = Arc::new(Mutex::new(messages));
        let (store, serve) = self.saf.layers();
        for _ in 0..self.count {
            let stack = Inbound::new(self.config, self.runtime.clone(), self.deliver.clone())
                .push_protocol()
                // Outside the protocol, which ends unreadable answers; messages it unpacks go on from here.
                .push_option(serve.clone())
                .push_forward()
                // Outside `forward`, which sends stored messages another way.
                .push_option(store.clone())
                .push_crypto()
                .push_filters()
                .into_inner();
            let tally = Tally {
                transport: self.peers.transport.clone(),
                counters: Arc::clone(&self.shared.counters),
                events: self.shared.events.clone(),
                inner: stack,
            };
            let peers = self.peers.clone();
            let service = tally.map_request(move |frame: InboundFrame| {
                peers.ensure(&frame.source.node_id);
                frame
            });
            tasks.spawn(
                "inbound worker",
                run_worker(service, Arc::clone(&messages), self.most),
            );
        }
    }
}

pub(super) fn inbound_config(config: &Config, validation_deadline: Duration) -> InboundConfig {
    let mut inbound = InboundConfig {
        forward: config.forward,
        relay_gossip: config.relay_gossip,
        validation_deadline,
        allowed_occurrences: config.allowed_occurrences,
        ..InboundConfig::default()
    };
    inbound.claims.addresses = config.claim_policy().addresses;
    inbound
}

#[cfg(test)]
mod tests {
    use dht_core::Network;

    use super::*;

    #[test]
    fn settings_reach_the_inbound_stack() {
        let config = Config {
            network: Network::Esmeralda,
            allowed_occurrences: 3,
            forward: false,
            relay_gossip: true,
            ..Config::default()
        };
        let deadline = Duration::from_secs(7);
        let set = inbound_config(&config, deadline);
        let expected = InboundConfig {
            allowed_occurrences: 3,
            forward: false,
            relay_gossip: true,
            validation_deadline: deadline,
            ..InboundConfig::default()
        };
        assert_eq!(set, expected);
        let local = inbound_config(&Config::default(), deadline);
        assert!(local.forward && local.claims.addresses.allow_test);
    }
}
