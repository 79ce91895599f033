//! Opening what is addressed to this node (01 section 7, stages 7 to 9).

use bytes::{Bytes, BytesMut};
use ring::aead;

use super::{Header, KeyAgreement, Sealed, Verified, decode_parts, unpad};
use crate::error::OpenError;
use crate::{identity::NodeIdentity, keys::PublicKey};

/// A verified message, with its content if this node can read it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The header as received.
    pub header: Header,
    /// Content of the message, if this node can read it.
    pub content: Content,
    /// The whole envelope as received, to be passed on. Empty once the message was decrypted in place.
    pub frame: Bytes,
    /// The body as received. Empty once the message was decrypted in place.
    pub body: Bytes,
}

/// Content of a verified envelope, as far as this node can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "readable is the usual case; a box would be an allocation per message"
)]
pub enum Content {
    /// The message is clear, or this node decrypted it.
    Readable {
        /// The parts of the envelope body.
        parts: Vec<Bytes>,
        /// Origin: the authenticated sender; `None` for an unsigned message.
        origin: Option<PublicKey>,
    },
    /// The message is encrypted for another node.
    Unreadable,
}

impl Verified {
    /// Reads the message if it is readable here.
    ///
    /// Clear messages are readable everywhere. Encrypted ones are opened if `identity` is the destination, in
    /// place when no other owner holds the frame, and come back [`Content::Unreadable`] otherwise.
    ///
    /// # Errors
    /// [`OpenError`]. For messages addressed here it does not say which check failed.
    pub fn open(self, identity: &NodeIdentity) -> Result<Opened, OpenError> {
        let for_us = self.header().destination.public_key() == Some(identity.public_key());
        let signer = self.signer().copied();
        match (self.header().is_encrypted(), signer) {
            (true, Some(masked)) if for_us => open_encrypted(self.into_sealed(), &masked, identity),
            (true, _) => Ok(Opened::new(self.into_sealed(), Content::Unreadable)),
            (false, origin) => open_clear(self.into_sealed(), origin),
        }
    }
}

impl Opened {
    fn new(sealed: Sealed, content: Content) -> Self {
        let (header, body, frame) = sealed.into_parts();
        Self {
            header,
            content,
            frame,
            body,
        }
    }

    /// Parts of the body; `None` if this node cannot read the message.
    #[must_use]
    pub fn parts(&self) -> Option<&[Bytes]> {
        match &self.content {
            Content::Readable { parts, .. } => Some(parts),
            Content::Unreadable => None,
        }
    }

    /// Origin of the message; `None` if it is unsigned or not readable here.
    #[must_use]
    pub const fn origin(&self) -> Option<&PublicKey> {
        match &self.content {
            Content::Readable { origin, .. } => origin.as_ref(),
            Content::Unreadable => None,
        }
    }
}

fn open_clear(sealed: Sealed, origin: Option<PublicKey>) -> Result<Opened, OpenError> {
    let parts = decode_parts(sealed.body().clone())?;
    Ok(Opened::new(sealed, Content::Readable { parts, origin }))
}

fn open_encrypted(
    sealed: Sealed,
    masked: &PublicKey,
    identity: &NodeIdentity,
) -> Result<Opened, OpenError> {
    let ephemeral = sealed.header().ephemeral_key;
    let ephemeral = ephemeral.ok_or(OpenError::Undecryptable)?;
    let agreement = KeyAgreement::new(identity.secret_key(), &ephemeral);
    // The cheap check first: a body that does not decrypt costs no unmasking.
    let decrypted = Decrypted::new(sealed, masked, &agreement)?;
    decrypted.sent_by(agreement.unmask(masked))
}

/// A message that was decrypted, and whose sender is still masked.
pub(super) struct Decrypted {
    header: Header,
    parts: Vec<Bytes>,
}

impl Decrypted {
    pub(super) fn new(
        sealed: Sealed,
        masked: &PublicKey,
        agreement: &KeyAgreement,
    ) -> Result<Self, OpenError> {
        let (header, body, frame) = sealed.into_parts();
        let plaintext = decrypt(agreement, masked, body, frame)?;
        let message = unpad(plaintext).map_err(|_| OpenError::Undecryptable)?;
        let parts = decode_parts(message).map_err(|_| OpenError::Undecryptable)?;
        if parts.is_empty() {
            return Err(OpenError::Undecryptable);
        }
        Ok(Self { header, parts })
    }

    /// The message from this sender; `None` is a mask that cannot be taken off.
    pub(super) fn sent_by(self, origin: Option<PublicKey>) -> Result<Opened, OpenError> {
        let origin = Some(origin.ok_or(OpenError::Undecryptable)?);
        Ok(Opened {
            header: self.header,
            content: Content::Readable {
                parts: self.parts,
                origin,
            },
            frame: Bytes::new(),
            body: Bytes::new(),
        })
    }
}

/// ChaCha20-Poly1305 with the masked key as associated data, in the buffer the frame came in if nobody else
/// holds it, in a copy otherwise.
fn decrypt(
    agreement: &KeyAgreement,
    masked: &PublicKey,
    body: Bytes,
    frame: Bytes,
) -> Result<Bytes, OpenError> {
    let start = (body.as_ptr() as usize).wrapping_sub(frame.as_ptr() as usize);
    let length = body.len();
    drop(body);
    let mut frame = frame
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if start
        .checked_add(length)
        .is_none_or(|end| end > frame.len())
    {
        return Err(OpenError::Undecryptable);
    }
    let mut buffer = frame.split_off(start);
    buffer.truncate(length);
    let plain = agreement
        .message_key()
        .open_in_place(
            zero_nonce(),
            aead::Aad::from(masked.as_bytes()),
            &mut buffer,
        )
        .map_err(|_| OpenError::Undecryptable)?
        .len();
    buffer.truncate(plain);
    Ok(buffer.freeze())
}

/// The nonce is always zero: sound because the key is fresh for every message.
pub(super) fn zero_nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}
