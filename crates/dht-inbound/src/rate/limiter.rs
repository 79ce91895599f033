//! The buckets of all neighbours, in constant space.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use dht_core::{NodeId, UnixSeconds};
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::{Bucket, RateLimits, bucket::Tokens};
use crate::{
    MAX_METERED_PEERS,
    keyed::{Keyed, shard_index},
};

/// The least a frame that does not decode is charged with, in bytes: empty ones cost something too.
pub const UNDECODABLE_FRAME_BYTES: usize = 64;

const SHARDS: usize = 16;

/// Token buckets for each neighbour. Cloning shares them; nothing here reads a clock.
///
/// At most [`MAX_METERED_PEERS`] neighbours have buckets, 80 bytes each; beyond that the one looked at longest ago
/// loses its own, which is to say that it finds them full when it returns.
///
/// ```
/// use dht_core::{NodeId, UnixSeconds};
/// use dht_inbound::{Bucket, Rate, RateLimiter, RateLimits};
///
/// let limits = RateLimits { join: Rate::per_second(2), ..RateLimits::default() };
/// let limiter = RateLimiter::new(limits, [7; 16]);
/// let (peer, now) = (NodeId::default(), UnixSeconds(1_700_000_000));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now));
/// assert!(!limiter.try_take(&peer, Bucket::Join, now));
/// assert!(limiter.try_take(&peer, Bucket::Join, now.saturating_add(1)));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: RateLimits,
    keyed: Keyed,
    shards: [Padded; SHARDS],
    /// Neighbours that may be in debt: while there are none, nobody is looked up for it.
    debtors: AtomicUsize,
}

/// Shards on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<HashTable<Peer>>);

#[derive(Debug)]
struct Peer {
    id: NodeId,
    last: UnixSeconds,
    in_debt: bool,
    buckets: [Tokens; Bucket::ALL.len()],
}

impl RateLimiter {
    /// Everybody begins with full buckets. The `seed` must be unknown to peers.
    #[must_use]
    pub fn new(limits: RateLimits, seed: [u8; 16]) -> Self {
        Self(Arc::new(Inner {
            limits,
            keyed: Keyed::new(seed),
            shards: std::array::from_fn(|_| Padded::default()),
            debtors: AtomicUsize::new(0),
        }))
    }

    /// Takes one token of a neighbour's bucket; false if there is none.
    #[must_use]
    pub fn try_take(&self, from: &NodeId, bucket: Bucket, now: UnixSeconds) -> bool {
        let rate = self.0.limits.of(bucket);
        self.with_peer(from, now, |peer| {
            peer.tokens(bucket)
                .is_none_or(|tokens| tokens.take(1, rate, now))
        })
        .unwrap_or(true)
    }

    /// Charges a neighbour for a frame of `bytes` that does not decode.
    pub fn charge_junk(&self, from: &NodeId, bytes: usize, now: UnixSeconds) {
        let rate = self.0.limits.undecodable_bytes;
        let bytes = u32::try_from(bytes.max(UNDECODABLE_FRAME_BYTES)).unwrap_or(u32::MAX);
        self.with_peer(from, now, |peer| {
            let solvent = peer.tokens(Bucket::UndecodableBytes).is_none_or(|tokens| {
                tokens.charge(bytes, rate, now);
                tokens.has(rate, now)
            });
            self.0.note_debt(peer, !solvent);
        });
    }

    /// Whether a neighbour sent so much that does not decode that nothing of it is decoded now. Asks for the time
    /// only if anybody did.
    #[must_use]
    pub fn is_in_debt(&self, from: &NodeId, now: impl FnOnce() -> UnixSeconds) -> bool {
        if self.0.debtors.load(Relaxed) == 0 {
            return false;
        }
        let (now, rate) = (now(), self.0.limits.undecodable_bytes);
        self.with_peer(from, now, |peer| {
            let solvent = peer
                .tokens(Bucket::UndecodableBytes)
                .is_none_or(|tokens| tokens.has(rate, now));
            self.0.note_debt(peer, !solvent);
            !solvent
        })
        .unwrap_or(false)
    }

    /// Neighbours with buckets at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// True if nobody has sent anything yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with_peer<T>(
        &self,
        id: &NodeId,
        now: UnixSeconds,
        work: impl FnOnce(&mut Peer) -> T,
    ) -> Option<T> {
        let keyed = &self.0.keyed;
        let hash = keyed.hash(id.as_bytes());
        // Correctness: the index is masked by the number of shards, a power of two, so there is always one.
        let peers = &mut *self.0.shards.get(shard_index(hash, SHARDS))?.0.lock();
        if let Some(peer) = peers.find_mut(hash, |peer| peer.id == *id) {
            peer.last = peer.last.max(now);
            return Some(work(peer));
        }
        if peers.len() >= MAX_METERED_PEERS / SHARDS {
            self.0.forget_idlest(peers);
        }
        let peer = Peer {
            id: *id,
            last: now,
            in_debt: false,
            buckets: [Tokens::default(); Bucket::ALL.len()],
        };
        let mut entry = peers.insert_unique(hash, peer, |peer| keyed.hash(peer.id.as_bytes()));
        Some(work(entry.get_mut()))
    }
}

impl Inner {
    /// Only reached with far more neighbours than connections, so a scan will do. Who is in debt goes last.
    fn forget_idlest(&self, peers: &mut HashTable<Peer>) {
        let idlest = peers
            .iter()
            .min_by_key(|peer| (peer.in_debt, peer.last, peer.id));
        let Some(id) = idlest.map(|peer| peer.id) else {
            return;
        };
        peers.retain(|peer| {
            let stays = peer.id != id;
            if !stays {
                self.note_debt(peer, false);
            }
            stays
        });
    }

    fn note_debt(&self, peer: &mut Peer, in_debt: bool) {
        if peer.in_debt != in_debt {
            peer.in_debt = in_debt;
            if in_debt {
                self.debtors.fetch_add(1, Relaxed);
            } else {
                self.debtors.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Peer {
    fn tokens(&mut self, bucket: Bucket) -> Option<&mut Tokens> {
        self.buckets.get_mut(bucket as usize)
    }
}
