//! The sender's side: the envelope again, from the secrets that made it.

use bytes::Bytes;
use dht_core::{
    Encryption, Header, MessageSignature, MessageTag, RawEnvelope, SealRequest, SealSecrets,
    SealedMessage, SecretKey, Signing, binding_hash, encode_envelope, encode_parts, seal,
};

use super::super::case::{Case, Outcome, same};
use super::super::hashes::header;

/// Seals `parts` as the case says; every byte is determined.
pub(super) fn envelope(case: &Case<'_>, parts: &[Bytes]) -> Outcome<Bytes> {
    let sender = case.secret("sender_secret")?;
    same(
        "sender's key",
        sender.public_key(),
        case.key("sender_public")?,
    )?;
    let (encryption, signing) = match case.text("kind")? {
        "encrypted" => (
            Encryption::EncryptFor(case.key("recipient_public")?),
            Signing::Origin,
        ),
        "cleartext-signed" => (Encryption::Clear, Signing::Origin),
        "cleartext-unsigned" => (Encryption::Clear, Signing::Anonymous),
        other => return Err(format!("unknown kind {other}")),
    };
    let Header {
        version,
        destination,
        message_type,
        expires,
        ..
    } = header(case)?;
    let tag = MessageTag(case.number("message_tag")?);
    let secrets = SealSecrets::from_parts(
        one_time(case, "ephemeral_secret")?,
        one_time(case, "secret_nonce")?,
    );
    let body = encode_parts(parts);
    let request = SealRequest {
        body,
        message_type,
        destination,
        encryption,
        sender: &sender,
        signing,
        expires,
        tag,
        version,
    };
    let sealed = seal(request, secrets).map_err(|error| error.to_string())?;
    let sealed = with_stray_ephemeral_key(case, sealed, &sender)?;
    Ok(encode_envelope(&sealed.header, &sealed.body))
}

/// A secret the case gives, or one that is not used.
fn one_time(case: &Case<'_>, field: &str) -> Outcome<SecretKey> {
    if case.has(field) {
        case.secret(field)
    } else {
        SecretKey::from_bytes(&[0; 32]).map_err(|error| error.to_string())
    }
}

/// `seal` never puts an ephemeral key into a clear message; receivers must accept one all the same.
fn with_stray_ephemeral_key(
    case: &Case<'_>,
    mut sealed: SealedMessage,
    sender: &SecretKey,
) -> Outcome<SealedMessage> {
    let received = RawEnvelope::parse(case.hex("envelope")?).map_err(|error| error.to_string())?;
    let received = received.into_sealed().map_err(|error| error.to_string())?;
    if sealed.header.ephemeral_key.is_none() && received.header().ephemeral_key.is_some() {
        sealed.header.ephemeral_key = received.header().ephemeral_key;
        let hash = binding_hash(&sealed.header, &sealed.body);
        sealed.binding_hash = sealed.binding_hash.and(Some(hash));
        if !sealed.header.signature.is_empty() {
            let signature =
                MessageSignature::sign_with_nonce(sender, &hash, &case.secret("secret_nonce")?);
            sealed.header.signature = signature.encode();
        }
    }
    Ok(sealed)
}
