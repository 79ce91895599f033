//! Sealing a message (01 sections 6.2 to 6.6).

use bytes::{BufMut, Bytes, BytesMut};
use dht_proto::envelope::DhtHeader;
use prost::Message;
use rand_core::CryptoRng;
use ring::aead;
use zeroize::Zeroizing;

use super::{Flags, Header, KeyAgreement, ProtocolVersion, binding_hash, open::zero_nonce, pad};
use crate::{
    error::SealError,
    keys::{PublicKey, SecretKey},
    message::{Destination, Encryption, MessageTag, MessageType},
    schnorr::MessageSignature,
    time::UnixSeconds,
};

/// A message to be sealed.
#[derive(Clone, Debug)]
pub struct SealRequest<'a> {
    /// The encoded `EnvelopeBody`; see [`encode_parts`](super::encode_parts).
    pub body: Bytes,
    /// Purpose of the message, written to the header.
    pub message_type: MessageType,
    /// Recipient that the header names; for an encrypted message the key it is encrypted for.
    pub destination: Destination,
    /// Whether the message is encrypted, and for which key.
    pub encryption: Encryption,
    /// Secret key of the sender, which signs.
    pub sender: &'a SecretKey,
    /// Whether clear messages are signed; encrypted ones always are.
    pub signing: Signing,
    /// Time after which nodes drop the message; `None` for never.
    pub expires: Option<UnixSeconds>,
    /// Number that identifies the message in logs.
    pub tag: MessageTag,
    /// Protocol version; nodes send version 2.
    pub version: ProtocolVersion,
}

impl<'a> SealRequest<'a> {
    /// An unsigned clear message without destination, without expiry, with tag 0, of version 2.
    ///
    /// ```
    /// use dht_core::{Entropy as _, SealRequest, SecretKey, SeededEntropy, Signing, encode_parts};
    ///
    /// let sender = &SecretKey::random(&mut SeededEntropy::new(1).rng());
    /// let request = SealRequest {
    ///     signing: Signing::Origin,
    ///     ..SealRequest::new(encode_parts(&["hello".into()]), sender)
    /// };
    /// ```
    #[must_use]
    pub const fn new(body: Bytes, sender: &'a SecretKey) -> Self {
        Self {
            body,
            message_type: MessageType::None,
            destination: Destination::Unknown,
            encryption: Encryption::Clear,
            sender,
            signing: Signing::Anonymous,
            expires: None,
            tag: MessageTag(0),
            version: ProtocolVersion::V2,
        }
    }
}

/// Whether a clear message names its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Signing {
    /// The message is not signed.
    #[default]
    Anonymous,
    /// The sender signs with its own key ("force origin").
    Origin,
}

/// The one-time secrets of a message. Never use a pair twice.
#[derive(Debug)]
pub struct SealSecrets {
    ephemeral: SecretKey,
    nonce: SecretKey,
}

/// A message ready to be encoded: the same bytes go to every recipient.
#[derive(Clone, Debug)]
pub struct SealedMessage {
    /// The header, signature included.
    pub header: Header,
    /// The body as transmitted.
    pub body: Bytes,
    /// Hash of header and body that the signature covers; `None` for an unsigned message.
    pub binding_hash: Option<[u8; 32]>,
}

// === impl SealSecrets ===

impl SealSecrets {
    /// Draws fresh secrets from `rng`.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self {
            ephemeral: SecretKey::random(rng),
            nonce: SecretKey::random(rng),
        }
    }

    /// Given secrets.
    ///
    /// # Security
    /// For vectors and tests: an ephemeral key used twice reveals both messages, a nonce used twice the secret
    /// key.
    #[must_use]
    pub const fn from_parts(ephemeral: SecretKey, nonce: SecretKey) -> Self {
        Self { ephemeral, nonce }
    }
}

