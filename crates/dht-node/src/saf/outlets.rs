//! What store-and-forward needs of the node, made of its parts.

use dht_core::{DedupHash, UnixSeconds};
use dht_dedup::{DedupMeta, DedupTable};
use dht_saf::Duplicates;

/// The duplicate table of the inbound stack.
pub(super) struct Table(pub(super) DedupTable);

impl Duplicates for Table {
    fn record(
        &self,
        key: &DedupHash,
        signed: bool,
        expires: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> u32 {
        self.0.record(key, DedupMeta { signed, expires }, now)
    }
}
