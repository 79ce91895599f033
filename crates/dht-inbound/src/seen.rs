//! Drops exact copies of validated envelopes before any public-key operation (law 4).

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{
    Clock, DedupHash, Disposition, DropReason, Fingerprint, FingerprintKey, RawEnvelope,
    UnixSeconds,
};
use hashbrown::HashTable;
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use crate::{DedupStore, Filtered, Inbound, Sighting, metrics::ExactCopies};

/// Envelopes recognised at most, unless configured otherwise: copies of one message arrive within seconds of each
/// other, and what is forgotten here only costs a verification.
pub const DEFAULT_SEEN_CAPACITY: usize = 65_536;

/// The exact envelopes that passed validation, by fingerprint, and the duplicate hash of each.
///
/// Whether a message is a repeat is decided by the duplicate table alone; this saves the way there. It holds two
/// generations a shard: when the young one is full, the old one is forgotten. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Seen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: FingerprintKey,
    shards: [Padded; SHARDS],
    generation: usize,
}

/// Shards on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashTable<(Fingerprint, DedupHash)>,
    old: HashTable<(Fingerprint, DedupHash)>,
}

/// Drops a message if exactly this envelope has been validated before and may not come again.
///
/// Outside everything that costs arithmetic. Where more than one sighting is allowed, copies below the limit go
/// the long way and are counted there.
#[derive(Debug)]
pub struct SeenLayer<T, C> {
    shared: Arc<Shared<T, C>>,
}

/// Service produced by [`SeenLayer`].
#[derive(Debug)]
pub struct SeenFilter<T, C, S> {
    shared: Arc<Shared<T, C>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<T, C> {
    seen: Seen,
    store: T,
    allowed: u32,
    clock: C,
    copies: ExactCopies,
}

/// A power of two.
const SHARDS: usize = 64;

// === impl Seen ===

impl Seen {
    /// Room for `capacity` envelopes, rounded up to a few per shard.
    #[must_use]
    pub fn new(capacity: usize, key: FingerprintKey) -> Self {
        Self(Arc::new(Inner {
            key,
            shards: std::array::from_fn(|_| Padded::default()),
            generation: (capacity / (2 * SHARDS)).max(2),
        }))
    }

    /// The fingerprint of an envelope, under the key of this process.
    #[must_use]
    pub fn fingerprint(&self, envelope: &RawEnvelope) -> Fingerprint {
        envelope.fingerprint(&self.0.key)
    }

    /// Remembers a validated envelope.
    pub fn insert(&self, fingerprint: Fingerprint, hash: DedupHash) {
        self.with_shard(fingerprint, |shard| {
            shard.insert(fingerprint, hash, self.0.generation)
        });
    }

    /// The duplicate hash of the envelope, if it is remembered.
    #[must_use]
    pub fn find(&self, fingerprint: Fingerprint) -> Option<DedupHash> {
        self.with_shard(fingerprint, |shard| shard.find(fingerprint))?
    }

    /// Envelopes remembered at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// True if nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with_shard<T>(
        &self,
        fingerprint: Fingerprint,
        work: impl FnOnce(&mut Generations) -> T,
    ) -> Option<T> {
        // Correctness: the index is masked by the number of shards, so there is always one.
        let shard = self
            .0
            .shards
            .get(usize::from(fingerprint.0[15]) & (SHARDS - 1))?;
        Some(work(&mut shard.0.lock()))
    }
}

impl Generations {
    fn insert(&mut self, fingerprint: Fingerprint, hash: DedupHash, generation: usize) {
        let at = index(&fingerprint);
        if let Some(entry) = self.young.find_mut(at, |entry| entry.0 == fingerprint) {
            entry.1 = hash;
            return;
        }
        if self.young.len() >= generation {
            // The old table is emptied and reused, so that a busy node does not allocate here.
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young
            .insert_unique(at, (fingerprint, hash), |entry| index(&entry.0));
    }

    fn find(&self, fingerprint: Fingerprint) -> Option<DedupHash> {
        let at = index(&fingerprint);
        let find = |table: &HashTable<(Fingerprint, DedupHash)>| {
            table
                .find(at, |entry| entry.0 == fingerprint)
                .map(|entry| entry.1)
        };
        find(&self.young).or_else(|| find(&self.old))
    }

    fn len(&self) -> usize {
        self.young.len().saturating_add(self.old.len())
    }
}

/// A fingerprint is a keyed hash already: nobody can aim at a bucket.
fn index(fingerprint: &Fingerprint) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = fingerprint.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

// === impl SeenLayer ===

impl<T, C> SeenLayer<T, C> {
    /// Looks envelopes up in `seen` and counts repeats in `store`, which must be those the dedup layer has.
    #[must_use]
    pub fn new(store: T, seen: Seen, allowed: u32, clock: C) -> Self {
        let allowed = allowed.max(1);
        Self {
            shared: Arc::new(Shared {
                seen,
                store,
                allowed,
                clock,
                copies: ExactCopies::new(),
            }),
        }
    }
}

impl<T, C> Clone for SeenLayer<T, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T, C, S> Layer<S> for SeenLayer<T, C> {
    type Service = SeenFilter<T, C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        SeenFilter {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl SeenFilter ===

impl<T, C, S: Clone> Clone for SeenFilter<T, C, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<T, C, S> Service<Inbound<RawEnvelope>> for SeenFilter<T, C, S>
where
    T: DedupStore,
    C: Clock,
    S: Service<Inbound<RawEnvelope>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut message: Inbound<RawEnvelope>) -> Self::Future {
        let fingerprint = self.shared.seen.fingerprint(&message.envelope);
        if let Some(reason) = self.shared.repeated(fingerprint, &message.envelope) {
            return Filtered::dropped(reason);
        }
        message.fingerprint = Some(fingerprint);
        Filtered::passed(self.inner.call(message))
    }
}

impl<T: DedupStore, C: Clock> Shared<T, C> {
    fn repeated(&self, fingerprint: Fingerprint, envelope: &RawEnvelope) -> Option<DropReason> {
        let hash = self.seen.find(fingerprint)?;
        // The copy that was validated had the same header, so these fields are what its signature covers.
        let header = envelope.header()?;
        let sighting = Sighting {
            signed: !header.message_signature.is_empty(),
            expires: (header.expires != 0).then_some(UnixSeconds(header.expires)),
        };
        match self
            .store
            .try_record_repeat(&hash, sighting, self.allowed, self.clock.now())
        {
            Ok(Some(_)) => {
                self.copies.count();
                Some(DropReason::Duplicate)
            }
            Ok(None) => None,
            // Fail closed; the dedup layer is the one that logs.
            Err(_) => Some(DropReason::Internal),
        }
    }
}

#[cfg(test)]
mod tests;
