//! The data behind a [`Directory`](super::Directory) and the rules that keep it consistent.

use std::{iter::Peekable, mem, sync::Arc};

use dht_core::{NodeId, UnixSeconds};
use rand_core::Rng;

use super::{
    Change, DirectoryLimits,
    changed::Changed,
    disk::Outdated,
    shares::Shares,
    table::{Entry, Table, Walk},
};
use crate::{
    agent::Agents,
    ban::{AllowListFull, Ban, Bans},
    connections::Connections,
    filter::{Matcher, PeerFilter},
    metrics,
    record::PeerRecord,
    sample::Shuffle,
};

#[derive(Debug)]
pub(super) struct Index {
    table: Table,
    agents: Agents,
    heard_of: Shares,
    proven: Shares,
    /// Peers that are never evicted, as long as they are in it.
    connections: Connections,
    bans: Bans,
    generation: u64,
    /// Number of changes so far.
    changes: u64,
    /// Peers whose rows in the file are outdated.
    outdated: Changed,
}

/// Peers that pass a filter, by ascending distance, from all the classes it allows.
pub(super) struct Closest<'a> {
    walks: Vec<Peekable<Walk<'a>>>,
    matcher: Matcher<'a>,
}

// === impl Index ===

impl Index {
    pub(super) fn new(limits: DirectoryLimits) -> Self {
        Self {
            table: Table::default(),
            agents: Agents::default(),
            heard_of: Shares::new(limits.heard_of_bytes),
            proven: Shares::new(limits.proven_bytes),
            connections: Connections::new(),
            bans: Bans::new(limits.max_bans),
            generation: 0,
            changes: 0,
            outdated: Changed::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Number of peers in one of the two tables.
    pub(super) fn table_len(&self, is_proven: bool) -> usize {
        self.table.count(is_proven)
    }

    pub(super) const fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) const fn bans(&self) -> &Bans {
        &self.bans
    }

    pub(super) fn find(&self, id: &NodeId) -> Option<&Arc<PeerRecord>> {
        self.table.find(id).map(|entry| &entry.record)
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.table.ids().collect()
    }

    #[cfg(feature = "redb")]
    pub(super) fn take_outdated(&mut self) -> Outdated {
        Outdated {
            peers: self.outdated.take(),
            bans: self.bans.outdated.take(),
        }
    }

    pub(super) fn set_outdated(&mut self, outdated: Outdated) {
        self.outdated = outdated.peers;
        self.bans.outdated = outdated.bans;
    }

    pub(super) fn add_or_update(&mut self, mut record: PeerRecord, now: UnixSeconds) -> Change {
        let id = record.node_id;
        match self.find(&id) {
            Some(held) if held.public_key != record.public_key => Change::KeyMismatch,
            Some(held) => {
                let held = Arc::clone(held);
                let mut merged = PeerRecord::clone(&held);
                merged.merge(&record, now);
                if merged == *held {
                    return Change::Unchanged;
                }
                self.replace(merged);
                self.evict(&id);
                Change::Updated
            }
            None => {
                record.ban = self.bans.peer_added(&id);
                self.insert(record);
                self.evict(&id);
                Change::Added
            }
        }
    }

    /// Changes a known peer. False if it is unknown.
    pub(super) fn update(&mut self, id: &NodeId, change: impl FnOnce(&mut PeerRecord)) -> bool {
        let Some(held) = self.find(id) else {
            return false;
        };
        let mut changed = PeerRecord::clone(held);
        change(&mut changed);
        self.replace(changed);
        self.evict(id);
        true
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Arc<PeerRecord>> {
        let removed = self.take(id)?;
        self.bans.peer_removed(id);
        Some(removed)
    }

    /// `None` if the peer is on the allow list.
    pub(super) fn ban(&mut self, ban: Ban, now: UnixSeconds) -> Option<Arc<Ban>> {
        if self.bans.is_allowed(&ban.node_id) {
            return None;
        }
        let id = ban.node_id;
        let known = self.find(&id).map(|peer| peer.public_key);
        let ban = Ban {
            public_key: ban.public_key.or(known),
            ..ban
        };
        let ban = self.bans.insert(ban, known.is_some(), now);
        self.update(&id, |peer| peer.ban = Some(Arc::clone(&ban)));
        self.generation = self.generation.wrapping_add(1);
        Some(ban)
    }

    pub(super) fn unban(&mut self, id: &NodeId) -> bool {
        let was_banned = self.bans.remove(id).is_some();
        self.update(id, |peer| peer.ban = None);
        self.generation = self.generation.wrapping_add(1);
        was_banned
    }

    pub(super) fn allow(&mut self, id: NodeId) -> Result<bool, AllowListFull> {
        let is_new = self.bans.allow(id)?;
        self.unban(&id);
        Ok(is_new)
    }

    pub(super) fn disallow(&mut self, id: &NodeId) -> bool {
        let was_allowed = self.bans.disallow(id);
        self.update(id, |_| ());
        was_allowed
    }

    pub(super) fn closest<'a>(&'a self, target: &NodeId, filter: &PeerFilter<'a>) -> Closest<'a> {
        let walks = self
            .table
            .allowed_classes(filter)
            .map(|class| class.walk(target).peekable())
            .collect();
        Closest {
            walks,
            matcher: filter.matcher(),
        }
    }

    pub(super) fn random(
        &self,
        n: usize,
        filter: &PeerFilter<'_>,
        rng: &mut impl Rng,
    ) -> Vec<Arc<PeerRecord>> {
        let classes: Vec<_> = self.table.allowed_classes(filter).collect();
        let total = classes.iter().map(|class| class.len()).sum();
        let matcher = filter.matcher();
        let at = |mut position: usize| {
            for class in &classes {
                match position.checked_sub(class.len()) {
                    None => return class.nth(position),
                    Some(rest) => position = rest,
                }
            }
            None
        };
        Shuffle::new(total, rng)
            .filter_map(at)
            .filter(|peer| matcher.matches(peer))
            .take(n)
            .map(Arc::clone)
            .collect()
    }

    pub(super) fn find_by_prefix(&self, digits: &str, limit: usize) -> Vec<Arc<PeerRecord>> {
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Vec::new();
        }
        let mut found: Vec<_> = match prefix_range(digits) {
            None => Vec::new(),
            Some((from, to)) => self
                .table
                .classes()
                .iter()
                .flat_map(|class| class.range(from, to).take(limit))
                .map(Arc::clone)
                .collect(),
        };
        found.sort_by_key(|peer| peer.node_id);
        found.truncate(limit);
        if found.is_empty() && digits.len() <= 64 {
            let everybody = PeerFilter::everybody(UnixSeconds(0));
            found = self
                .closest(&NodeId::default(), &everybody)
                .filter(|(_, peer)| peer.public_key.to_string().starts_with(digits))
                .take(limit)
                .map(|(_, peer)| Arc::clone(peer))
                .collect();
        }
        found
    }

    /// Puts the changed record of a known peer in the place of the old one.
    fn replace(&mut self, mut record: PeerRecord) {
        let id = record.node_id;
        let Some(held) = self.find(&id).map(Arc::clone) else {
            return;
        };
        if (held.features, held.proven) != (record.features, record.proven) {
            self.take(&id);
            self.insert(record);
            return;
        }
        if moves_the_region(&held, &record) {
            self.generation = self.generation.wrapping_add(1);
        }
        self.outdated.note(&id);
        self.agents.share(&mut record.agent);
        // Within its group, a peer is as old as its claim.
        let is_renewed = held.claim != record.claim;
        let number = self.next_number();
        let Some(entry) = self.table.find_mut(&id) else {
            return;
        };
        let new = Entry {
            record: Arc::new(record),
            entered: if is_renewed { number } else { entry.entered },
        };
        let old = mem::replace(entry, new.clone());
        let is_kept = self.is_kept(&new.record);
        let shares = self.shares(new.record.proven);
        shares.remove(&old);
        if !is_kept {
            shares.insert(&new);
        }
    }

    fn insert(&mut self, mut record: PeerRecord) {
        self.agents.share(&mut record.agent);
        self.outdated.note(&record.node_id);
        if record.proven {
            self.generation = self.generation.wrapping_add(1);
        }
        let entry = Entry {
            entered: self.next_number(),
            record: Arc::new(record),
        };
        if !self.is_kept(&entry.record) {
            self.shares(entry.record.proven).insert(&entry);
        }
        self.table.insert(entry);
    }

    fn take(&mut self, id: &NodeId) -> Option<Arc<PeerRecord>> {
        let removed = self.table.remove(id)?;
        self.outdated.note(id);
        self.shares(removed.record.proven).remove(&removed);
        if removed.record.proven {
            self.generation = self.generation.wrapping_add(1);
        }
        Some(removed.record)
    }

    const fn shares(&mut self, is_proven: bool) -> &mut Shares {
        if is_proven {
            &mut self.proven
        } else {
            &mut self.heard_of
        }
    }

    /// Whether a peer is never evicted: the operator named or allowed it.
    fn is_kept(&self, peer: &PeerRecord) -> bool {
        peer.is_seed || self.bans.is_allowed(&peer.node_id)
    }

    fn next_number(&mut self) -> u64 {
        self.changes = self.changes.saturating_add(1);
        self.changes
    }

    /// Makes room in a table that is over its limit. Peers that are connected stay, and so does the one just entered.
    fn evict(&mut self, newest: &NodeId) {
        let mut evicted = 0_usize;
        for is_proven in [true, false] {
            while self.shares(is_proven).is_over() {
                let connected = self.connections.snapshot();
                let mut candidates = self.shares(is_proven).candidates();
                let victim = candidates.find(|id| *id != newest && !connected.contains(id));
                let Some(victim) = victim.copied() else {
                    break;
                };
                drop(candidates);
                self.remove(&victim);
                evicted = evicted.saturating_add(1);
            }
        }
        if evicted > 0 {
            metrics::evicted(evicted);
            tracing::debug!(evicted, left = self.len(), "directory was full");
        }
    }
}

/// Whether a change within one class makes a peer count, or no longer count, among the neighbours.
fn moves_the_region(old: &PeerRecord, new: &PeerRecord) -> bool {
    new.proven
        && (old.is_offline() != new.is_offline()
            || old.deleted_at().is_some() != new.deleted_at().is_some()
            || old.ban != new.ban
            || old.source != new.source)
}

/// Smallest and largest key of the node ids that start with these lower-case hexadecimal digits.
fn prefix_range(digits: &str) -> Option<(u128, u128)> {
    const DIGITS: usize = NodeId::LENGTH * 2;
    let missing = u32::try_from(DIGITS.checked_sub(digits.len())?).ok()?;
    let prefix = if digits.is_empty() {
        0
    } else {
        u128::from_str_radix(digits, 16).ok()?
    };
    let from = prefix.checked_shl(missing.checked_mul(4)?)?;
    let span = 1_u128.checked_shl(missing.checked_mul(4)?)?;
    Some((from, from.checked_add(span.checked_sub(1)?)?))
}

// === impl Closest ===

impl<'a> Closest<'a> {
    fn next_any(&mut self) -> Option<(u128, &'a Arc<PeerRecord>)> {
        // At most eight walks, and no two hold the same id.
        let nearest = self
            .walks
            .iter_mut()
            .enumerate()
            .filter_map(|(at, walk)| walk.peek().map(|(distance, _)| (*distance, at)))
            .min()?;
        self.walks.get_mut(nearest.1)?.next()
    }
}

impl<'a> Iterator for Closest<'a> {
    /// Distance and peer.
    type Item = (u128, &'a Arc<PeerRecord>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (distance, peer) = self.next_any()?;
            if self.matcher.matches(peer) {
                return Some((distance, peer));
            }
        }
    }
}
