//! `message_signatures`, `identity_signatures`.

use bytes::Bytes;
use dht_core::hash::{Hasher512, MESSAGE_SIGNATURE};
use dht_core::{
    Address, Claim, Features, IdentitySignature, MessageSignature, PublicKey, SecretKey,
    SignatureError, UnixSeconds,
};
use dht_proto::common::IdentitySignature as Proto;
use prost::Message;

use super::case::{Case, Outcome, same, same_bytes};

/// Clocks at both ends of the years for which the verdicts hold: 2024 and 2089.
const CLOCKS: [UnixSeconds; 2] = [UnixSeconds(1_710_000_000), UnixSeconds(3_770_000_000)];

pub(super) fn message(case: &Case<'_>) -> Outcome {
    let message = case.array("message")?;
    let proto = case.hex("proto")?;
    if case.has("secret_key") {
        reproduce_message_signature(case, &message, &proto)?;
    }
    let ours = match MessageSignature::decode(&proto) {
        Ok(signature) if signature.verify(&message) => "ok",
        Ok(_) => "VerificationFailed",
        Err(SignatureError::Signer) => "InvalidSignerPublicKeyBytes",
        Err(SignatureError::Nonce) => "InvalidPublicNonceBytes",
        Err(SignatureError::Scalar) => "InvalidSignatureBytes",
        Err(error) => return Err(error.to_string()),
    };
    same("valid", ours == "ok", case.flag("valid")?)?;
    match case.text("result").unwrap_or("ok") {
        // Verification compares encodings and so refuses a nonce that is none, without decoding it first.
        "InvalidPublicNonceBytes" if ours == "VerificationFailed" => Ok(()),
        expected => same("result", ours, if ours == "ok" { "ok" } else { expected }),
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
    if case.has("kind") {
        return match case.text("kind")? {
            "decode" => same("decodes", decode(case).is_ok(), case.flag("decodes")?),
            other => Err(format!("unknown kind {other}")),
        };
    }
    let key = case.key("public_key")?;
    let addresses = addresses(case)?;
    let verdict =
        claim(case, addresses.clone()).map(|claim| CLOCKS.map(|now| claim.verify(&key, now)));
    let valid = case.flag("valid")?;
    match verdict {
        Ok(verdicts) => {
            for verdict in verdicts {
                same("valid", verdict.is_ok(), valid)
                    .map_err(|error| format!("{error} ({verdict:?})"))?;
            }
        }
        Err(error) if valid => return Err(error),
        Err(_) => {}
    }
    if case.has("challenge") {
        let claim = claim(case, addresses.clone())?;
        same_bytes("challenge", &claim.challenge(&key), &case.hex("challenge")?)?;
    }
    if case.has("secret_key") {
        reproduce_identity_signature(case, &key, addresses)?;
    }
    Ok(())
}

fn reproduce_identity_signature(
    case: &Case<'_>,
    key: &PublicKey,
    addresses: Vec<Address>,
) -> Outcome {
    let secret = case.secret("secret_key")?;
    same("public key", secret.public_key(), *key)?;
    if case.number::<u32>("version")? != 0 {
        return Ok(()); // only version 0 is ever signed
    }
    let now = UnixSeconds(case.number("updated_at")?);
    let ours = Claim::sign_with_nonce(
        &secret,
        addresses,
        features(case)?,
        now,
        &case.secret("secret_nonce")?,
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

/// The claim as its fields describe it, after checking that `proto` holds the same.
fn claim(case: &Case<'_>, addresses: Vec<Address>) -> Outcome<Claim> {
    let signature = decode(case)?;
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
    same_bytes("signature", signature.scalar(), &case.hex("signature")?)?;
    Ok(Claim {
        addresses,
        features: features(case)?,
        signature,
    })
}

fn decode(case: &Case<'_>) -> Outcome<IdentitySignature> {
    let proto = Proto::decode(case.hex("proto")?).map_err(|error| error.to_string())?;
    let Proto {
        version,
        signature,
        public_nonce,
        updated_at,
    } = proto;
    IdentitySignature::from_parts(version, &signature, &public_nonce, updated_at)
        .map_err(|error| error.to_string())
}

fn features(case: &Case<'_>) -> Outcome<Features> {
    Features::from_bits(case.number("features")?).map_err(|error| error.to_string())
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
