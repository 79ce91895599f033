//! For what this crate asks that a peer be banned: one table that code, documentation and the operator's tools read.

use std::time::Duration;

/// One row of [`BAN_RULES`]: the same for every attribution profile, because the handshake has proven who it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanRule {
    /// A short name for logs and metrics.
    pub name: &'static str,
    /// What was done, for people.
    pub text: &'static str,
    /// Where the specification says so: `docs/protocol/02-transport-and-connectivity.md`.
    pub section: &'static str,
    /// For how long.
    pub length: Duration,
}

const fn rule(
    name: &'static str,
    text: &'static str,
    section: &'static str,
    seconds: u64,
) -> BanRule {
    BanRule {
        name,
        text,
        section,
        length: Duration::from_secs(seconds),
    }
}

const HOURS: u64 = 60 * 60;

pub(crate) const MALFORMED_IDENTITY: BanRule = rule(
    "malformed_identity",
    "sent an identity that does not decode or breaks a limit",
    "4.3",
    2 * HOURS,
);
pub(crate) const REFUSED_ADDRESS: BanRule = rule(
    "refused_address",
    "sent an identity with an address nobody may advertise",
    "4.3",
    2 * HOURS,
);
pub(crate) const FORGED_IDENTITY: BanRule = rule(
    "forged_identity",
    "sent an identity that is not validly signed",
    "4.3",
    2 * HOURS,
);
pub(crate) const IDENTITY_VERSION: BanRule = rule(
    "identity_version",
    "sent an identity of a version this node does not speak",
    "4.3",
    120,
);
pub(crate) const IDENTITY_TIMEOUT: BanRule = rule(
    "identity_timeout",
    "connected and did not send its identity in time",
    "4.3",
    120,
);
pub(crate) const NEGOTIATION: BanRule = rule(
    "negotiation",
    "broke the rules of protocol negotiation",
    "9.6",
    2 * HOURS,
);
pub(crate) const FRAME_TOO_LONG: BanRule = rule(
    "frame_too_long",
    "sent a messaging frame over the limit",
    "7",
    10 * 60,
);

/// Every rule.
pub const BAN_RULES: &[BanRule] = &[
    MALFORMED_IDENTITY,
    REFUSED_ADDRESS,
    FORGED_IDENTITY,
    IDENTITY_VERSION,
    IDENTITY_TIMEOUT,
    NEGOTIATION,
    FRAME_TOO_LONG,
];
