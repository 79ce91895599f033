//! A node without store-and-forward.

use std::path::Path;

use dht_core::{Features, NodeId, PublicKey, RemotePeer};
use dht_transport::Builder;
use tower::layer::util::Identity;

use super::MailParts;
use crate::{Config, StartError, events::Events, tasks::Tasks};

/// Nobody to tell.
#[derive(Clone, Debug)]
pub(crate) struct SafHandle;

/// No receipts to give.
#[derive(Clone, Debug)]
pub(crate) struct Receipts;

impl Receipts {
    pub(crate) fn offer(
        transport: Builder,
        _config: &Config,
        _features: Features,
    ) -> (Builder, Self) {
        (transport, Self)
    }
}

/// Nothing to start.
pub(crate) async fn start(
    _home: Option<&Path>,
    _config: &Config,
    _parts: MailParts,
) -> Result<(SafHandle, Option<Identity>, Option<Identity>), StartError> {
    Ok((SafHandle, None, None))
}

impl SafHandle {
    pub(crate) fn spawn_upkeep(&self, _tasks: &Tasks, _events: &Events) {}

    pub(crate) fn connected(&self, _peer: &RemotePeer) {}

    pub(crate) fn disconnected(&self, _peer: &NodeId, _key: Option<&PublicKey>) {}

    pub(crate) fn listen(&self) {}

    pub(crate) async fn close(&self) {}
}