/// Encrypts, masks and signs one message.
///
/// The secrets are used up. Of the five multiplications four are by the base point: the masked key is
/// (mask·k)·G, and the three points that are sent are encoded together.
///
/// # Errors
/// [`SealError`].
pub fn seal(request: SealRequest<'_>, secrets: SealSecrets) -> Result<SealedMessage, SealError> {
    let mut header = Header {
        version: request.version,
        destination: request.destination,
        message_type: request.message_type,
        flags: Flags::NONE,
        signature: Bytes::new(),
        ephemeral_key: None,
        tag: request.tag,
        expires: request.expires,
    };
    let body = match request.encryption {
        Encryption::EncryptFor(recipient) => {
            if request.destination != Destination::PublicKey(recipient) {
                return Err(SealError::DestinationMismatch);
            }
            if recipient.is_identity() {
                return Err(SealError::IdentityKey);
            }
            return seal_encrypted(header, &request.body, &recipient, request.sender, &secrets);
        }
        Encryption::Clear => request.body,
    };
    let mut binding = None;
    if request.signing == Signing::Origin {
        let hash = binding_hash(&header, &body);
        binding = Some(hash);
        let signature = MessageSignature::sign_with_nonce(request.sender, &hash, &secrets.nonce);
        header.signature = signature.encode();
    }
    Ok(SealedMessage {
        header,
        body,
        binding_hash: binding,
    })
}

fn seal_encrypted(
    mut header: Header,
    message: &[u8],
    recipient: &PublicKey,
    sender: &SecretKey,
    secrets: &SealSecrets,
) -> Result<SealedMessage, SealError> {
    let agreement = KeyAgreement::new(&secrets.ephemeral, recipient);
    let masked_secret = Zeroizing::new(agreement.mask() * sender.scalar());
    let [ephemeral, masked, nonce] = PublicKey::of_each([
        secrets.ephemeral.scalar(),
        &masked_secret,
        secrets.nonce.scalar(),
    ]);

    let mut body = pad(message, aead::CHACHA20_POLY1305.tag_len())?;
    let aad = aead::Aad::from(masked.as_bytes());
    agreement
        .message_key()
        .seal_in_place_append_tag(zero_nonce(), aad, &mut body)
        .map_err(|_| SealError::TooLong)?;
    let body = body.freeze();

    header.flags |= Flags::ENCRYPTED;
    header.ephemeral_key = Some(ephemeral);
    let hash = binding_hash(&header, &body);
    let signature = MessageSignature::finish_signing(
        &masked_secret,
        masked,
        secrets.nonce.scalar(),
        curve25519_dalek::ristretto::CompressedRistretto(*nonce.as_bytes()),
        &hash,
    );
    header.signature = signature.encode();
    Ok(SealedMessage {
        header,
        body,
        binding_hash: Some(hash),
    })
}

impl SealedMessage {
    /// Encodes the message as the frame of the messaging protocol; see [`encode_envelope`].
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        encode_envelope(&self.header, &self.body)
    }
}

/// Encodes header and body as the frame of the messaging protocol, canonically.
#[must_use]
pub fn encode_envelope(header: &Header, body: &[u8]) -> Bytes {
    let header: DhtHeader = header.to_proto();
    let header_length = header.encoded_len();
    let mut frame = BytesMut::with_capacity(header_length + body.len() + 16);
    frame.put_u8(1 << 3 | 2);
    prost::encoding::encode_varint(header_length as u64, &mut frame);
    header.encode_raw(&mut frame);
    if !body.is_empty() {
        frame.put_u8(2 << 3 | 2);
        prost::encoding::encode_varint(body.len() as u64, &mut frame);
        frame.put_slice(body);
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy as _, SeededEntropy};

    /// The secret that both sides derive would not depend on the sender.
    #[test]
    fn nothing_is_encrypted_for_identity() {
        let (sender, everybody) = (
            SecretKey::random(&mut SeededEntropy::new(1).rng()),
            PublicKey::from_bytes(&[0; 32]).unwrap(),
        );
        let request = SealRequest {
            destination: Destination::PublicKey(everybody),
            encryption: Encryption::EncryptFor(everybody),
            ..SealRequest::new(Bytes::new(), &sender)
        };
        let secrets = SealSecrets::random(&mut SeededEntropy::new(2).rng());
        assert_eq!(seal(request, secrets).unwrap_err(), SealError::IdentityKey);
    }
}
