use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    DropReason, Entropy as _, FingerprintKey, ManualClock, SeededEntropy, Signing,
    test_util::{clear, encrypted, identity, public_key},
};
use dht_dedup::{DedupTable, FingerprintCache};
use dht_stack::FilterLayer;
use tower::{BoxError, ServiceBuilder, service_fn};

use super::*;
use crate::{
    crypto::Dedup,
    filter::ExactCopy,
    test_support::{self as support, NOW},
};

const US: u64 = 4;

struct Parts {
    relays_gossip: bool,
    table: DedupTable,
    fingerprints: FingerprintCache,
    clock: Arc<ManualClock>,
}

impl Parts {
    fn new() -> Self {
        let key = FingerprintKey::random(&mut SeededEntropy::new(1).rng());
        Self {
            relays_gossip: false,
            table: DedupTable::new(100, [0; 16]),
            fingerprints: FingerprintCache::new(1_000, key),
            clock: Arc::new(ManualClock::new(NOW)),
        }
    }

    fn dedup(&self) -> Dedup {
        Dedup {
            recipient: public_key(US),
            relays_gossip: self.relays_gossip,
            table: self.table.clone(),
            fingerprints: self.fingerprints.clone(),
            allowed: 1,
            clock: Arc::clone(&self.clock) as _,
        }
    }

    /// Disposition of one copy if the application answers like this.
    async fn copy(
        &self,
        to: u64,
        answer: Result<Disposition, &'static str>,
    ) -> Option<Disposition> {
        self.frame_copy(encrypted(&identity(3), &public_key(to), b"x", 1), answer)
            .await
    }

    async fn frame_copy(
        &self,
        frame: Bytes,
        answer: Result<Disposition, &'static str>,
    ) -> Option<Disposition> {
        let service =
            service_fn(
                move |_: InboundEnvelope<Deduped>| async move { answer.map_err(BoxError::from) },
            );
        let mut stack = ServiceBuilder::new()
            .layer(FilterLayer::new(Arc::new(self.dedup())))
            .layer(CommitLayer)
            .service(service);
        stack.call(support::verified(frame)).await.ok()
    }
}

const DUPLICATE: Option<Disposition> = Some(Disposition::Dropped(DropReason::Duplicate));

#[tokio::test]
async fn refused_copies_are_forgotten() {
    let parts = Parts::new();
    for reason in DropReason::ALL.into_iter().filter(|it| it.is_temporary()) {
        let refused = Disposition::Dropped(reason);
        assert_eq!(parts.copy(US, Ok(refused)).await, Some(refused));
    }
    assert_eq!(parts.copy(US, Err("a part failed")).await, None);
    let delivered = Disposition::Delivered;
    assert_eq!(parts.copy(US, Ok(delivered)).await, Some(delivered));
    assert_eq!(parts.copy(US, Ok(delivered)).await, DUPLICATE);
}

/// A message without a recipient may be for this node, too. A node that passes gossip on has done so by then, and must not
/// do it again.
#[tokio::test]
async fn refused_gossip_is_forgotten_unless_relayed() {
    let frame = clear(&identity(3), Signing::Origin, b"x", 1);
    let full = Disposition::Dropped(DropReason::InboxFull);
    for relays_gossip in [false, true] {
        let parts = Parts {
            relays_gossip,
            ..Parts::new()
        };
        let first = parts.frame_copy(frame.clone(), Ok(full)).await;
        assert_eq!(first, Some(full));
        let delivered = Some(Disposition::Delivered);
        let second = parts.frame_copy(frame.clone(), Ok(Disposition::Delivered));
        let expected = if relays_gossip { DUPLICATE } else { delivered };
        assert_eq!(second.await, expected);
        let third = parts.frame_copy(frame.clone(), Ok(Disposition::Delivered));
        assert_eq!(third.await, DUPLICATE);
    }
}

#[tokio::test]
async fn other_drops_are_remembered() {
    for reason in DropReason::ALL.into_iter().filter(|it| !it.is_temporary()) {
        let parts = Parts::new();
        let dropped = Disposition::Dropped(reason);
        assert_eq!(parts.copy(US, Ok(dropped)).await, Some(dropped));
        assert_eq!(parts.copy(US, Ok(Disposition::Delivered)).await, DUPLICATE);
    }
    // A message for another node is not relayed twice, whatever became of it.
    let (parts, other) = (Parts::new(), US + 1);
    let full = Disposition::Dropped(DropReason::Overload);
    assert_eq!(parts.copy(other, Ok(full)).await, Some(full));
    assert_eq!(parts.copy(other, Ok(full)).await, DUPLICATE);
}

/// While one copy is being delivered another is a duplicate; when the delivery is cancelled, the next one is taken,
/// also where exact copies are dropped early.
#[tokio::test]
async fn cancelled_deliveries_are_forgotten() {
    let parts = Parts::new();
    let exact = ExactCopy::new(
        parts.table.clone(),
        parts.fingerprints.clone(),
        1,
        Arc::clone(&parts.clock) as _,
    );
    let frame = encrypted(&identity(3), &public_key(US), b"x", 1);
    let is_exact = || {
        use dht_stack::Check as _;
        exact.check(support::raw(frame.clone())).is_err()
    };
    let pending = service_fn(|_: InboundEnvelope<Deduped>| {
        std::future::pending::<Result<Disposition, BoxError>>()
    });
    let mut stack = ServiceBuilder::new()
        .layer(FilterLayer::new(Arc::new(parts.dedup())))
        .layer(CommitLayer)
        .service(pending);
    let mut copy = support::verified(frame.clone());
    copy.fingerprint = Some(
        parts
            .fingerprints
            .fingerprint(&support::raw(frame.clone()).envelope),
    );
    let delivery = stack.call(copy);
    assert!(is_exact());
    assert_eq!(parts.copy(US, Ok(Disposition::Delivered)).await, DUPLICATE);
    drop(delivery);
    assert!(!is_exact());
    let delivered = Disposition::Delivered;
    assert_eq!(parts.copy(US, Ok(delivered)).await, Some(delivered));
    assert!(is_exact());
}
