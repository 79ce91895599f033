//! `multiaddr`.

use dht_core::{Address, AddressPolicy};

use super::case::{Case, Outcome, same, same_bytes};

pub(super) fn multiaddr(case: &Case<'_>) -> Outcome {
    if case.has("parses") {
        let parsed = case.text("text")?.parse::<Address>();
        same("parses", parsed.is_ok(), case.flag("parses")?)?;
        return parsed.map_or(Ok(()), |address| {
            same_bytes("bytes", address.as_bytes(), &case.hex("bytes")?)
        });
    }
    if case.has("decodes") {
        let decoded = Address::from_bytes(case.hex("bytes")?);
        same("decodes", decoded.is_ok(), case.flag("decodes")?)?;
        return decoded.map_or(Ok(()), |address| {
            same("display", address.to_string(), case.text("display")?)
        });
    }
    let address: Address = case
        .text("text")?
        .parse()
        .map_err(|error| format!("does not parse: {error}"))?;
    let bytes = case.hex("bytes")?;
    same_bytes("bytes", address.as_bytes(), &bytes)?;
    same("display", address.to_string(), case.text("display")?)?;
    same(
        "decoded bytes",
        Address::from_bytes(bytes).as_ref(),
        Ok(&address),
    )?;
    for (field, allow_test) in [
        ("peer_address_ok", false),
        ("peer_address_ok_test_mode", true),
    ] {
        let verdict = address.check_policy(&AddressPolicy { allow_test });
        same(field, verdict.is_ok(), case.flag(field)?)?;
    }
    Ok(())
}
