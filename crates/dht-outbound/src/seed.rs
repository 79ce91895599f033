//! Recognising our own messages when they come back: specification 04, section 5.4.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{DedupHash, Header, UnixSeconds, dedup_key_of};

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

/// The key under which this node, when it hears an echo, remembers a message. `None` for a clear unsigned body that is
/// no envelope body: receivers drop it before they look.
#[must_use]
pub fn echo_hash(header: &Header, body: &Bytes) -> Option<DedupHash> {
    dedup_key_of(header, body).ok()
}
