//! Keys and identities that a handshake agrees on.

use dht_core::PublicKey;
use zeroize::Zeroizing;

/// Result of a finished handshake: the key of the peer, and an encryption key for each direction.
pub struct HandshakeKeys {
    /// Authenticated static key of the peer.
    pub remote: PublicKey,
    /// The handshake hash: 64 bytes that both sides share and no third party can cause.
    pub hash: [u8; 64],
    pub(super) send: Zeroizing<[u8; 32]>,
    pub(super) receive: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for HandshakeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeKeys")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
