//! Under which key a message is counted: specification 03, sections 3.6 and 9.3 (F-14).

use bytes::Bytes;
use dht_core::{
    BodyError, DedupHash, MessageSignature, Verified, decode_parts, dedup_hash, encode_parts,
};

/// The key of a verified message whose signature bytes are canonical, which the verify layer has seen to.
///
/// Signed: over the signature and the body as received, so that nothing about a signed message can be changed
/// without changing the key. Unsigned: over the canonical encoding of the parts, because anybody could re-encode
/// the body.
///
/// # Errors
/// [`BodyError`] for an unsigned body that does not decode: there is nothing to deliver and no key to count by.
pub fn dedup_key(message: &Verified) -> Result<DedupHash, BodyError> {
    match &message.header().signature[..] {
        [] => Ok(dedup_hash(&[], &canonical_body(message.body())?)),
        signature => Ok(dedup_hash(signature, message.body())),
    }
}

/// The key of a message from its fields, for messages this node sends and for those that come out of storage. The
/// signature may be encoded in any way; the key is that of the canonical encoding.
///
/// # Errors
/// [`BodyError`] if the signature is neither empty nor decodable, or the body of an unsigned message does not
/// decode.
pub fn dedup_key_of(signature: &[u8], body: &Bytes) -> Result<DedupHash, BodyError> {
    if signature.is_empty() {
        return Ok(dedup_hash(&[], &canonical_body(body)?));
    }
    let signature = MessageSignature::decode(signature).map_err(|_| BodyError)?;
    Ok(dedup_hash(&signature.encode(), body))
}

/// Whether verified signature bytes are exactly the canonical encoding.
///
/// Only for bytes that decoded: each field then holds 32 canonical bytes, and 102 bytes with the three keys in
/// place leave room for nothing else.
pub(crate) fn has_canonical_layout(signature: &[u8]) -> bool {
    const KEYS: [(usize, u8); 3] = [(0, 0x0a), (34, 0x12), (68, 0x1a)];
    signature.is_empty()
        || signature.len() == MessageSignature::CANONICAL_LENGTH
            && KEYS.iter().all(|&(at, key)| {
                signature.get(at) == Some(&key) && signature.get(at.wrapping_add(1)) == Some(&32)
            })
}

fn canonical_body(body: &Bytes) -> Result<Bytes, BodyError> {
    Ok(encode_parts(&decode_parts(body.clone())?))
}

#[cfg(test)]
mod tests {
    use dht_core::{
        RawEnvelope, Signing, encode_envelope,
        test_util::{clear, identity},
    };
    use proptest::prelude::*;

    use super::*;

    fn verified(frame: Bytes) -> Verified {
        RawEnvelope::parse(frame)
            .unwrap()
            .into_sealed()
            .unwrap()
            .verify()
            .unwrap()
    }

    #[test]
    fn b041_unsigned_copies_from_different_senders_have_the_published_key() {
        let body = encode_parts(&[Bytes::from_static(b"test123")]);
        let expected = "64f1db1039353cf2ff7e09889d14ffd9885766c3dc494a59823a499edfe6997c";
        let key = dedup_key_of(&[], &body).unwrap();
        let hex: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);

        let keys = [1, 2].map(|seed| {
            let frame = clear(&identity(seed), Signing::Anonymous, b"test123", seed);
            dedup_key(&verified(frame)).unwrap()
        });
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn b046_a_signature_in_another_encoding_has_the_same_key() {
        let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
        let key = dedup_key(&message).unwrap();
        let canonical = &message.header().signature[..];
        let (signer, rest) = canonical.split_at(34);
        let (nonce, scalar) = rest.split_at(34);
        let extra = [canonical, &[0x20, 0x01]].concat();
        let reordered = [scalar, signer, nonce].concat();
        let repeated = [signer, signer, nonce, scalar].concat();
        for signature in [&extra, &reordered, &repeated] {
            assert_eq!(dedup_key_of(signature, message.body()), Ok(key));
            assert!(!has_canonical_layout(signature));
        }
        assert!(has_canonical_layout(canonical));
    }

    #[test]
    fn b047_a_signed_body_in_another_encoding_has_another_key() {
        let message = verified(clear(&identity(1), Signing::Origin, b"x", 1));
        let body = Bytes::from([message.body(), &[0x10, 0x01][..]].concat());
        let signature = &message.header().signature;
        assert_ne!(dedup_key_of(signature, &body), dedup_key(&message));
        // The same change to an unsigned body makes no difference (F-14).
        assert_eq!(dedup_key_of(&[], &body), dedup_key_of(&[], message.body()));
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
            assert_ne!(dedup_key_of(&changed, message.body()), key);
        }
        assert_ne!(dedup_key_of(&[], message.body()), key);
    }

    #[test]
    fn without_a_decodable_unsigned_body_there_is_no_key() {
        let mut header = verified(clear(&identity(1), Signing::Anonymous, b"x", 1))
            .header()
            .clone();
        header.signature = Bytes::new();
        let frame = encode_envelope(&header, &[0xff]);
        assert_eq!(dedup_key(&verified(frame)), Err(BodyError));
        assert_eq!(dedup_key_of(&[1; 32], &Bytes::new()), Err(BodyError));
    }

    proptest! {
        /// The cheap layout test agrees with decoding and encoding again.
        #[test]
        fn layout_says_what_re_encoding_says(at in 0..110_usize, byte: u8, insert: bool) {
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
