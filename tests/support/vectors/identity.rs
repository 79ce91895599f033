//! `identity_messages`.

use dht_core::{AddressPolicy, UnixSeconds};
use dht_transport::{IdentityRules, check_identity};

use super::case::{Case, Outcome, same};

/// A day in 2025.
const NOW: UnixSeconds = UnixSeconds(1_760_000_000);

pub(super) fn message(case: &Case<'_>) -> Outcome {
    let message = case.hex("message")?;
    same("length", message.len(), case.number::<usize>("length")?)?;
    let rules = IdentityRules {
        version: 0,
        addresses: AddressPolicy { allow_test: false },
    };
    let verdict = check_identity(message, &case.key("authenticated_public_key")?, &rules, NOW);
    // `result` names the reference's error and is for information only; but a case has one.
    let result = case.text("result")?;
    same("accepted", verdict.is_ok(), case.flag("accepted")?)
        .map_err(|error| format!("{error}: {verdict:?}, reference: {result}"))
}
