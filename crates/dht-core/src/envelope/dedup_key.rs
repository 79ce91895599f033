//! The key under which the dedup table counts a message (03 sections 3.6 and 9.3, 03 F-14).

use bytes::Bytes;

use super::{
    DedupHash, Header, Sealed, SealedMessage, Verified, binding_hash, decode_parts, dedup_hash,
    encode_parts,
};
use crate::error::OpenError;
use crate::hash::Hasher256;
use crate::schnorr::MessageSignature;

impl Sealed {
    /// The duplicate hash of the bytes as received.
    #[must_use]
    pub fn dedup_hash(&self) -> DedupHash {
        dedup_hash(&self.header().signature, self.body())
    }
}

impl Verified {
    /// The duplicate hash of the bytes as received.
    #[must_use]
    pub fn dedup_hash(&self) -> DedupHash {
        dedup_hash(&self.header().signature, self.body())
    }

    /// Whether the signature field is empty or exactly the canonical 102 bytes. A re-encoded signature still
    /// verifies, but the network's duplicate hash takes the bytes as they are.
    #[must_use]
    pub fn signature_is_canonical(&self) -> bool {
        has_canonical_layout(&self.header().signature)
    }
}

impl SealedMessage {
    /// Equals [`dedup_key_of`] for header and body, without hashing a signed body a second time.
    ///
    /// # Errors
    /// [`OpenError::UndecodableBody`] for an unsigned body that does not decode.
    pub fn dedup_key(&self) -> Result<DedupHash, OpenError> {
        match &self.binding_hash {
            Some(binding) => Ok(dedup_hash(&self.header.signature, binding)),
            None => dedup_key_of(&self.header, &self.body),
        }
    }
}

/// The key of a verified message whose signature bytes are canonical
/// ([`Verified::signature_is_canonical`]).
///
/// Signed: over the signature and the binding hash it covers, so that nothing about a signed message can be changed
/// without changing the key. That tells apart exactly what [`dedup_hash`] over signature and body tells apart, and
/// spares a second pass over the body. Unsigned: over the message type and the canonical encoding of the parts, because
/// anybody could re-encode the body, or pass on a copy of another type, which must not take the place of the original.
///
/// # Errors
/// [`OpenError::UndecodableBody`] for an unsigned body that does not decode: there is nothing to deliver and no key to count by.
pub fn dedup_key(message: &Verified) -> Result<DedupHash, OpenError> {
    match (message.binding_hash(), message.unsigned_key()) {
        (Some(binding), _) => Ok(dedup_hash(&message.header().signature, binding)),
        (None, Some(key)) => Ok(DedupHash(*key)),
        (None, None) => unsigned_key(message.header(), message.body()),
    }
}

/// The key of a message from its fields, for messages this node sends and for those that come out of storage. The
/// signature may be encoded in any way; the key is that of the canonical encoding.
///
/// # Errors
/// [`OpenError::UndecodableBody`] if the signature is neither empty nor decodable, or the body of an unsigned message does not
/// decode.
pub fn dedup_key_of(header: &Header, body: &Bytes) -> Result<DedupHash, OpenError> {
    let binding = || binding_hash(header, body);
    match &header.signature[..] {
        [] => unsigned_key(header, body),
        canonical if has_canonical_layout(canonical) => Ok(dedup_hash(canonical, &binding())),
        other => {
            let signature =
                MessageSignature::decode(other).map_err(|_| OpenError::UndecodableBody)?;
            Ok(dedup_hash(&signature.encode(), &binding()))
        }
    }
}

/// Whether verified signature bytes are exactly the canonical encoding.
///
/// Only for bytes that decoded: each field then holds 32 canonical bytes, and 102 bytes with the three keys in
/// place leave room for nothing else.
fn has_canonical_layout(signature: &[u8]) -> bool {
    const KEYS: [(usize, u8); 3] = [(0, 0x0a), (34, 0x12), (68, 0x1a)];
    signature.is_empty()
        || signature.len() == MessageSignature::CANONICAL_LENGTH
            && KEYS.iter().all(|&(at, key)| {
                signature.get(at) == Some(&key) && signature.get(at.wrapping_add(1)) == Some(&32)
            })
}

