//! Drops repeats: specification 03, section 3.6, with retention by expiry (F-15) and failing closed (F-7).

mod retention;
mod shard;
mod table;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dht_core::{Clock, Disposition, DropReason, UnixSeconds, Verified, dedup_key};
use tower_layer::Layer;
use tower_service::Service;
use tracing::error;

pub use self::{
    retention::{
        CEILING_FACTOR, DEFAULT_CAPACITY, MAX_RETENTION_SECONDS, MIN_RETENTION_SECONDS, Sighting,
    },
    table::{DedupEntry, DedupStore, DedupTable},
};
use crate::{Counted, Filtered, Inbound, Seen};

/// Sightings of one message that are let through, unless configured otherwise.
pub const DEFAULT_ALLOWED_OCCURRENCES: u32 = 1;

/// Seconds between two log lines about a store that fails.
const LOG_EVERY_SECONDS: u64 = 10;

/// Counts verified messages and drops those that came too often.
///
/// After verification, so that an invalid copy never occupies the key of a valid one; before storing, forwarding
/// and opening, so that repeats cost none of these.
///
/// Specification 03, section 3.6; F-7 and F-15.
#[derive(Debug)]
pub struct DedupLayer<T, C> {
    shared: Arc<Shared<T, C>>,
}

/// Service produced by [`DedupLayer`].
#[derive(Debug)]
pub struct Dedup<T, C, S> {
    shared: Arc<Shared<T, C>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<T, C> {
    store: T,
    seen: Seen,
    allowed: u32,
    clock: C,
    /// Second of the last log line about a failing store.
    logged: AtomicU64,
}

// === impl DedupLayer ===

impl<T, C> DedupLayer<T, C> {
    /// Lets `allowed` sightings of a message through, at least one. What is verified becomes known to `seen`.
    #[must_use]
    pub fn new(store: T, seen: Seen, allowed: u32, clock: C) -> Self {
        let allowed = allowed.max(1);
        let logged = AtomicU64::new(0);
        Self {
            shared: Arc::new(Shared {
                store,
                seen,
                allowed,
                clock,
                logged,
            }),
        }
    }
}

impl<T, C> Clone for DedupLayer<T, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T, C, S> Layer<S> for DedupLayer<T, C> {
    type Service = Dedup<T, C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Dedup {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Dedup ===

impl<T, C, S: Clone> Clone for Dedup<T, C, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<T, C, S> Service<Inbound<Verified>> for Dedup<T, C, S>
where
    T: DedupStore,
    C: Clock,
    S: Service<Inbound<Counted>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Inbound<Verified>) -> Self::Future {
        match self.shared.count(message) {
            Ok(message) => Filtered::passed(self.inner.call(message)),
            Err(reason) => Filtered::dropped(reason),
        }
    }
}

impl<T: DedupStore, C: Clock> Shared<T, C> {
    fn count(&self, message: Inbound<Verified>) -> Result<Inbound<Counted>, DropReason> {
        let hash = dedup_key(&message.envelope).map_err(|_| DropReason::UndecodableBody)?;
        let now = self.clock.now();
        let sighting = Sighting::of(message.envelope.header());
        let hits = self
            .store
            .try_record(&hash, sighting, now)
            .map_err(|cause| {
                self.log(&cause, now);
                DropReason::Internal
            })?;
        if let Some(fingerprint) = message.fingerprint {
            self.seen.insert(fingerprint, hash);
        }
        if hits > self.allowed {
            return Err(DropReason::Duplicate);
        }
        Ok(message.map(|verified| Counted {
            verified,
            hash,
            hits,
        }))
    }

    fn log(&self, cause: &T::Error, now: UnixSeconds) {
        let last = self.logged.load(Ordering::Relaxed);
        if now.0.saturating_sub(last) >= LOG_EVERY_SECONDS
            && self
                .logged
                .compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            error!(%cause, "repeats cannot be counted, dropping everything");
        }
    }
}

#[cfg(test)]
mod tests;
