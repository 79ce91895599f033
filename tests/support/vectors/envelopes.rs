//! `key_derivation`, `padding`, `envelopes_valid`, `envelopes_invalid`.

mod rebuild;
mod receive;

use bytes::{Bytes, BytesMut};
use dht_core::{Destination, KeyAgreement, MessageTag, RawEnvelope, encode_parts, pad, unpad};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use self::receive::{ReceiveResult, receive};
use super::case::{Case, Outcome, generate, same, same_bytes};
use super::hashes::header;

pub(super) fn key_derivation(case: &Case<'_>) -> Outcome {
    let ephemeral = case.secret("ephemeral_secret")?;
    let recipient = case.secret("recipient_secret")?;
    let sender = case.secret("sender_secret")?;
    same(
        "ephemeral key",
        ephemeral.public_key(),
        case.key("ephemeral_public")?,
    )?;
    same(
        "recipient key",
        recipient.public_key(),
        case.key("recipient_public")?,
    )?;
    same(
        "sender key",
        sender.public_key(),
        case.key("sender_public")?,
    )?;

    let agreement = KeyAgreement::new(&ephemeral, &recipient.public_key());
    same_bytes(
        "shared secret",
        agreement.shared_secret().as_bytes(),
        &case.hex("shared_secret")?,
    )?;
    same_bytes(
        "message key",
        &agreement.message_key_bytes()[..],
        &case.hex("message_key")?,
    )?;
    same_bytes("mask", &agreement.mask_bytes()[..], &case.hex("mask")?)?;
    let masked = agreement.mask_secret(&sender);
    same_bytes(
        "masked secret",
        &masked.to_bytes()[..],
        &case.hex("masked_sender_secret")?,
    )?;
    same(
        "masked key",
        masked.public_key(),
        case.key("masked_sender_public")?,
    )?;

    let theirs = KeyAgreement::new(&recipient, &ephemeral.public_key());
    same_bytes(
        "recipient's shared secret",
        theirs.shared_secret().as_bytes(),
        &case.hex("shared_secret")?,
    )?;
    same(
        "unmasked key",
        theirs.unmask(&masked.public_key()),
        Some(sender.public_key()),
    )?;
    let inverted = case
        .secret("mask_inverse")?
        .shared_secret(&masked.public_key());
    same_bytes(
        "inverse times masked key",
        inverted.as_bytes(),
        sender.public_key().as_bytes(),
    )?;
    aead(case, &agreement)
}

fn aead(case: &Case<'_>, agreement: &KeyAgreement) -> Outcome {
    let mut block = generate(20, case.number("aead_plaintext_seed")?).to_vec();
    block.resize(6000, 0);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &agreement.message_key_bytes()[..])
        .map_err(|_| "key length")?;
    let aad = Aad::from(case.hex("masked_sender_public")?);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(nonce, aad, &mut block)
        .map_err(|_| "seal")?;
    block.truncate(32);
    same_bytes(
        "first ciphertext bytes",
        &block,
        &case.hex("aead_first_32_bytes")?,
    )?;
    same_bytes(
        "tag",
        tag.as_ref(),
        &case.hex("aead_tag_of_test_plaintext")?,
    )
}

pub(super) fn padding(case: &Case<'_>) -> Outcome {
    if case.has("accepted") {
        unpadding(case)
    } else {
        padding_of_length(case)
    }
}

fn padding_of_length(case: &Case<'_>) -> Outcome {
    let length = case.length("encoded_body_len")?;
    let block = pad(&vec![0xa5; length], 0)
        .map_err(|error| error.to_string())?
        .freeze();
    let zeros = block
        .get(4 + length..)
        .ok_or("the block is shorter than its content")?;
    same("pad_bytes", zeros.len(), case.number::<usize>("pad_bytes")?)?;
    same(
        "padded_len",
        block.len(),
        case.number::<usize>("padded_len")?,
    )?;
    same(
        "wire_body_len",
        block.len() + CHACHA20_POLY1305.tag_len(),
        case.number::<usize>("wire_body_len")?,
    )?;
    same("padding is zero", zeros.iter().all(|byte| *byte == 0), true)?;
    let message = unpad(block).map_err(|error| error.to_string())?;
    same("unpadded", message == vec![0xa5; length], true)
}

