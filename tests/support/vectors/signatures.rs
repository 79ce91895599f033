//! `message_signatures`, `identity_signatures`.

use bytes::Bytes;
use dht_core::hash::{Hasher512, MESSAGE_SIGNATURE};
use dht_core::{
    Address, Claim, Features, IdentitySignature, MessageSignature, PublicKey, SecretKey,
    UnixSeconds, VerifyError,
};
use dht_proto::common::IdentitySignature as Proto;
use prost::Message;

use super::case::{Case, Outcome, same, same_bytes};

/// Clocks at both ends of the years for which the verdicts hold: 2024 and 2089.
const CLOCKS: [UnixSeconds; 2] = [UnixSeconds(1_710_000_000), UnixSeconds(3_770_000_000)];

pub(super) fn message(case: &Case<'_>) -> Outcome {
    let message = case.array("message")?;
    let proto = case.hex("proto")?;
    let reproducible = case.has("secret_key") || case.has("secret_nonce");
    if reproducible {
        reproduce_message_signature(case, &message, &proto)?;
    }
    let decoded = MessageSignature::decode(&proto);
    let ours = match &decoded {
        Ok(signature) if signature.verify(&message) => "ok",
        Ok(_) => "VerificationFailed",
        Err(VerifyError::Signer) => "InvalidSignerPublicKeyBytes",
        Err(VerifyError::Nonce) => "InvalidPublicNonceBytes",
        Err(VerifyError::Scalar) => "InvalidSignatureBytes",
        // No protobuf: whatever the failure is called.
        Err(_) => "",
    };
    let valid = case.flag("valid")?;
    same("valid", ours == "ok", valid)?;
    // A signature to be reproduced names no result.
    let expected = match reproducible && !case.has("result") {
        true => "ok",
        false => case.text("result")?,
    };
    match (ours, expected) {
        // Verification compares encodings and so refuses a nonce that is none, without decoding it first.
        ("VerificationFailed", "InvalidPublicNonceBytes") => Ok(()),
        ("", expected) => same("result is ok", false, expected == "ok"),
        _ => same("result", ours, expected),
    }
}

fn reproduce_message_signature(case: &Case<'_>, message: &[u8; 32], proto: &[u8]) -> Outcome {
    let secret = case.secret("secret_key")?;
    let key = case.key("public_key")?;
    let nonce = case.key("public_nonce")?;
    same("public key", secret.public_key(), key)?;
    let challenge = Hasher512::new(MESSAGE_SIGNATURE)
        .chain(key.as_bytes())
        .chain(nonce.as_bytes())
        .chain(message)
        .finish();
    same_bytes("challenge", &challenge, &case.hex("challenge")?)?;
    let e = SecretKey::from_uniform_bytes(&challenge).map_err(|error| error.to_string())?;
    same_bytes("e", &e.to_bytes()[..], &case.hex("e")?)?;

    let signature =
        MessageSignature::sign_with_nonce(&secret, message, &case.secret("secret_nonce")?);
    same_bytes("public nonce", signature.nonce(), nonce.as_bytes())?;
    same_bytes("s", signature.scalar(), &case.hex("s")?)?;
    same_bytes("proto", &signature.encode(), proto)
}

pub(super) fn identity(case: &Case<'_>) -> Outcome {
    let decoded = decode(&case.hex("proto")?);
    if case.has("kind") {
        case.text("name")?;
        return same("decodes", decoded.is_ok(), case.flag("decodes")?)
            .map_err(|error| format!("{error} ({decoded:?})"));
    }
    // The fields of the case are read before it is judged: a case that lacks a field is not one that is invalid.
    let key = case.key("public_key")?;
    let addresses = addresses(case)?;
    let bits = case.number("features")?;
    let valid = case.flag("valid")?;
    let claim = match (decoded, Features::from_bits(bits)) {
        (Ok(signature), Some(features)) => {
            holds_what_the_case_says(case, &signature)?;
            Ok(Claim {
                addresses: addresses.clone(),
                features,
                signature,
            })
        }
        (Err(error), _) => Err(error),
        (_, None) => Err(format!("unknown peer feature bits in {bits:#x}")),
    };
    let verdicts = match &claim {
        Ok(claim) => CLOCKS.map(|now| claim.verify(&key, now).map_err(|error| error.to_string())),
        Err(error) => CLOCKS.map(|_| Err(error.clone())),
    };
    for verdict in verdicts {
        same("valid", verdict.is_ok(), valid).map_err(|error| format!("{error} ({verdict:?})"))?;
    }
    if case.has("challenge") {
        let challenge = claim?.challenge(&key);
        same_bytes("challenge", &challenge, &case.hex("challenge")?)?;
    }
    if case.has("secret_key") || case.has("secret_nonce") {
        reproduce_identity_signature(case, &key, addresses)?;
    }
    Ok(())
}

fn reproduce_identity_signature(
    case: &Case<'_>,
    key: &PublicKey,
    addresses: Vec<Address>,
) -> Outcome {
    let (secret, nonce) = (case.secret("secret_key")?, case.secret("secret_nonce")?);
    same("public key", secret.public_key(), *key)?;
    if case.number::<u32>("version")? != 0 {
        return Ok(()); // only version 0 is ever signed
    }
    let now = UnixSeconds(case.number("updated_at")?);
    let ours = Claim::sign_with_nonce(
        &secret,
        addresses,
        Features::from_bits(case.number("features")?).ok_or("unknown peer feature bits")?,
        now,
        &nonce,
    );
    same_bytes(
        "public nonce",
        ours.signature.nonce(),
        &case.hex("public_nonce")?,
    )?;
    same_bytes(
        "signature",
        ours.signature.scalar(),
        &case.hex("signature")?,
    )?;
    let proto = Proto {
        version: ours.signature.version().into(),
        signature: Bytes::copy_from_slice(ours.signature.scalar()),
        public_nonce: Bytes::copy_from_slice(ours.signature.nonce()),
        updated_at: ours.signature.updated_at(),
    };
    same_bytes("proto", &proto.encode_to_vec(), &case.hex("proto")?)
}

/// Fails unless the fields of the case are those that its `proto` holds.
fn holds_what_the_case_says(case: &Case<'_>, signature: &IdentitySignature) -> Outcome {
    same(
        "version",
        u32::from(signature.version()),
        case.number::<u32>("version")?,
    )?;
    same(
        "updated_at",
        signature.updated_at(),
        case.number::<i64>("updated_at")?,
    )?;
    same_bytes(
        "public nonce",
        signature.nonce(),
        &case.hex("public_nonce")?,
    )?;
    same_bytes("signature", signature.scalar(), &case.hex("signature")?)
}

fn decode(proto: &[u8]) -> Outcome<IdentitySignature> {
    let proto = Proto::decode(proto).map_err(|error| error.to_string())?;
    let Proto {
        version,
        signature,
        public_nonce,
        updated_at,
    } = proto;
    IdentitySignature::from_parts(version, &signature, &public_nonce, updated_at)
        .map_err(|error| error.to_string())
}

/// The addresses in signing order; text and binary form must agree.
fn addresses(case: &Case<'_>) -> Outcome<Vec<Address>> {
    let texts = case.list("addresses")?;
    let binaries = case.list("addresses_hex")?;
    same("number of addresses", texts.len(), binaries.len())?;
    texts
        .iter()
        .zip(binaries)
        .map(|(text, binary)| {
            let address: Address = text
                .own_text()?
                .parse()
                .map_err(|error| format!("{text:?}: {error}"))?;
            same_bytes("address", address.as_bytes(), &binary.own_hex()?)?;
            Ok(address)
        })
        .collect()
}
