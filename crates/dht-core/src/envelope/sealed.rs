//! An envelope whose header converts, and one whose signature holds.

use bytes::Bytes;

use super::{Header, binding_hash};
use crate::{
    error::VerifyError, identity::NodeIdentity, keys::PublicKey, message::Destination,
    schnorr::MessageSignature,
};

/// A received envelope: header converted, signature not yet checked.
#[derive(Clone, Debug)]
pub struct Sealed {
    header: Header,
    body: Bytes,
    frame: Bytes,
}

/// An envelope whose signature covers header and body, or that is legitimately unsigned.
#[derive(Clone, Debug)]
pub struct Verified {
    sealed: Sealed,
    /// Signer, and the hash that the signature covers.
    signed: Option<(PublicKey, [u8; 32])>,
    /// Dedup key of an unsigned message, if a batch has computed it.
    unsigned_key: Option<[u8; 32]>,
}

// === impl Sealed ===

impl Sealed {
    pub(super) const fn new(header: Header, body: Bytes, frame: Bytes) -> Self {
        Self {
            header,
            body,
            frame,
        }
    }

    /// The header of the envelope.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The body as transmitted.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The whole envelope as received, to be passed on.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Checks that hold for every encrypted message, on every node.
    ///
    /// # Errors
    /// [`VerifyError::Semantics`]. Clear messages have no such rule.
    pub fn check_semantics(&self) -> Result<(), VerifyError> {
        let Header {
            destination,
            ephemeral_key,
            signature,
            ..
        } = &self.header;
        let complete = matches!(destination, Destination::PublicKey(_))
            && ephemeral_key.is_some()
            && !signature.is_empty()
            && !self.body.is_empty();
        if self.header.is_encrypted() && !complete {
            Err(VerifyError::Semantics)
        } else {
            Ok(())
        }
    }

    /// Checks semantics and signature; the costly step of a relay.
    ///
    /// Tolerates non-canonical bytes in the signature field, as the network does; see
    /// [`Verified::signature_is_canonical`].
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(self) -> Result<Verified, VerifyError> {
        self.check_semantics()?;
        let Some(signature) = self.signature()? else {
            return Ok(self.into_verified(None));
        };
        let binding = self.binding_hash();
        if !signature.verify(&binding) {
            return Err(VerifyError::BadSignature);
        }
        Ok(self.into_verified(Some((*signature.signer(), binding))))
    }

    /// The decoded signature; `None` if the message is unsigned.
    ///
    /// # Errors
    /// [`VerifyError`] if the field is neither empty nor a signature.
    pub fn signature(&self) -> Result<Option<MessageSignature>, VerifyError> {
        match &self.header.signature[..] {
            [] => Ok(None),
            bytes => MessageSignature::decode(bytes).map(Some),
        }
    }

    /// The hash the signature must cover.
    #[must_use]
    pub fn binding_hash(&self) -> [u8; 32] {
        binding_hash(&self.header, &self.body)
    }

    /// Marks an envelope as verified, with the signer and the hash that the signature covers.
    pub(crate) const fn into_verified(self, signed: Option<(PublicKey, [u8; 32])>) -> Verified {
        Verified {
            sealed: self,
            signed,
            unsigned_key: None,
        }
    }

    /// Marks an unsigned envelope as verified, with its dedup key.
    pub(super) const fn into_unsigned(self, key: [u8; 32]) -> Verified {
        Verified {
            sealed: self,
            signed: None,
            unsigned_key: Some(key),
        }
    }

    pub(super) fn into_parts(self) -> (Header, Bytes, Bytes) {
        (self.header, self.body, self.frame)
    }
}

// === impl Verified ===

impl Verified {
    /// The header of the envelope.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.sealed.header
    }

    /// The body as transmitted.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.sealed.body
    }

    /// The whole envelope as received, to be passed on.
    #[must_use]
    pub const fn frame(&self) -> &Bytes {
        &self.sealed.frame
    }

    /// Key that signed: the masked key for encrypted messages, `None` for anonymous ones.
    #[must_use]
    pub const fn signer(&self) -> Option<&PublicKey> {
        match &self.signed {
            Some((signer, _)) => Some(signer),
            None => None,
        }
    }

    /// The hash of header and body that the signature covers; `None` for anonymous messages.
    #[must_use]
    pub const fn binding_hash(&self) -> Option<&[u8; 32]> {
        match &self.signed {
            Some((_, hash)) => Some(hash),
            None => None,
        }
    }

    pub(super) const fn unsigned_key(&self) -> Option<&[u8; 32]> {
        self.unsigned_key.as_ref()
    }

    /// The ephemeral and the masked key, if the message is encrypted for `identity`.
    pub(super) fn keys_for(&self, identity: &NodeIdentity) -> Option<(PublicKey, PublicKey)> {
        let header = self.header();
        let for_us = header.destination.public_key() == Some(identity.public_key());
        (for_us && header.is_encrypted()).then_some((header.ephemeral_key?, *self.signer()?))
    }

    pub(super) fn into_sealed(self) -> Sealed {
        self.sealed
    }
}
