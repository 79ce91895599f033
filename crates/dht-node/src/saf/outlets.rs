//! What store-and-forward needs of the node, made of its parts.

use std::sync::Arc;

use dht_core::{DedupHash, UnixSeconds};
use dht_inbound::{DedupTable, Sighting};
use dht_saf::Duplicates;

/// The duplicate table of the inbound stack.
pub(super) struct Table(pub(super) Arc<DedupTable>);

impl Duplicates for Table {
    fn record(
        &self,
        key: &DedupHash,
        signed: bool,
        expires: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> u32 {
        self.0.record(key, Sighting { signed, expires }, now)
    }
}
