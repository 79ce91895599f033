//! Stands for store-and-forward in a node without the feature `saf`.

use dht_core::{CompressedKey, NodeId, RemotePeer};
use tower::layer::util::Identity;

#[derive(Clone, Debug)]
pub(crate) struct SafHandle;

impl SafHandle {
    pub(crate) const fn layers(&self) -> (Option<Identity>, Option<Identity>) {
        (None, None)
    }

    pub(crate) const fn connected(&self, _peer: &RemotePeer) {}

    pub(crate) const fn disconnected(&self, _peer: &NodeId, _key: Option<&CompressedKey>) {}

    pub(crate) const fn listen(&self) {}

    pub(crate) const fn ledger_bytes(&self) -> usize {
        0
    }

    #[cfg(feature = "spool")]
    pub(crate) const fn room_made(&self) {}

    #[cfg(feature = "spool")]
    pub(crate) async fn forget_lost<L>(&self, _is_lost: L) -> bool {
        true
    }

    pub(crate) async fn close(&self) {}
}
