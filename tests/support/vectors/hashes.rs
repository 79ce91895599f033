//! `hashing`, `challenge_hashes`, `dedup_hashes`.

use bytes::Bytes;
use dht_core::hash::{Domain, Hasher256, Hasher512};
use dht_core::{Destination, Flags, Header, MessageTag, MessageType, ProtocolVersion, UnixSeconds};

use super::case::{Case, Outcome, same_bytes};

pub(super) fn domain_hash(case: &Case<'_>) -> Outcome {
    let domain = Domain {
        name: case.text("domain")?,
        version: case.number("version")?,
        label: case.text("label")?,
    };
    let chunks = case
        .list("inputs")?
        .iter()
        .map(Case::own_hex)
        .collect::<Outcome<Vec<Bytes>>>()?;
    let digest = match case.text("hash")? {
        "blake2b-256" => chunks
            .iter()
            .fold(Hasher256::new(domain), |hasher, chunk| hasher.chain(chunk))
            .finish()
            .to_vec(),
        "blake2b-512" => chunks
            .iter()
            .fold(Hasher512::new(domain), |hasher, chunk| hasher.chain(chunk))
            .finish()
            .to_vec(),
        other => return Err(format!("unknown hash {other}")),
    };
    same_bytes("digest", &digest, &case.hex("digest")?)
}

pub(super) fn binding_hash(case: &Case<'_>) -> Outcome {
    let body = case.generated("body_len", "body_seed")?;
    if !case.is_null("body") {
        same_bytes("generated body", &body, &case.hex("body")?)?;
    }
    let header = Header {
        ephemeral_key: case.optional_key("ephemeral_public_key")?,
        ..header(case)?
    };
    let destination = header.destination.to_hash_bytes();
    same_bytes(
        "destination bytes",
        &destination,
        &case.hex("destination_bytes")?,
    )?;
    same_bytes(
        "hash",
        &dht_core::binding_hash(&header, &body),
        &case.hex("hash")?,
    )
}

pub(super) fn dedup_hash(case: &Case<'_>) -> Outcome {
    let body = case.generated("body_len", "body_seed")?;
    let hash = dht_core::dedup_hash(&case.hex("message_signature")?, &body);
    same_bytes("hash", &hash.0, &case.hex("hash")?)
}

/// The header that `version`, `destination`, `message_type`, `flags` and `expires` describe; neither signed nor with an
/// ephemeral key.
pub(super) fn header(case: &Case<'_>) -> Outcome<Header> {
    let version = match case.number("version")? {
        1 => ProtocolVersion::V1,
        2 => ProtocolVersion::V2,
        other => return Err(format!("unknown version {other}")),
    };
    let number = case.number("message_type")?;
    let expires = case.number("expires")?;
    Ok(Header {
        version,
        destination: case
            .optional_key("destination")?
            .map_or(Destination::Unknown, Destination::PublicKey),
        message_type: MessageType::from_wire(number)
            .ok_or_else(|| format!("unknown message type {number}"))?,
        flags: Flags::from_bits(case.number("flags")?).ok_or("unknown flags")?,
        signature: Bytes::new(),
        ephemeral_key: None,
        tag: MessageTag(0),
        expires: (expires != 0).then_some(UnixSeconds(expires)),
    })
}
