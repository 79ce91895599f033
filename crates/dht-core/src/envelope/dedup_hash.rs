//! The network's duplicate hash (03 section 3.6).

use crate::hash::{DEDUP, Hasher256};

/// Key of a message in the dedup table and in the store; never on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DedupHash(pub [u8; 32]);

/// Hashes the signature field and the body, both exactly as given.
#[must_use]
pub fn dedup_hash(signature: &[u8], body: &[u8]) -> DedupHash {
    DedupHash(begin(signature).chain(body).finish())
}

/// Everything but the body.
pub(super) fn begin(signature: &[u8]) -> Hasher256 {
    Hasher256::new(DEDUP).chain(signature)
}
