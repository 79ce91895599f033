//! Which peer gives way when a table of the directory is full.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use bytes::Bytes;
use dht_core::{Claim, NodeId, UnixSeconds};

use crate::{address::AddressRecord, ban::BAN_BYTES, group::NetGroup, record::PeerRecord};

/// The bytes that each source group and, of its peers, each address group has in a table. When the table is full, a peer
/// of the largest source group gives way, of its largest address group: a source that fills the table pushes out what it
/// brought itself.
#[derive(Debug)]
pub(super) struct Shares {
    limit: usize,
    bytes: usize,
    order: BTreeSet<Position>,
    sources: BTreeMap<NetGroup, usize>,
    sources_by_size: BTreeSet<(Reverse<usize>, NetGroup)>,
    buckets: BTreeMap<(NetGroup, NetGroup), usize>,
    buckets_by_size: BTreeSet<(NetGroup, Reverse<usize>, NetGroup)>,
}

/// Place of a peer among those of its source and address group; the first gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    source: NetGroup,
    address: NetGroup,
    /// 0: given up, 1: offline, 2: neither.
    rank: u8,
    last_seen: UnixSeconds,
    /// Number of the change that entered the peer or its newest claim.
    pub(super) entered: u64,
    pub(super) id: NodeId,
    bytes: usize,
}

impl Position {
    pub(super) fn of(peer: &PeerRecord, entered: u64) -> Self {
        let rank = match peer {
            _ if peer.deleted_at.is_some() => 0,
            _ if peer.is_offline() => 1,
            _ => 2,
        };
        let address = peer.addresses.first();
        Self {
            source: peer.source,
            address: address.map_or(NetGroup::Unknown, |held| {
                NetGroup::of_address(&held.address)
            }),
            rank,
            last_seen: peer.last_seen.unwrap_or(UnixSeconds(0)),
            entered,
            id: peer.node_id,
            bytes: bytes(peer),
        }
    }
}

impl Shares {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            order: BTreeSet::new(),
            sources: BTreeMap::new(),
            sources_by_size: BTreeSet::new(),
            buckets: BTreeMap::new(),
            buckets_by_size: BTreeSet::new(),
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.bytes > self.limit
    }

    pub(super) fn insert(&mut self, position: Position) {
        if self.order.insert(position) {
            self.weigh(&position, |bytes| bytes.saturating_add(position.bytes));
        }
    }

    pub(super) fn remove(&mut self, position: &Position) {
        if self.order.remove(position) {
            self.weigh(position, |bytes| bytes.saturating_sub(position.bytes));
        }
    }

    /// The peers, by who gives way first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &NodeId> {
        // The largest is the first.
        let buckets = self.sources_by_size.iter().flat_map(|(_, source)| {
            let all = (*source, Reverse(usize::MAX), NetGroup::Unknown)..;
            let of_source = self.buckets_by_size.range(all);
            of_source.take_while(move |(of, ..)| of == source)
        });
        let peers = buckets.flat_map(|(source, _, address)| {
            let first = Position {
                source: *source,
                address: *address,
                rank: 0,
                last_seen: UnixSeconds(0),
                entered: 0,
                id: NodeId::default(),
                bytes: 0,
            };
            let same =
                move |other: &&Position| other.source == *source && other.address == *address;
            self.order.range(first..).take_while(same)
        });
        peers.map(|position| &position.id)
    }

    fn weigh(&mut self, position: &Position, change: impl Fn(usize) -> usize) {
        let Position {
            source, address, ..
        } = *position;
        self.bytes = change(self.bytes);
        let old = self.sources.remove(&source).unwrap_or(0);
        self.sources_by_size.remove(&(Reverse(old), source));
        let new = change(old);
        if new > 0 {
            self.sources.insert(source, new);
            self.sources_by_size.insert((Reverse(new), source));
        }
        let old = self.buckets.remove(&(source, address)).unwrap_or(0);
        self.buckets_by_size
            .remove(&(source, Reverse(old), address));
        let new = change(old);
        if new > 0 {
            self.buckets.insert((source, address), new);
            self.buckets_by_size.insert((source, Reverse(new), address));
        }
    }
}

/// Bytes a peer takes in the directory, with its places in the indexes. What several peers share is counted for each.
pub(super) fn bytes(peer: &PeerRecord) -> usize {
    // A `Bytes` that was cloned is an allocation of its own beside its content.
    let of_len = |len: usize| {
        size_of::<Bytes>()
            .saturating_add(len)
            .saturating_add(ALLOCATION_BYTES)
    };
    let of_addresses = peer.addresses.iter().map(|held| {
        let failure = held
            .last_failure
            .as_ref()
            .map_or(0, |text| text.len().saturating_add(ALLOCATION_BYTES));
        of_len(held.address.as_bytes().len()).saturating_add(failure)
    });
    let claimed = peer.claim.iter().flat_map(|claim| &claim.addresses);
    let parts = [
        RECORD_BYTES,
        peer.addresses
            .capacity()
            .saturating_mul(size_of::<AddressRecord>()),
        of_addresses.sum(),
        peer.claim
            .as_ref()
            .map_or(0, |_| size_of::<Claim>().saturating_add(ALLOCATION_BYTES)),
        claimed
            .map(|address| of_len(address.as_bytes().len()))
            .sum(),
        peer.protocols.iter().map(|name| of_len(name.len())).sum(),
        peer.user_agent.len(),
        peer.ban.as_ref().map_or(0, |_| BAN_BYTES),
    ];
    parts.into_iter().fold(0, usize::saturating_add)
}

/// Bytes of a record without what it points to, and of its entries in the indexes of the directory, half empty nodes
/// and buckets included.
const RECORD_BYTES: usize = size_of::<PeerRecord>() + 960;

/// Bytes that an allocation takes beside its content: reference counts, and what allocators round up.
const ALLOCATION_BYTES: usize = 48;
