//! Identities and envelopes from a seed, for tests of this and other crates.

use bytes::Bytes;

use crate::{
    Destination, DomainHeader, Encryption, Entropy, Features, MessageTag, MessageType,
    NodeIdentity, ProtocolVersion, PublicKey, SealRequest, SealSecrets, SecretKey, SeededEntropy,
    Signing, UnixSeconds, domain_parts, encode_envelope, encode_parts, seal,
};

/// A time in 2023 that tests take for the present.
pub const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// The full node of a seed, with one address.
#[must_use]
pub fn identity(seed: u64) -> NodeIdentity {
    identity_with(seed, Features::NODE)
}

/// The peer of a seed with given features and one address.
///
/// # Panics
/// Never: the address is well formed.
#[must_use]
pub fn identity_with(seed: u64, features: Features) -> NodeIdentity {
    let mut rng = SeededEntropy::new(seed).rng();
    let secret = SecretKey::random(&mut rng);
    let address = crate::Address::tcp([127, 0, 0, 1].into(), 18_189);
    NodeIdentity::new(secret, features, vec![address], NOW, &mut rng)
}

/// The public key of a seed.
#[must_use]
pub fn public_key(seed: u64) -> PublicKey {
    *identity(seed).public_key()
}

/// The two parts of an application's message to many.
#[must_use]
pub fn parts(payload: &'static [u8]) -> Vec<Bytes> {
    domain_parts(
        DomainHeader {
            message_type: 1,
            nonce: 0,
        },
        Bytes::from_static(payload),
    )
}

/// A frame encrypted for `to`, expiring an hour after [`NOW`].
#[must_use]
pub fn encrypted(from: &NodeIdentity, to: &PublicKey, payload: &'static [u8], seed: u64) -> Bytes {
    frame(
        from,
        Destination::PublicKey(*to),
        Encryption::EncryptFor(*to),
        Signing::Anonymous,
        payload,
        seed,
    )
}

/// A clear frame addressed to nobody, expiring an hour after [`NOW`].
#[must_use]
pub fn clear(from: &NodeIdentity, signing: Signing, payload: &'static [u8], seed: u64) -> Bytes {
    frame(
        from,
        Destination::Unknown,
        Encryption::Clear,
        signing,
        payload,
        seed,
    )
}

/// A frame of an application's message.
///
/// # Panics
/// If the request cannot be sealed, which is the test's mistake.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "a request that cannot be sealed is the test's mistake"
)]
pub fn frame(
    from: &NodeIdentity,
    destination: Destination,
    encryption: Encryption,
    signing: Signing,
    payload: &'static [u8],
    seed: u64,
) -> Bytes {
    let request = SealRequest {
        body: encode_parts(&parts(payload)),
        message_type: MessageType::None,
        destination,
        encryption,
        sender: from.secret_key(),
        signing,
        expires: Some(NOW.saturating_add(3_600)),
        tag: MessageTag(seed),
        version: ProtocolVersion::V2,
    };
    let secrets = SealSecrets::random(&mut SeededEntropy::new(seed ^ 0x5ea1).rng());
    let sealed = seal(request, secrets).expect("the test's request is sound");
    encode_envelope(&sealed.header, &sealed.body)
}
