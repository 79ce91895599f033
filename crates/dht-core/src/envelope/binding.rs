//! The hash that binds header and body together (01 section 6.4).

use super::Header;
use crate::hash::{CHALLENGE, Hasher256};

/// BLAKE2b-256 over version, destination, type, flags, expiry, ephemeral key and body. The message
/// signature signs it; the tag is not part of it.
///
/// # Byte layout of the chunks
/// | bytes | value |
/// |---|---|
/// | 4 | version, little-endian |
/// | 33 | destination: zeros, or 1 and the key |
/// | 4 | message type, little-endian |
/// | 4 | flags, little-endian |
/// | 8 | expiry, little-endian, 0 = none |
/// | 32 | ephemeral key, zeros = none |
/// | n | body as transmitted |
#[must_use]
pub fn binding_hash(header: &Header, body: &[u8]) -> [u8; 32] {
    begin(header).chain(body).finish()
}

/// Everything but the body.
pub(super) fn begin(header: &Header) -> Hasher256 {
    let ephemeral = header.ephemeral_key.map_or([0; 32], |key| *key.as_bytes());
    Hasher256::new(CHALLENGE)
        .chain(&header.version.to_wire().to_le_bytes())
        .chain(&header.destination.to_hash_bytes())
        .chain(&header.message_type.to_wire().to_le_bytes())
        .chain(&header.flags.bits().to_le_bytes())
        .chain(&header.expires.map_or(0, |at| at.0).to_le_bytes())
        .chain(&ephemeral)
}