fn unpadding(case: &Case<'_>) -> Outcome {
    let prefix = case.number::<u32>("length_prefix")?.to_le_bytes();
    let mut block = BytesMut::zeroed(case.length("padded_len")?);
    for (byte, prefix) in block.iter_mut().zip(prefix) {
        *byte = prefix;
    }
    if case
        .text("name")
        .is_ok_and(|name| name.contains("last byte non-zero"))
    {
        *block.last_mut().ok_or("an empty block has no last byte")? = 1;
    }
    let unpadded = unpad(block.freeze());
    same("accepted", unpadded.is_ok(), case.flag("accepted")?)?;
    match unpadded {
        Ok(message) if !case.is_null("unpadded_len") => same(
            "unpadded_len",
            message.len(),
            case.number::<usize>("unpadded_len")?,
        ),
        _ => Ok(()),
    }
}

pub(super) fn valid(case: &Case<'_>) -> Outcome {
    let frame = case.hex("envelope")?;
    let odd = case.text("name")?.starts_with("odd but accepted");
    let parts = parts(case)?;
    header_and_sizes(case, &frame, &parts, odd)?;
    if !odd {
        let rebuilt = rebuild::envelope(case, &parts)?;
        same_bytes("rebuilt envelope", &rebuilt, &frame)?;
    }
    let hashes = case.object("recipient_result")?.list("parts_blake2b256")?;
    same("number of parts", parts.len(), hashes.len())?;
    for (part, hash) in parts.iter().zip(hashes) {
        same_bytes("hash of a part", &receive::hash(part), &hash.own_hex()?)?;
    }
    results(case, &frame)
}

/// Compares the public parts of the sealed envelope with the case.
fn header_and_sizes(case: &Case<'_>, frame: &Bytes, parts: &[Bytes], odd: bool) -> Outcome {
    let raw = RawEnvelope::parse(frame.clone()).map_err(|error| error.to_string())?;
    if !odd {
        same("canonical", raw.is_canonical(), true)?;
    }
    let sealed = raw.into_sealed().map_err(|error| error.to_string())?;
    let mut expected = header(case)?;
    expected.signature = sealed.header().signature.clone();
    expected.ephemeral_key = sealed.header().ephemeral_key;
    same("header", sealed.header(), &expected)?;
    same(
        "tag",
        sealed.header().tag,
        MessageTag(case.number("message_tag")?),
    )?;
    same(
        "encoded_body_len",
        encode_parts(parts).len(),
        case.number::<usize>("encoded_body_len")?,
    )?;
    same(
        "wire_body_len",
        sealed.body().len(),
        case.number::<usize>("wire_body_len")?,
    )?;

    let verified = sealed.verify().map_err(|error| error.to_string())?;
    let signer = match case.text("kind")? {
        "encrypted" => case.optional_key("masked_sender_public")?,
        "cleartext-signed" => Some(case.key("sender_public")?),
        "cleartext-unsigned" => None,
        other => return Err(format!("unknown kind {other}")),
    };
    if !odd {
        same("signer", verified.signer(), signer.as_ref())?;
        if let Destination::PublicKey(key) = verified.header().destination {
            same(
                "encrypted for another",
                !verified.header().is_encrypted() || key == case.key("recipient_public")?,
                true,
            )?;
        }
    }
    Ok(())
}

pub(super) fn invalid(case: &Case<'_>) -> Outcome {
    case.text("kind")?; // which of them it is, the checker has seen
    same(
        "accepted at the recipient",
        case.object("recipient_result")?.flag("accepted")?,
        false,
    )?;
    results(case, &case.hex("envelope")?)
}

/// Compares the conclusions of the recipient and of an unrelated node with the case.
fn results(case: &Case<'_>, frame: &Bytes) -> Outcome {
    same(
        "sender's key",
        case.secret("sender_secret")?.public_key(),
        case.key("sender_public")?,
    )?;
    let recipient = receive::node(case.secret("recipient_secret")?);
    same(
        "recipient's key",
        *recipient.public_key(),
        case.key("recipient_public")?,
    )?;
    let relay = receive::unrelated();
    for (field, node) in [("recipient_result", recipient), ("relay_result", relay)] {
        let expected = ReceiveResult::expected(&case.object(field)?)?;
        receive(frame.clone(), &node)
            .matches(&expected)
            .map_err(|error| format!("{field}: {error}"))?;
    }
    Ok(())
}

/// The parts as described: in hex, or by seed and length.
fn parts(case: &Case<'_>) -> Outcome<Vec<Bytes>> {
    let part = |part: &Case<'_>| {
        let bytes = if part.is_null("seed") {
            part.hex("hex")?
        } else {
            part.generated("len", "seed")?
        };
        if !part.is_null("hex") {
            same_bytes("part", &bytes, &part.hex("hex")?)?;
        }
        same(
            "length of a part",
            bytes.len(),
            part.number::<usize>("len")?,
        )?;
        Ok(bytes)
    };
    case.list("parts")?.iter().map(part).collect()
}
