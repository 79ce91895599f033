//! What may be wrong with a stored message, and what follows: sections 8.1 and 8.2 as one table.

use dht_core::{AttributionProfile, Severity};

/// What is wrong with one stored message, in the order of the checks (section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Row 1: there is no header.
    NoHeader,
    /// Row 2: there is no body.
    EmptyBody,
    /// Row 3: stored in the future.
    StoredInFuture,
    /// Stored longer ago than anybody keeps mail: a replay (section 14). Not in the reference.
    StoredTooLongAgo,
    /// Row 4: a header field does not convert.
    BadHeader,
    /// Row 5: encrypted, but without what that takes.
    BadSemantics,
    /// Row 6: Join, Discovery or its response.
    DhtMessage,
    /// Row 7: a store-and-forward message.
    SafMessage,
    /// Row 8: addressed to somebody else.
    WrongDestination,
    /// Rows 9 and 12: the signature does not decode, or is not in its canonical encoding.
    UndecodableSignature,
    /// Rows 9 and 12: the signature does not hold.
    BadSignature,
    /// Rows 10 and 11: addressed here, and does not open.
    Undecryptable,
    /// Row 13: clear, and not an envelope body.
    UndecodableBody,
    /// Row 14: seen before.
    Duplicate,
}

/// What follows from a [`Fault`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ruling {
    /// Whether the whole answer is let go, not only this message.
    pub abort: bool,
    /// How long to ban whoever answered, if at all.
    pub ban: Option<Severity>,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRule {
    /// What is wrong.
    pub fault: Fault,
    /// A short name for logs and metrics.
    pub name: &'static str,
    /// The reason of a ban, for people.
    pub text: &'static str,
    /// What follows in the strict profile: the answerer is blamed for what it did itself, never for bytes that
    /// somebody else signed.
    pub strict: Ruling,
    /// What follows in the legacy profile, as in the reference.
    pub legacy: Ruling,
}

const SKIP: Ruling = Ruling {
    abort: false,
    ban: None,
};

const fn skip_and_ban(severity: Severity) -> Ruling {
    Ruling {
        abort: false,
        ban: Some(severity),
    }
}

const fn abort_and_ban(severity: Severity) -> Ruling {
    Ruling {
        abort: true,
        ban: Some(severity),
    }
}

/// What is wrong with an answer of more messages than were asked for. It is let go whole, and whoever gave it banned with
/// [`Severity::High`], in both profiles.
pub const TOO_MANY_MESSAGES: &str = "answered with more stored messages than were asked for";

macro_rules! table {
    ($($fault:ident $name:literal $text:literal: strict $strict:expr, legacy $legacy:expr;)+) => {
        /// Every fault, in the order of the checks.
        pub const FAULT_RULES: &[FaultRule] = &[$(*Fault::$fault.rule()),+];

        impl Fault {
            /// The row of the table.
            #[must_use]
            pub const fn rule(self) -> &'static FaultRule {
                // One constant per fault, so that a missing row does not compile.
                match self {
                    $(Self::$fault => &const { FaultRule {
                        fault: Self::$fault,
                        name: $name,
                        text: $text,
                        strict: $strict,
                        legacy: $legacy,
                    } },)+
                }
            }
        }
    };
}

use Severity::{High, Medium};

#[rustfmt::skip]
table! {
    NoHeader "no_header" "answered with a stored message without a header":
        strict skip_and_ban(Medium), legacy abort_and_ban(Medium);
    EmptyBody "empty_body" "answered with a stored message without a body":
        strict skip_and_ban(Medium), legacy abort_and_ban(Medium);
    StoredInFuture "stored_in_future" "answered with a message stored in the future":
        strict skip_and_ban(High), legacy abort_and_ban(High);
    StoredTooLongAgo "stored_too_long_ago" "answered with a message older than any store keeps":
        strict SKIP, legacy SKIP;
    BadHeader "bad_header" "answered with a stored message whose header does not convert":
        strict SKIP, legacy abort_and_ban(Medium);
    BadSemantics "bad_semantics" "answered with an encrypted message that lacks destination, keys or signature":
        strict SKIP, legacy abort_and_ban(High);
    DhtMessage "dht_message" "answered with a DHT message":
        strict skip_and_ban(High), legacy abort_and_ban(High);
    SafMessage "saf_message" "answered with a store-and-forward message":
        strict skip_and_ban(High), legacy abort_and_ban(High);
    WrongDestination "wrong_destination" "answered with a message for somebody else":
        strict skip_and_ban(High), legacy abort_and_ban(High);
    UndecodableSignature "undecodable_signature" "answered with a message whose signature does not decode":
        strict SKIP, legacy abort_and_ban(Medium);
    BadSignature "bad_signature" "answered with a message whose signature does not hold":
        strict SKIP, legacy abort_and_ban(High);
    Undecryptable "undecryptable" "answered with a message that does not decrypt":
        strict SKIP, legacy SKIP;
    UndecodableBody "undecodable_body" "answered with a clear message whose body does not decode":
        strict SKIP, legacy abort_and_ban(Medium);
    Duplicate "duplicate" "answered with a message seen before":
        strict SKIP, legacy SKIP;
}

impl FaultRule {
    /// What follows under a profile.
    #[must_use]
    pub const fn ruling(&self, profile: AttributionProfile) -> Ruling {
        match profile {
            AttributionProfile::Strict => self.strict,
            AttributionProfile::Legacy => self.legacy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_blames_no_one_for_relayed_bytes() {
        for fault in [
            Fault::BadHeader,
            Fault::BadSemantics,
            Fault::UndecodableSignature,
            Fault::BadSignature,
            Fault::Undecryptable,
            Fault::UndecodableBody,
        ] {
            assert_eq!(fault.rule().strict, SKIP, "{fault:?}");
        }
        assert!(
            FAULT_RULES.iter().all(|rule| !rule.strict.abort),
            "good messages are delivered"
        );
    }

    #[test]
    fn legacy_aborts_wherever_it_bans() {
        for rule in FAULT_RULES {
            assert_eq!(
                rule.legacy.abort,
                rule.legacy.ban.is_some(),
                "{}",
                rule.name
            );
        }
    }
}
