//! Which peer gives way when a table of the directory is full.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dht_core::{Address, Claim, NodeId};

use super::table::Entry;
use crate::{address::AddressRecord, ban::BAN_BYTES, group::NetGroup, record::PeerRecord};

/// The bytes that each source group and, of its peers, each address group has in a table. When the table is full, a peer
/// of the largest source group gives way, of its largest address group: a source that fills the table pushes out what it
/// brought itself.
#[derive(Debug)]
pub(super) struct Shares {
    limit: usize,
    bytes: usize,
    order: BTreeSet<Position>,
    sources: BTreeMap<NetGroup, Size>,
    sources_by_size: BTreeSet<(Reverse<Size>, NetGroup)>,
    buckets: BTreeMap<(NetGroup, NetGroup), Size>,
    buckets_by_size: BTreeSet<(NetGroup, Reverse<Size>, NetGroup)>,
}

/// Bytes of a group in units of [`UNIT`].
type Size = u32;

/// Allocators give multiples of it.
const UNIT: usize = 16;

/// Place of a peer among those of its source and address group; the first gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    source: NetGroup,
    address: NetGroup,
    /// 0: given up, 2: offline, 4: neither; one more if it was ever seen.
    rank: u8,
    /// When it was last seen; of one never seen, the number of the change that entered it or its newest claim.
    age: u64,
    id: NodeId,
}

impl Position {
    fn of(entry: &Entry) -> Self {
        let peer = &*entry.record;
        let rank = match peer {
            _ if peer.deleted_at().is_some() => 0,
            _ if peer.is_offline() => 2,
            _ => 4,
        };
        let (rank, age) = match peer.last_seen() {
            Some(seen) => (rank + 1, seen.0),
            None => (rank, entry.entered),
        };
        let address = peer.addresses.first();
        Self {
            source: peer.source,
            address: address.map_or(NetGroup::Unknown, |held| {
                NetGroup::of_address(&held.address)
            }),
            rank,
            age,
            id: peer.node_id,
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

    pub(super) fn insert(&mut self, entry: &Entry) {
        let position = Position::of(entry);
        if self.order.insert(position) {
            let added = bytes(&entry.record);
            self.bytes = self.bytes.saturating_add(added);
            self.resize(&position, |size| size.saturating_add(units(added)));
        }
    }

    /// Does nothing for a peer that is not among them.
    pub(super) fn remove(&mut self, entry: &Entry) {
        let position = Position::of(entry);
        if self.order.remove(&position) {
            let removed = bytes(&entry.record);
            self.bytes = self.bytes.saturating_sub(removed);
            self.resize(&position, |size| size.saturating_sub(units(removed)));
        }
    }

    /// The peers, by who gives way first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &NodeId> {
        // The largest is the first.
        let buckets = self.sources_by_size.iter().flat_map(|(_, source)| {
            let all = (*source, Reverse(Size::MAX), NetGroup::Unknown)..;
            let of_source = self.buckets_by_size.range(all);
            of_source.take_while(move |(of, ..)| of == source)
        });
        let peers = buckets.flat_map(|(source, _, address)| {
            let first = Position {
                source: *source,
                address: *address,
                rank: 0,
                age: 0,
                id: NodeId::default(),
            };
            let same =
                move |other: &&Position| other.source == *source && other.address == *address;
            self.order.range(first..).take_while(same)
        });
        peers.map(|position| &position.id)
    }

    fn resize(&mut self, position: &Position, change: impl Fn(Size) -> Size) {
        let Position {
            source, address, ..
        } = *position;
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

fn units(bytes: usize) -> Size {
    Size::try_from(bytes.div_ceil(UNIT)).unwrap_or(Size::MAX)
}

/// Bytes a peer takes in the directory, with its places in the indexes. What several peers share is counted for each.
pub(super) fn bytes(peer: &PeerRecord) -> usize {
    let allocated = |bytes: usize| bytes.saturating_add(ALLOCATION_BYTES);
    let allocated_if_any = |bytes: usize| if bytes == 0 { 0 } else { allocated(bytes) };
    let of_address = |held: &AddressRecord| {
        let (bytes, allocations) = held.heap_bytes();
        let bytes = bytes.saturating_add(size_of::<AddressRecord>());
        bytes.saturating_add(allocations.saturating_mul(ALLOCATION_BYTES))
    };
    let of_claim = |claim: &Arc<Claim>| {
        let addresses = claim.addresses.iter();
        let heap = addresses.map(|address| allocated_if_any(address.heap_bytes()));
        let list = claim
            .addresses
            .capacity()
            .saturating_mul(size_of::<Address>());
        heap.fold(allocated(size_of::<Claim>()), usize::saturating_add)
            .saturating_add(allocated_if_any(list))
    };
    let addresses = peer.addresses.iter().map(of_address);
    let parts = [
        RECORD_BYTES,
        allocated_if_any(addresses.fold(0, usize::saturating_add)),
        peer.claim.as_ref().map_or(0, of_claim),
        peer.agent.as_ref().map_or(0, |agent| {
            agent.bytes().saturating_add(4 * ALLOCATION_BYTES)
        }),
        peer.ban.as_ref().map_or(0, |_| BAN_BYTES),
    ];
    parts.into_iter().fold(0, usize::saturating_add)
}

/// Bytes of a record without what it points to, and of its entries in the indexes of the directory, half empty nodes
/// and buckets included.
const RECORD_BYTES: usize = size_of::<PeerRecord>() + ALLOCATION_BYTES + 400;

/// Bytes that an allocation takes beside its content: reference counts, and what allocators round up.
const ALLOCATION_BYTES: usize = 32;
