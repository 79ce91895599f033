//! Recognising our own messages when they come back: specification 04, section 5.4.

use std::sync::Arc;

use dht_core::{DedupHash, UnixSeconds};

/// The duplicate table of the inbound side, as far as the outbound side needs it.
///
/// Specification 04, section 5.4.
pub trait SeedDedup: Send + Sync + 'static {
    /// Remembers a message this node sends, unless it is already known; a known one is not counted again.
    ///
    /// `signed` and `expires` are what the table decides retention by.
    fn seed(&self, hash: DedupHash, expires: Option<UnixSeconds>, signed: bool);
}

/// Remembers nothing: for a node that does not receive.
impl SeedDedup for () {
    fn seed(&self, _hash: DedupHash, _expires: Option<UnixSeconds>, _signed: bool) {}
}

impl<T: SeedDedup + ?Sized> SeedDedup for Arc<T> {
    fn seed(&self, hash: DedupHash, expires: Option<UnixSeconds>, signed: bool) {
        (**self).seed(hash, expires, signed);
    }
}