fn unsigned_key(header: &Header, body: &Bytes) -> Result<DedupHash, OpenError> {
    let hasher = begin_unsigned(header);
    Ok(DedupHash(hasher.chain(&canonical_body(body)?).finish()))
}

/// The key of an unsigned message but for its canonical body. The type stands where the signature of others does.
pub(super) fn begin_unsigned(header: &Header) -> Hasher256 {
    dedup_hash::begin(&header.message_type.to_wire().to_le_bytes())
}

/// The canonical encoding of the parts of a body: what the key of an unsigned message is made of.
pub(super) fn canonical_body(body: &Bytes) -> Result<Bytes, OpenError> {
    let parts = decode_parts(body.clone())?;
    // Nearly every body is canonical already, and its bytes need not be copied to say so.
    if is_canonical(body, &parts) {
        return Ok(body.clone());
    }
    Ok(encode_parts(&parts))
}

/// Whether `body` is the canonical encoding of `parts`: each part after its key and length, and nothing else.
fn is_canonical(body: &[u8], parts: &[Bytes]) -> bool {
    let mut rest = body;
    for part in parts {
        let mut head = [0; 1 + MAX_VARINT_BYTES];
        let length = put_head(part.len(), &mut head);
        let after = head.get(..length).and_then(|head| rest.strip_prefix(head));
        let Some(after) = after.and_then(|after| after.strip_prefix(&part[..])) else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

const MAX_VARINT_BYTES: usize = 10;

/// Writes the key of field 1 and a length, and answers how many bytes that took.
fn put_head(length: usize, head: &mut [u8; 1 + MAX_VARINT_BYTES]) -> usize {
    let mut left = length;
    let mut used = 0_usize;
    for (at, slot) in head.iter_mut().enumerate() {
        used = at.saturating_add(1);
        if at == 0 {
            *slot = 0x0a;
            continue;
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        let low = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            *slot = low;
            break;
        }
        *slot = low | 0x80;
    }
    used
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Destination, Encryption, Entropy as _, MessageTag, MessageType, ProtocolVersion,
        RawEnvelope, SealRequest, SealSecrets, SeededEntropy, Signing, encode_envelope, seal,
        test_util::{clear, identity},
    };

    fn with_signature(message: &Verified, signature: &[u8]) -> Header {
        Header {
            signature: Bytes::copy_from_slice(signature),
            ..message.header().clone()
        }
    }

    fn verified(frame: Bytes) -> Verified {
        RawEnvelope::parse(frame)
            .unwrap()
            .into_sealed()
            .unwrap()
            .verify()
            .unwrap()
    }

    /// Unsigned copies from different senders have the key of the published vector.
    #[test]
    fn b041_unsigned_copies_have_published_key() {
        let body = encode_parts(&[Bytes::from_static(b"test123")]);
        let expected = "64f1db1039353cf2ff7e09889d14ffd9885766c3dc494a59823a499edfe6997c";
        let key = dedup_hash(&[], &body);
        let hex: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);

        let keys = [1, 2].map(|seed| {
            let frame = clear(&identity(seed), Signing::Anonymous, b"test123", seed);
            dedup_key(&verified(frame)).unwrap()
        });
        assert_eq!(keys[0], keys[1]);
    }

    /// A relay could retype an unsigned message; its copy does not censor the original.
    #[test]
    fn retyped_unsigned_copy_has_another_key() {
        let message = verified(clear(&identity(1), Signing::Anonymous, b"x", 1));
        let retyped = Header {
            message_type: MessageType::Join,
            ..message.header().clone()
        };
        let key = dedup_key_of(&retyped, message.body());
        assert_ne!(key, dedup_key(&message));
        let copy = verified(encode_envelope(&retyped, message.body()));
        assert_eq!(dedup_key(&copy), key);
    }

    #[test]
    fn b046_reencoded_signature_has_same_key() {
        let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
        let key = dedup_key(&message).unwrap();
        let canonical = &message.header().signature[..];
        let (signer, rest) = canonical.split_at(34);
        let (nonce, scalar) = rest.split_at(34);
        let extra = [canonical, &[0x20, 0x01]].concat();
        let reordered = [scalar, signer, nonce].concat();
        let repeated = [signer, signer, nonce, scalar].concat();
        for signature in [&extra, &reordered, &repeated] {
            let header = with_signature(&message, signature);
            assert_eq!(dedup_key_of(&header, message.body()), Ok(key));
            assert!(!has_canonical_layout(signature));
        }
        assert!(has_canonical_layout(canonical));
    }

    #[test]
    fn b047_reencoded_signed_body_changes_key() {
        let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
        let body = Bytes::from([message.body(), &[0x10, 0x01][..]].concat());
        assert_ne!(dedup_key_of(message.header(), &body), dedup_key(&message));
        // The same change to an unsigned body makes no difference (03 F-14).
        let unsigned = with_signature(&message, &[]);
        assert_eq!(
            dedup_key_of(&unsigned, &body),
            dedup_key_of(&unsigned, message.body())
        );
    }

    #[test]
    fn b048_every_part_of_the_signature_counts() {
        let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
        let other = verified(clear(&identity(2), Signing::Origin, b"x", 2));
        let key = dedup_key(&message);
        let (ours, theirs) = (&message.header().signature, &other.header().signature);
        for range in [0..34, 34..68, 68..102] {
            let mut changed = ours.to_vec();
            changed[range.clone()].copy_from_slice(&theirs[range]);
            assert_ne!(
                dedup_key_of(&with_signature(&message, &changed), message.body()),
                key
            );
        }
        let unsigned = with_signature(&message, &[]);
        assert_ne!(dedup_key_of(&unsigned, message.body()), key);
        assert_eq!(dedup_key_of(message.header(), message.body()), key);
    }

    #[test]
    fn sealing_remembers_the_dedup_key() {
        let (alice, bob) = (identity(1), *identity(2).public_key());
        let to = Destination::PublicKey(bob);
        for (signing, encryption) in [
            (Signing::Anonymous, Encryption::Clear),
            (Signing::Origin, Encryption::Clear),
            (Signing::Anonymous, Encryption::EncryptFor(bob)),
        ] {
            let request = SealRequest {
                body: encode_parts(&[Bytes::from_static(b"x")]),
                message_type: MessageType::None,
                destination: to,
                encryption,
                sender: alice.secret_key(),
                signing,
                expires: None,
                tag: MessageTag(1),
                version: ProtocolVersion::V2,
            };
            let secrets = SealSecrets::random(&mut SeededEntropy::new(1).rng());
            let sealed = seal(request, secrets).unwrap();
            let received = verified(encode_envelope(&sealed.header, &sealed.body));
            assert_eq!(sealed.dedup_key(), dedup_key(&received));
        }
    }

    #[test]
    fn undecodable_unsigned_body_has_no_key() {
        let mut header = verified(clear(&identity(1), Signing::Anonymous, b"x", 1))
            .header()
            .clone();
        header.signature = Bytes::new();
        let frame = encode_envelope(&header, &[0xff]);
        assert_eq!(dedup_key(&verified(frame)), Err(OpenError::UndecodableBody));
        header.signature = Bytes::from_static(&[1; 32]);
        assert_eq!(
            dedup_key_of(&header, &Bytes::new()),
            Err(OpenError::UndecodableBody)
        );
    }

    proptest! {
        /// Comparing in place says what encoding again would say.
        #[test]
        fn canonical_check_equals_re_encoding(
            sizes in proptest::collection::vec(0..300_usize, 0..6),
            tail in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let parts: Vec<Bytes> = sizes.into_iter().map(|n| vec![7; n].into()).collect();
            let body = Bytes::from([&encode_parts(&parts)[..], &tail].concat());
            if let Ok(decoded) = decode_parts(body.clone()) {
                let again = encode_parts(&decoded);
                prop_assert_eq!(is_canonical(&body, &decoded), again == body);
                prop_assert_eq!(canonical_body(&body), Ok(again));
            }
        }

        /// The cheap layout test agrees with decoding and encoding again.
        #[test]
        fn layout_check_equals_re_encoding(at in 0..110_usize, byte: u8, insert: bool) {
            let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
            let mut signature = message.header().signature.to_vec();
            if insert {
                signature.insert(at.min(signature.len()), byte);
            } else if let Some(slot) = signature.get_mut(at) {
                *slot = byte;
            }
            if let Ok(decoded) = MessageSignature::decode(&signature[..]) {
                prop_assert_eq!(has_canonical_layout(&signature), decoded.encode() == signature);
            }
        }
    }
}
