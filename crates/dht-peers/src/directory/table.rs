//! The records of a directory and the ways to find one: by id, by distance, and by position to choose at random.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use dht_core::{Features, NodeId};
use hashbrown::HashTable;

use crate::{
    filter::PeerFilter,
    record::PeerRecord,
    xor::{self, MapWalk},
};

/// Records by table and exact features, so that a query for a few proven nodes does not walk past many clients, nor past
/// what others claim.
#[derive(Debug, Default)]
pub(super) struct Table {
    classes: [Class; CLASSES],
    /// Where each record is, by the hash of its id. The hash has a random key: strangers choose the ids.
    places: HashTable<Place>,
    hasher: RandomState,
}

/// The records of one table that have the same features.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// In no particular, but reproducible, order.
    entries: Vec<Entry>,
    by_id: BTreeMap<u128, Place>,
}

/// A record and its age in the directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<PeerRecord>,
    /// Number of the change that entered the peer or its newest claim.
    pub(super) entered: u64,
}

/// Class of a record in the upper [`CLASS_BITS`], and its position in [`Class::entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

/// The records of a class by ascending distance to a target.
pub(super) struct Walk<'a> {
    places: MapWalk<'a, Place>,
    class: &'a Class,
}

/// Features have two bits, hence four exact combinations; there are two tables.
const CLASS_BITS: u32 = 3;
const CLASSES: usize = 1 << CLASS_BITS;
const POSITION_BITS: u32 = u32::BITS - CLASS_BITS;

const FEATURES: [Features; 4] = [
    Features::NODE,
    Features::MESSAGE_PROPAGATION,
    Features::DHT_STORE_FORWARD,
    Features::CLIENT,
];

/// The class of records with these features, below [`CLASSES`].
const fn class_of(features: Features, is_proven: bool) -> u32 {
    // `Features` cannot hold any other bit.
    let features = features.bits() & Features::NODE.bits();
    if is_proven { features } else { features | 4 }
}

// === impl Table ===

impl Table {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Number of records that are proven, or that are not.
    pub(super) fn count(&self, is_proven: bool) -> usize {
        let classes = FEATURES.map(|features| class_of(features, is_proven));
        let classes = classes.iter().filter_map(|class| self.class(*class));
        classes.map(Class::len).sum()
    }

    pub(super) fn find(&self, id: &NodeId) -> Option<&Entry> {
        entry(&self.classes, self.place(id)?)
    }

    pub(super) fn find_mut(&mut self, id: &NodeId) -> Option<&mut Entry> {
        let place = self.place(id)?;
        let class = self.classes.get_mut(place.class())?;
        class.entries.get_mut(place.position())
    }

    /// Enters a record whose id is not in the table.
    pub(super) fn insert(&mut self, new: Entry) {
        let Self {
            classes,
            places,
            hasher,
        } = self;
        let id = new.record.node_id;
        let class = class_of(new.record.features, new.record.proven);
        let Some(of_class) = classes.get_mut(class as usize) else {
            return;
        };
        let Some(place) = Place::new(class, of_class.len()) else {
            return;
        };
        of_class.by_id.insert(xor::key(&id), place);
        of_class.entries.push(new);
        let hash_of = |place: &Place| {
            entry(classes, *place).map_or(0, |entry| hasher.hash_one(entry.record.node_id))
        };
        places.insert_unique(hasher.hash_one(id), place, hash_of);
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Entry> {
        let Self {
            classes,
            places,
            hasher,
        } = self;
        let is_it = |place: &Place| is_at(classes, *place, id);
        let found = places.find_entry(hasher.hash_one(id), is_it).ok()?;
        let (place, _) = found.remove();
        let class = classes.get_mut(place.class())?;
        class.by_id.remove(&xor::key(id));
        let removed = class.entries.swap_remove(place.position());
        // The last entry has moved into the gap.
        if let Some(moved) = class.get(place) {
            let id = moved.node_id;
            let last = class.by_id.insert(xor::key(&id), place)?;
            let hash = hasher.hash_one(id);
            if let Some(moved) = places.find_mut(hash, |other| *other == last) {
                *moved = place;
            }
        }
        Some(removed)
    }

    /// All ids, in no particular order.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        let entries = self.classes.iter().flat_map(|class| &class.entries);
        entries.map(|entry| entry.record.node_id)
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The classes that a filter allows.
    pub(super) fn allowed_classes(&self, filter: &PeerFilter<'_>) -> impl Iterator<Item = &Class> {
        let (rule, tables) = (filter.rule(), filter.tables());
        FEATURES
            .into_iter()
            .filter(move |features| rule.allows(*features))
            .flat_map(move |features| {
                let tables = tables.clone();
                tables.map(move |is_proven| class_of(features, is_proven))
            })
            .filter_map(|class| self.class(class))
    }

    fn class(&self, class: u32) -> Option<&Class> {
        self.classes.get(class as usize)
    }

    fn place(&self, id: &NodeId) -> Option<Place> {
        let is_it = |place: &Place| is_at(&self.classes, *place, id);
        self.places.find(self.hasher.hash_one(id), is_it).copied()
    }
}

fn entry(classes: &[Class], place: Place) -> Option<&Entry> {
    classes.get(place.class())?.entries.get(place.position())
}

fn is_at(classes: &[Class], place: Place, id: &NodeId) -> bool {
    entry(classes, place).is_some_and(|entry| entry.record.node_id == *id)
}

// === impl Place ===

impl Place {
    /// `None` beyond 500 000 000 records.
    fn new(class: u32, position: usize) -> Option<Self> {
        let position = u32::try_from(position).ok()?;
        (position >> POSITION_BITS == 0).then_some(Self(class << POSITION_BITS | position))
    }

    const fn class(self) -> usize {
        (self.0 >> POSITION_BITS) as usize
    }

    const fn position(self) -> usize {
        (self.0 & (u32::MAX >> CLASS_BITS)) as usize
    }
}

// === impl Class ===

impl Class {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The record at a position below [`len`](Self::len).
    pub(super) fn nth(&self, position: usize) -> Option<&Arc<PeerRecord>> {
        self.entries.get(position).map(|entry| &entry.record)
    }

    fn get(&self, place: Place) -> Option<&Arc<PeerRecord>> {
        self.nth(place.position())
    }

    /// The records with ids between two [keys](xor::key), both included.
    pub(super) fn range(&self, from: u128, to: u128) -> impl Iterator<Item = &Arc<PeerRecord>> {
        let places = self.by_id.range(from..=to);
        places.filter_map(|(_, place)| self.get(*place))
    }

    pub(super) fn walk(&self, target: &NodeId) -> Walk<'_> {
        Walk {
            places: MapWalk::new(&self.by_id, target),
            class: self,
        }
    }
}

// === impl Walk ===

impl<'a> Iterator for Walk<'a> {
    /// Distance and record.
    type Item = (u128, &'a Arc<PeerRecord>);

    fn next(&mut self) -> Option<Self::Item> {
        let (distance, place) = self.places.next()?;
        Some((distance, self.class.get(*place)?))
    }
}
