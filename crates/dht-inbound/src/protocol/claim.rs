//! Reads the claim out of a protocol message.

use bytes::Bytes;
use dht_core::{Address, Claim, ClaimError, Features, IdentitySignature};
use dht_proto::{
    common,
    dht::{DiscoveryMessage, DiscoveryResponseMessage, JoinMessage},
};

/// The fields join, discovery and discovery response share.
pub trait ClaimParts {
    /// Key of the peer the claim is about, 32 bytes if well formed.
    fn public_key(&self) -> &[u8];
    /// Binary addresses.
    fn addresses(&self) -> &[Bytes];
    /// Feature bits.
    fn features(&self) -> u32;
    /// The owner's signature.
    fn identity_signature(&self) -> Option<&common::IdentitySignature>;
}

/// Converts the fields; checks nothing beyond their form.
///
/// # Errors
/// [`ClaimError`], the first field that does not convert.
pub fn convert_claim(message: &impl ClaimParts) -> Result<Claim, ClaimError> {
    let bits = message.features();
    let features = Features::from_bits(bits).ok_or(ClaimError::Features(bits))?;
    let signature = message.identity_signature().ok_or(ClaimError::NotSigned)?;
    let signature = IdentitySignature::try_from(signature)?;
    let addresses = message
        .addresses()
        .iter()
        .map(Address::from_bytes)
        .collect::<Result<_, _>>()
        .map_err(ClaimError::Malformed)?;
    Ok(Claim {
        addresses,
        features,
        signature,
    })
}

macro_rules! claim_parts {
    ($($message:ident),+) => {$(
        impl ClaimParts for $message {
            fn public_key(&self) -> &[u8] {
                &self.public_key
            }

            fn addresses(&self) -> &[Bytes] {
                &self.addresses
            }

            fn features(&self) -> u32 {
                self.peer_features
            }

            fn identity_signature(&self) -> Option<&common::IdentitySignature> {
                self.identity_signature.as_ref()
            }
        }
    )+};
}

claim_parts!(JoinMessage, DiscoveryMessage, DiscoveryResponseMessage);
