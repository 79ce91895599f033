//! `identity_messages`.

use bytes::Bytes;
use dht_core::{
    Address, AddressPolicy, Claim, Features, IdentitySignature, PublicKey, UnixSeconds,
};
use dht_proto::identity::PeerIdentityMsg;
use dht_proto::limits;

use super::case::{Case, Outcome, same};

/// A day in 2025.
const NOW: UnixSeconds = UnixSeconds(1_760_000_000);

pub(super) fn message(case: &Case<'_>) -> Outcome {
    let message = case.hex("message")?;
    same("length", message.len(), case.number::<usize>("length")?)?;
    let verdict = judge(message, &case.key("authenticated_public_key")?);
    same("accepted", verdict.is_ok(), case.flag("accepted")?).map_err(|error| {
        format!(
            "{error}: {verdict:?}, reference: {}",
            case.text("result").unwrap_or("?")
        )
    })
}

/// The checks of docs/protocol/01-identity-and-envelope.md section 5.3, in their order.
fn judge(message: Bytes, key: &PublicKey) -> Outcome {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let message: PeerIdentityMsg = dht_proto::decode(message).map_err(|error| text(&error))?;
    let require = |holds: bool, otherwise: &str| {
        if holds {
            Ok(())
        } else {
            Err(otherwise.to_owned())
        }
    };
    let protocols = &message.supported_protocols;
    require(
        protocols.len() <= limits::MAX_PROTOCOLS,
        "too many protocols",
    )?;
    let short = protocols
        .iter()
        .all(|protocol| protocol.len() <= limits::MAX_PROTOCOL_ID_BYTES);
    require(short, "protocol id too long")?;
    require(!message.addresses.is_empty(), "no addresses")?;
    require(
        message.addresses.len() <= limits::MAX_CLAIM_ADDRESSES,
        "too many addresses",
    )?;
    require(
        message.user_agent.len() <= limits::MAX_USER_AGENT_BYTES,
        "user agent too long",
    )?;
    let addresses = message
        .addresses
        .into_iter()
        .map(Address::from_bytes)
        .collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|error| text(&error))?;
    let features = Features::from_bits(message.features).map_err(|error| text(&error))?;
    let proto = message.identity_signature.ok_or("no identity signature")?;
    let signature = IdentitySignature::from_parts(
        proto.version,
        &proto.signature,
        &proto.public_nonce,
        proto.updated_at,
    );
    let signature = signature.map_err(|error| text(&error))?;
    for address in &addresses {
        address
            .check_policy(&AddressPolicy { allow_test: false })
            .map_err(|error| text(&error))?;
    }
    Claim {
        addresses,
        features,
        signature,
    }
    .verify(key, NOW)
    .map_err(|error| text(&error))
}
