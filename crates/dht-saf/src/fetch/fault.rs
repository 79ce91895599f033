//! Why a stored message is refused, and what follows beside a ban: 05 sections 8.1 and 8.2.

use dht_peers::policy::{AttributionProfile, Offence};

/// Fault of one stored message, in the order of the checks (05 section 8.1). Row 14, a message seen before, is
/// no fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Fault {
    /// Row 1: the message has no header.
    NoHeader,
    /// Row 2: the message has no body.
    EmptyBody,
    /// Row 3: the message was stored further in the future than clocks may differ.
    StoredInFuture,
    /// The message was stored longer ago than any node stores messages: a replay (05 section 14). Not in the reference.
    StoredTooLongAgo,
    /// Row 4: a header field does not convert.
    BadHeader,
    /// Row 5: the message is encrypted, and lacks destination, keys or signature.
    BadSemantics,
    /// Row 6: the message is a join, a discovery or a discovery response.
    DhtMessage,
    /// Row 7: the message is a store-and-forward message.
    SafMessage,
    /// Row 8: the message is addressed to another key.
    WrongDestination,
    /// Rows 9 and 12: the signature does not decode, or is not in its canonical encoding.
    UndecodableSignature,
    /// Rows 9 and 12: the signature does not hold.
    BadSignature,
    /// Rows 10 and 11: the message is addressed to this node and does not decrypt.
    Undecryptable,
    /// Row 13: the message is clear and its body does not decode.
    UndecodableBody,
}

impl Fault {
    /// Every fault, in the order of the checks.
    #[cfg(test)]
    const ALL: [Self; 13] = [
        Self::NoHeader,
        Self::EmptyBody,
        Self::StoredInFuture,
        Self::StoredTooLongAgo,
        Self::BadHeader,
        Self::BadSemantics,
        Self::DhtMessage,
        Self::SafMessage,
        Self::WrongDestination,
        Self::UndecodableSignature,
        Self::BadSignature,
        Self::Undecryptable,
        Self::UndecodableBody,
    ];

    /// The name for logs and metrics, and the offence, if the fault is one under some profile.
    const fn rule(self) -> (&'static str, Option<Offence>) {
        match self {
            Self::NoHeader => ("no_header", Some(Offence::SafNoHeader)),
            Self::EmptyBody => ("empty_body", Some(Offence::SafEmptyBody)),
            Self::StoredInFuture => ("stored_in_future", Some(Offence::SafStoredInFuture)),
            Self::StoredTooLongAgo => ("stored_too_long_ago", None),
            Self::BadHeader => ("bad_header", Some(Offence::SafBadHeader)),
            Self::BadSemantics => ("bad_semantics", Some(Offence::SafBadSemantics)),
            Self::DhtMessage => ("dht_message", Some(Offence::SafDhtMessage)),
            Self::SafMessage => ("saf_message", Some(Offence::SafSafMessage)),
            Self::WrongDestination => ("wrong_destination", Some(Offence::SafWrongDestination)),
            Self::UndecodableSignature => (
                "undecodable_signature",
                Some(Offence::SafUndecodableSignature),
            ),
            Self::BadSignature => ("bad_signature", Some(Offence::SafBadSignature)),
            Self::Undecryptable => ("undecryptable", None),
            Self::UndecodableBody => ("undecodable_body", Some(Offence::SafUndecodableBody)),
        }
    }

    /// A short name for logs and metrics.
    pub(super) const fn name(self) -> &'static str {
        self.rule().0
    }

    /// The offence of the responder, if the fault is one under some profile.
    pub(super) const fn offence(self) -> Option<Offence> {
        self.rule().1
    }

    /// Whether the whole response is dropped, not only this message: in the legacy profile wherever the responder is
    /// banned, in the strict profile never.
    pub(super) fn aborts(self, profile: AttributionProfile) -> bool {
        profile == AttributionProfile::Legacy
            && self
                .offence()
                .is_some_and(|offence| offence.penalty(profile).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_never_aborts() {
        for fault in Fault::ALL {
            assert!(!fault.aborts(AttributionProfile::Strict), "{fault:?}");
        }
    }

    #[test]
    fn legacy_aborts_where_it_bans() {
        let banned = |fault: Fault| {
            let penalty = |offence: Offence| offence.penalty(AttributionProfile::Legacy);
            fault.offence().and_then(penalty).is_some()
        };
        for fault in Fault::ALL {
            assert_eq!(fault.aborts(AttributionProfile::Legacy), banned(fault));
        }
    }

    #[test]
    fn offences_are_named_after_faults() {
        for fault in Fault::ALL {
            let name = fault.offence().map(|offence| offence.rule().name);
            let expected = format!("saf_{}", fault.name());
            assert!(name.is_none_or(|name| name == expected), "{fault:?}");
        }
    }
}
