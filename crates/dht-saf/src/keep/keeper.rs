//! Applies the admission rule to real messages and writes them to the store.

use std::{fmt, sync::Arc};

use dht_core::{
    Clock as _, Content, Deliverer, InTransit, NodeIdentity, PublicKey, SharedClock, StoreOutcome,
};
use dht_mailbox::{Inserted, NewRecord, Recipient, Retention, Store, StoreError};
use dht_peers::Directory;

use super::admission::{Candidate, LocalView, StoreRejection, admit};
use crate::{
    config::Config,
    metrics,
    rates::Rates,
    receipt::{Decisions, Receipt},
};

/// Decides which messages are stored for others, and stores them.
pub(crate) struct Keeper {
    identity: Arc<NodeIdentity>,
    directory: Directory,
    clock: SharedClock,
    store: Store,
    /// Known nodes that make up this node's region.
    region_size: usize,
    /// Largest body that is stored, in bytes.
    max_body_bytes: u64,
    rates: Rates<Deliverer>,
    decisions: Arc<Decisions>,
}

impl Keeper {
    pub(crate) fn new(
        identity: Arc<NodeIdentity>,
        directory: Directory,
        clock: SharedClock,
        store: Store,
        decisions: Arc<Decisions>,
        seed: [u8; 16],
        config: &Config,
    ) -> Self {
        Self {
            identity,
            directory,
            clock,
            store,
            region_size: config.neighbouring_nodes,
            max_body_bytes: config.max_body_bytes(),
            rates: Rates::new(config.deliverer_rate(), seed),
            decisions,
        }
    }

    /// The record to insert for a message; `None` if the message is passed on without being stored.
    ///
    /// A message that is not stored is marked so, unless the admission rule leaves it unmarked.
    pub(super) fn accept(&self, message: &mut impl InTransit) -> Option<NewRecord> {
        let retention = match self.admit(message) {
            // Keys are free: what is for a recipient that was never here may have no reader, and goes first.
            Ok(Retention::High) if !self.has_met(message) => Retention::Unmet,
            Ok(retention) => retention,
            Err(reason) => {
                metrics::considered(reason.name());
                if !reason.leaves_message_unmarked() {
                    self.reject(message);
                }
                return None;
            }
        };
        let deliverer = Deliverer::from(&**message.source());
        if !self.rates.admit(&deliverer, self.clock.now()) {
            metrics::considered("rate");
            self.reject(message);
            return None;
        }
        Some(record(message, retention, deliverer))
    }

    /// Stores a record, and marks its message with the outcome once that is committed.
    pub(super) async fn insert(&self, record: NewRecord, message: &mut impl InTransit) -> bool {
        let inserted = self.store.insert(record, self.clock.now()).await;
        let outcome = outcome(inserted);
        let stored = outcome != StoreOutcome::NotStored;
        message.set_store_outcome(outcome);
        let receipt = if stored {
            Receipt::Stored
        } else {
            Receipt::Neither
        };
        self.decisions.record(message.hash(), receipt);
        stored
    }

    /// Whether the recipient has been authenticated on a connection of this node.
    fn has_met(&self, message: &impl InTransit) -> bool {
        let recipient = message.opened().header.destination.public_key();
        let known = recipient.and_then(|key| self.directory.find(&key.node_id()));
        known.is_some_and(|known| known.is_proven())
    }

    fn admit(&self, message: &impl InTransit) -> Result<Retention, StoreRejection> {
        let opened = message.opened();
        let (readable, body_bytes) = match &opened.content {
            Content::Readable { parts, .. } => (true, parts.iter().map(|part| part.len()).sum()),
            Content::Unreadable => (false, opened.body.len()),
        };
        let candidate = Candidate {
            occurrences: message.occurrences(),
            body_bytes: u64::try_from(body_bytes).unwrap_or(u64::MAX),
            expires: opened.header.expires,
            message_type: opened.header.message_type,
            destination: &opened.header.destination,
            origin: opened.origin(),
            readable,
            signed: !opened.header.signature.is_empty(),
        };
        admit(&candidate, self, self.max_body_bytes, self.clock.now())
    }

    /// Marks a message as not stored. The receipt for a readable one is decided when it is delivered.
    fn reject(&self, message: &mut impl InTransit) {
        message.set_store_outcome(StoreOutcome::NotStored);
        if matches!(message.opened().content, Content::Unreadable) {
            self.decisions.record(message.hash(), Receipt::Neither);
        }
    }
}

impl LocalView for Keeper {
    fn stores(&self) -> bool {
        true
    }

    fn own_key(&self) -> &PublicKey {
        self.identity.public_key()
    }

    fn is_banned(&self, key: &PublicKey) -> bool {
        self.directory.is_banned(&key.node_id(), self.clock.now())
    }

    fn in_region(&self, key: &PublicKey) -> bool {
        self.directory
            .in_region(&key.node_id(), self.region_size, self.clock.now())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

fn record(message: &impl InTransit, retention: Retention, deliverer: Deliverer) -> NewRecord {
    let opened = message.opened();
    let destination = opened.header.destination.public_key();
    NewRecord {
        recipient: destination.map_or(Recipient::ANONYMOUS, Recipient::from),
        deliverer,
        hash: message.hash(),
        retention,
        expires: opened.header.expires,
        // Frames are canonical, so these are the bytes received.
        header: dht_proto::encode(&opened.header.to_proto()),
        body: opened.body.clone(),
    }
}

fn outcome(inserted: Result<Inserted, StoreError>) -> StoreOutcome {
    match inserted {
        Ok(Inserted::Fresh(_)) => {
            metrics::considered("stored");
            StoreOutcome::Stored
        }
        Ok(Inserted::AlreadyExisted) => {
            metrics::considered("known");
            StoreOutcome::AlreadyStored
        }
        Err(error) => {
            metrics::considered(error.name());
            match error {
                StoreError::Refused(reason) => tracing::debug!(%reason, "message not stored"),
                error => tracing::warn!(%error, "message not stored"),
            }
            StoreOutcome::NotStored
        }
    }
}
