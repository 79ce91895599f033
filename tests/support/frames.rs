//! Frames that a peer may send, made without a node: what no node of ours would send, too.

use bytes::Bytes;
use dht_core::{
    Address, Claim, Clock as _, Destination, DomainHeader, Encryption, Entropy as _, Header,
    MessageTag, MessageType, NodeIdentity, OsEntropy, ProtocolVersion, PublicKey, SealError,
    SealRequest, SealSecrets, SecretKey, Signing, SystemClock, domain_parts, encode_envelope,
    encode_parts, seal,
};
use dht_proto::dht::{DiscoveryMessage, JoinMessage};
use prost::Message as _;

/// Seconds for which the messages are valid.
const VALID_SECONDS: u64 = 3_600;

/// A discovery of `seeker` for `sought`.
///
/// # Errors
/// [`SealError`] if a key is not one to encrypt for.
pub fn discovery(
    seeker: &NodeIdentity,
    sought: &PublicKey,
    nonce: u64,
) -> Result<Bytes, SealError> {
    let claim = seeker.claim();
    let message = DiscoveryMessage {
        public_key: Bytes::copy_from_slice(seeker.public_key().as_bytes()),
        addresses: addresses(&claim.addresses),
        peer_features: claim.features.bits(),
        nonce,
        identity_signature: Some((&claim.signature).into()),
    };
    let request = SealRequest {
        message_type: MessageType::Discovery,
        destination: Destination::PublicKey(*sought),
        encryption: Encryption::EncryptFor(*sought),
        ..signed(
            encode_parts(&[message.encode_to_vec().into()]),
            seeker.secret_key(),
        )
    };
    frame(request)
}

/// A join of `peer`, with `more` behind its fields.
///
/// # Errors
/// [`SealError`] if it is too long.
pub fn join(peer: &NodeIdentity, nonce: u64, more: &[u8]) -> Result<Bytes, SealError> {
    let key = peer.public_key();
    join_of(peer.secret_key(), (key, &peer.claim()), nonce, more)
}

/// A join that `sender` signs and addresses to itself, of any key and claim.
///
/// # Errors
/// [`SealError`] if it is too long.
pub fn join_of(
    sender: &SecretKey,
    (key, claim): (&PublicKey, &Claim),
    nonce: u64,
    more: &[u8],
) -> Result<Bytes, SealError> {
    let message = JoinMessage {
        public_key: Bytes::copy_from_slice(key.as_bytes()),
        addresses: addresses(&claim.addresses),
        peer_features: claim.features.bits(),
        nonce,
        identity_signature: Some((&claim.signature).into()),
    };
    let mut part = message.encode_to_vec();
    part.extend_from_slice(more);
    let request = SealRequest {
        message_type: MessageType::Join,
        destination: Destination::PublicKey(sender.public_key()),
        ..signed(encode_parts(&[part.into()]), sender)
    };
    frame(request)
}

/// An application message, encrypted for `to`.
///
/// # Errors
/// [`SealError`] if it is too long, or the key is not one to encrypt for.
pub fn post(
    from: &SecretKey,
    to: &PublicKey,
    payload: impl Into<Bytes>,
) -> Result<Bytes, SealError> {
    post_for(from, to, payload, VALID_SECONDS)
}

/// As [`post`], valid for so many seconds.
///
/// # Errors
/// [`SealError`] if it is too long, or the key is not one to encrypt for.
pub fn post_for(
    from: &SecretKey,
    to: &PublicKey,
    payload: impl Into<Bytes>,
    seconds: u64,
) -> Result<Bytes, SealError> {
    let request = SealRequest {
        destination: Destination::PublicKey(*to),
        encryption: Encryption::EncryptFor(*to),
        expires: Some(SystemClock.now().saturating_add(seconds)),
        ..signed(application(payload), from)
    };
    frame(request)
}

/// Clear gossip for everybody: signed by `from`, or by nobody.
///
/// # Errors
/// [`SealError`] if it is too long.
pub fn gossip(
    from: &SecretKey,
    signing: Signing,
    payload: impl Into<Bytes>,
) -> Result<Bytes, SealError> {
    let request = SealRequest {
        signing,
        ..signed(application(payload), from)
    };
    frame(request)
}

/// The same envelope with another header, or `None` if `frame` is no envelope.
pub fn with_header(frame: Bytes, change: impl FnOnce(&mut Header)) -> Option<Bytes> {
    let sealed = dht_core::RawEnvelope::parse(frame)
        .ok()?
        .into_sealed()
        .ok()?;
    let mut header = sealed.header().clone();
    change(&mut header);
    Some(encode_envelope(&header, sealed.body()))
}

/// A message of a protocol, `to` a key, encrypted for it.
///
/// # Errors
/// [`SealError`] if it is too long.
pub fn protocol(
    from: &SecretKey,
    to: &PublicKey,
    message_type: MessageType,
    part: Bytes,
) -> Result<Bytes, SealError> {
    let request = SealRequest {
        message_type,
        destination: Destination::PublicKey(*to),
        encryption: Encryption::EncryptFor(*to),
        ..signed(encode_parts(&[part]), from)
    };
    frame(request)
}

/// A clear message of a protocol, signed by nobody, as requests for stored messages are.
///
/// # Errors
/// [`SealError`] if it is too long.
pub fn clear_protocol(
    from: &SecretKey,
    message_type: MessageType,
    part: Bytes,
) -> Result<Bytes, SealError> {
    let request = SealRequest {
        message_type,
        signing: Signing::Anonymous,
        ..signed(encode_parts(&[part]), from)
    };
    frame(request)
}

/// The type of the message in an envelope; `None` if `frame` is no envelope.
#[must_use]
pub fn message_type(frame: &Bytes) -> Option<MessageType> {
    let raw = dht_core::RawEnvelope::parse(frame.clone()).ok()?;
    Some(raw.into_sealed().ok()?.header().message_type)
}

fn application(payload: impl Into<Bytes>) -> Bytes {
    let header = DomainHeader {
        message_type: 7,
        nonce: 0,
    };
    encode_parts(&domain_parts(header, payload.into()))
}

fn signed(body: Bytes, sender: &SecretKey) -> SealRequest<'_> {
    SealRequest {
        body,
        message_type: MessageType::None,
        destination: Destination::Unknown,
        encryption: Encryption::Clear,
        sender,
        signing: Signing::Origin,
        expires: Some(SystemClock.now().saturating_add(VALID_SECONDS)),
        tag: MessageTag(0),
        version: ProtocolVersion::V2,
    }
}

fn frame(request: SealRequest<'_>) -> Result<Bytes, SealError> {
    let sealed = seal(request, SealSecrets::random(&mut OsEntropy.rng()))?;
    Ok(encode_envelope(&sealed.header, &sealed.body))
}

fn addresses(addresses: &[Address]) -> Vec<Bytes> {
    let bytes = |address: &Address| Bytes::copy_from_slice(address.as_bytes());
    addresses.iter().map(bytes).collect()
}
