//! Sockets that shake hands, and which of them makes room for another.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::sources::{Source, SourceCounts};
use crate::limits::HANDSHAKE_GRACE;

/// The handshakes under way.
#[derive(Default)]
pub(super) struct Handshakes {
    /// In the order of arrival.
    pending: BTreeMap<u64, Handshake>,
    next: u64,
    sources: SourceCounts,
}

struct Handshake {
    source: Source,
    address: IpAddr,
    since: Instant,
    evicted: CancellationToken,
}

impl Handshakes {
    /// Counts a handshake, for which others make room if there are as many as `most` in all and of one source. Its id, and
    /// what fires when it is evicted; `None` if its source has no room.
    pub(super) fn begin(
        &mut self,
        source: Source,
        address: IpAddr,
        now: Instant,
        (most, most_of_source): (usize, usize),
    ) -> Option<(u64, CancellationToken)> {
        if self.sources.of(source) >= most_of_source {
            let neighbour = self.neighbour(source, address, now)?;
            self.evict(neighbour);
        }
        if self.pending.len() >= most
            && let Some(oldest) = self.oldest_of_busiest()
        {
            self.evict(oldest);
        }
        let (id, evicted) = (self.next, CancellationToken::new());
        self.next += 1;
        self.sources.add(source);
        let handshake = Handshake {
            source,
            address,
            since: now,
            evicted: evicted.clone(),
        };
        self.pending.insert(id, handshake);
        Some((id, evicted))
    }

    /// Counts a handshake no longer; one that was evicted is not counted already.
    pub(super) fn end(&mut self, id: u64) -> Option<CancellationToken> {
        let handshake = self.pending.remove(&id)?;
        self.sources.remove(handshake.source);
        Some(handshake.evicted)
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.sources.is_empty()
    }

    fn evict(&mut self, id: u64) {
        if let Some(evicted) = self.end(id) {
            evicted.cancel();
        }
    }

    /// The oldest handshake of the source that has most.
    fn oldest_of_busiest(&self) -> Option<u64> {
        let held = count(self.pending.values().map(|handshake| handshake.source));
        let busiest = held.values().max();
        let mut handshakes = self.pending.iter();
        let oldest = handshakes.find(|(_, handshake)| held.get(&handshake.source) == busiest);
        oldest.map(|(id, _)| *id)
    }

    /// The oldest handshake of the address that has most of those of a source, if it had time to end; `None` if `newcomer`
    /// has as many.
    fn neighbour(&self, source: Source, newcomer: IpAddr, now: Instant) -> Option<u64> {
        let of_source = || {
            let all = self.pending.iter();
            all.filter(|(_, handshake)| handshake.source == source)
        };
        let held = count(of_source().map(|(_, handshake)| handshake.address));
        let own = held.get(&newcomer).copied().unwrap_or_default();
        let most = held.values().copied().max().filter(|most| *most > own)?;
        let mut of_busiest =
            of_source().filter(|(_, handshake)| held.get(&handshake.address) == Some(&most));
        let (id, oldest) = of_busiest.next()?;
        (now.duration_since(oldest.since) >= HANDSHAKE_GRACE).then_some(*id)
    }
}

fn count<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}
