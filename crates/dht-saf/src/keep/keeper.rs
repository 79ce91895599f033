//! Applies the admission rule to real messages and writes them to the store.

use std::{fmt, sync::Arc};

use dht_core::{
    Clock as _, Content, DedupHash, Deliverer, InTransit, NodeIdentity, PublicKey, SharedClock,
    StoreOutcome,
};
use dht_dedup::DedupTable;
use dht_mailbox::{Inserted, NewRecord, Recipient, Refusal, Retention, Store, StoreError};
use dht_peers::Directory;

use super::admission::{Candidate, LocalView, StoreRejection, admit};
use crate::{
    config::Config,
    metrics,
    rates::Rates,
    receipt::{Decisions, Receipt},
};

/// Parts that a [`Keeper`] works with.
pub(crate) struct KeepParts {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) clock: SharedClock,
    pub(crate) store: Store,
    pub(crate) decisions: Arc<Decisions>,
    /// Dedup table of the inbound stack.
    pub(crate) dedup: DedupTable,
}

/// Decides which messages are stored for others, and stores them.
pub(crate) struct Keeper {
    parts: KeepParts,
    /// Known nodes that make up this node's region.
    region_size: usize,
    /// Largest body that is stored, in bytes.
    max_body_bytes: u64,
    rates: Rates<Deliverer>,
}

impl Keeper {
    pub(crate) fn new(parts: KeepParts, seed: [u8; 16], config: &Config) -> Self {
        Self {
            parts,
            region_size: config.neighbouring_nodes,
            max_body_bytes: config.max_body_bytes(),
            rates: Rates::new(config.deliverer_rate(), seed),
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
        if !self.rates.admit(&deliverer, self.parts.clock.now()) {
            metrics::considered("rate");
            message.set_store_outcome(StoreOutcome::NotStored);
            self.refuse_for_now(message.hash());
            return None;
        }
        Some(record(message, retention, deliverer))
    }

    /// Stores a record, and marks its message with the outcome once that is committed.
    pub(super) async fn insert(&self, record: NewRecord, message: &mut impl InTransit) -> bool {
        let inserted = self
            .parts
            .store
            .insert(record, self.parts.clock.now())
            .await;
        let may_pass = inserted.as_ref().err().is_some_and(may_pass);
        let outcome = outcome(inserted);
        let stored = outcome != StoreOutcome::NotStored;
        message.set_store_outcome(outcome);
        let hash = message.hash();
        if may_pass {
            self.refuse_for_now(hash);
        } else if stored {
            self.parts.dedup.set_store_refused(&hash, None);
            self.parts.decisions.record(hash, Receipt::Stored);
        } else {
            self.parts.decisions.record(hash, Receipt::Neither);
        }
        stored
    }

    /// Refuses a copy of a message, and has one that comes 5 seconds later considered anew.
    fn refuse_for_now(&self, hash: DedupHash) {
        let now = self.parts.clock.now();
        self.parts.dedup.set_store_refused(&hash, Some(now));
        self.parts.decisions.refuse_for_now(hash, now);
    }

    /// Whether the recipient has been authenticated on a connection of this node.
    fn has_met(&self, message: &impl InTransit) -> bool {
        let recipient = message.opened().header.destination.public_key();
        let known = recipient.and_then(|key| self.parts.directory.find(&key.node_id()));
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
        admit(
            &candidate,
            self,
            self.max_body_bytes,
            self.parts.clock.now(),
        )
    }

    /// Marks a message as not stored. The receipt for a readable one is decided when it is delivered.
    fn reject(&self, message: &mut impl InTransit) {
        message.set_store_outcome(StoreOutcome::NotStored);
        self.parts.dedup.set_store_refused(&message.hash(), None);
        if matches!(message.opened().content, Content::Unreadable) {
            self.parts
                .decisions
                .record(message.hash(), Receipt::Neither);
        }
    }
}

impl LocalView for Keeper {
    fn stores(&self) -> bool {
        true
    }

    fn own_key(&self) -> &PublicKey {
        self.parts.identity.public_key()
    }

    fn is_banned(&self, key: &PublicKey) -> bool {
        self.parts
            .directory
            .is_banned(&key.node_id(), self.parts.clock.now())
    }

    fn in_region(&self, key: &PublicKey) -> bool {
        self.parts
            .directory
            .in_region(&key.node_id(), self.region_size, self.parts.clock.now())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("store", &self.parts.store)
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

/// Whether the store may take the same message later.
const fn may_pass(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Refused(Refusal::TooLarge | Refusal::Expired)
    )
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
