//! Reads the claim out of a protocol message.

use bytes::Bytes;
use dht_core::{Address, AddressError, Claim, ClaimError, Features, IdentitySignature};
use dht_proto::{
    common,
    dht::{DiscoveryMessage, DiscoveryResponseMessage, JoinMessage},
};

/// The fields join, discovery and discovery response share.
pub trait ClaimParts {
    /// Whose claim it is, 32 bytes if well formed.
    fn public_key(&self) -> &[u8];
    /// Binary addresses.
    fn addresses(&self) -> &[Bytes];
    /// Feature bits.
    fn features(&self) -> u32;
    /// The owner's signature.
    fn identity_signature(&self) -> Option<&common::IdentitySignature>;
}

/// Why the fields of a message are no claim. Honest peers of another version can cause each of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A feature bit this node does not know.
    #[error("unknown peer feature bits in {0:#x}")]
    Features(u32),
    /// No identity signature.
    #[error("identity signature is missing")]
    NoSignature,
    /// An identity signature that does not decode.
    #[error("identity signature does not convert")]
    Signature(#[from] ClaimError),
    /// An address that does not decode; one is enough.
    #[error("address does not convert")]
    Address(#[from] AddressError),
}

/// Converts the fields; checks nothing beyond their form.
///
/// # Errors
/// [`ConvertError`], the first field that does not convert.
pub fn convert_claim(message: &impl ClaimParts) -> Result<Claim, ConvertError> {
    let bits = message.features();
    let features = Features::from_bits(bits).ok_or(ConvertError::Features(bits))?;
    let signature = message
        .identity_signature()
        .ok_or(ConvertError::NoSignature)?;
    let signature = IdentitySignature::try_from(signature)?;
    // Copied: an address in the directory must not keep the whole frame it came in alive.
    let copy = |bytes: &Bytes| Address::from_bytes(Bytes::copy_from_slice(bytes));
    let addresses = message
        .addresses()
        .iter()
        .map(copy)
        .collect::<Result<_, _>>()?;
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
