//! Store-and-forward in a node: the store under its home, the layers, and who tells them what.

#[cfg(feature = "saf")]
mod api;
#[cfg(feature = "saf")]
mod mail;
#[cfg(not(feature = "saf"))]
mod off;
#[cfg(feature = "saf")]
mod receipt;
#[cfg(feature = "saf")]
mod stored_send;

use std::sync::Arc;

#[cfg(feature = "saf")]
pub use api::FetchError;
use dht_core::{NodeIdentity, Outbox, SharedClock, SharedEntropy};
use dht_dedup::DedupTable;
use dht_peers::{Connections, Directory, policy::BanPolicy};
#[cfg(feature = "saf")]
pub(crate) use mail::{Receipts, SafHandle, advice, start};
#[cfg(feature = "saf")]
pub use mail::{ledger_file, saf_folder};
#[cfg(not(feature = "saf"))]
pub(crate) use off::{Receipts, SafHandle, start};
#[cfg(feature = "saf")]
pub use stored_send::{DeliveryState, SendReport, StoredSend};

/// What store-and-forward works with.
#[cfg_attr(
    not(feature = "saf"),
    expect(dead_code, reason = "nobody works with it")
)]
pub(crate) struct MailParts {
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: SharedEntropy,
    pub(crate) bans: BanPolicy,
    pub(crate) dedup: DedupTable,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) receipts: Receipts,
}
