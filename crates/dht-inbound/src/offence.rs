//! Who is banned for what: the one table that code, documentation and the operator's tools read.
//!
//! Specification 03, sections 3 and 4, names each row. *Legacy* is what the network's first implementation does,
//! *strict* blames only what is proven: a relay never for bytes somebody else signed, a signer never for a message
//! somebody else delivered, unless the message alone proves guilt.

use dht_core::Severity;
pub use dht_core::{AttributionProfile, UnknownProfile};

/// Something a peer should not have done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Offence {
    /// More messages than the flood limit.
    Flood,
    /// Sent messages without being known.
    UnknownSource,
    /// Delivered an encrypted message without what encryption takes.
    BadSemantics,
    /// Delivered a message whose signature does not hold.
    BadSignature,
    /// Delivered a message that was addressed to itself.
    OwnMail,
    /// Delivered an anonymous join, discovery or discovery response.
    AnonymousProtocolMessage,
    /// Signed a protocol message that does not decode.
    UndecodableProtocolMessage,
    /// Signed a join for another key.
    JoinForOther,
    /// Signed a join with a claim its owner did not sign.
    JoinForgedClaim,
    /// Signed a join with a claim that breaks another rule.
    JoinRefusedClaim,
    /// Signed a discovery for another key.
    DiscoveryForOther,
    /// Signed a discovery with a claim its owner did not sign.
    DiscoveryForgedClaim,
    /// Signed a discovery whose fields do not convert.
    DiscoveryUnconvertible,
    /// Delivered a discovery response somebody else signed.
    ResponseOfOther,
    /// Signed a discovery response for another key.
    ResponseForOther,
    /// Answered a discovery for somebody else with its own key.
    ResponseWrongKey,
    /// Signed a discovery response with a claim its owner did not sign.
    ResponseForgedClaim,
    /// Signed a discovery response with a claim that breaks another rule.
    ResponseRefusedClaim,
    /// Signed gossip the application rejected.
    RejectedGossip,
}

/// Which party to a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Culprit {
    /// The neighbour that delivered it.
    Source,
    /// The authenticated signer.
    Origin,
    /// The peer that was being looked for.
    Sought,
}

/// How long a ban lasts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Term {
    /// [`BanTerms::short_seconds`].
    Short,
    /// [`BanTerms::long_seconds`].
    Long,
    /// This many seconds.
    Seconds(u64),
}

/// What an offence brings, and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sanction {
    /// Who.
    pub culprit: Culprit,
    /// How grave it is.
    pub severity: Severity,
    /// For how long.
    pub term: Term,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What was done.
    pub offence: Offence,
    /// A short name for logs and metrics.
    pub name: &'static str,
    /// The reason of the ban, for people.
    pub text: &'static str,
    /// Where the specification says so.
    pub section: &'static str,
    /// What it brings in the strict profile.
    pub strict: Option<Sanction>,
    /// What it brings in the legacy profile.
    pub legacy: Option<Sanction>,
}

/// The lengths behind [`Term`], in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanTerms {
    /// For low and medium severity; defaults to 600 (10 min).
    pub short_seconds: u64,
    /// For high severity; defaults to 7 200 (2 h).
    pub long_seconds: u64,
}

/// Every offence, in the order of the stack.
#[must_use]
pub const fn rules() -> &'static [Rule] {
    RULES
}

const fn low(culprit: Culprit) -> Option<Sanction> {
    Some(Sanction {
        culprit,
        severity: Severity::Low,
        term: Term::Short,
    })
}

const fn medium(culprit: Culprit) -> Option<Sanction> {
    Some(Sanction {
        culprit,
        severity: Severity::Medium,
        term: Term::Short,
    })
}

const fn high(culprit: Culprit) -> Option<Sanction> {
    Some(Sanction {
        culprit,
        severity: Severity::High,
        term: Term::Long,
    })
}

const fn five_minutes(culprit: Culprit) -> Option<Sanction> {
    Some(Sanction {
        culprit,
        severity: Severity::Low,
        term: Term::Seconds(300),
    })
}

const NOBODY: Option<Sanction> = None;

macro_rules! table {
    ($($offence:ident $name:literal $text:literal $section:literal : strict $strict:expr, legacy $legacy:expr;)+) => {
        const RULES: &[Rule] = &[$(*Offence::$offence.rule()),+];

        impl Offence {
            /// The row of the table.
            #[must_use]
            pub const fn rule(self) -> &'static Rule {
                // One constant per offence, so that a missing row does not compile.
                match self {
                    $(Self::$offence => &const { Rule {
                        offence: Self::$offence,
                        name: $name,
                        text: $text,
                        section: $section,
                        strict: $strict,
                        legacy: $legacy,
                    } },)+
                }
            }
        }
    };
}

use Culprit::{Origin, Sought, Source};

#[rustfmt::skip]
table! {
    Flood "flood" "sends more messages than the flood limit" "5":
        strict low(Source), legacy low(Source);
    UnknownSource "unknown_source" "sends messages without being a known peer" "9.3 F-3":
        strict five_minutes(Source), legacy NOBODY;
    BadSemantics "bad_semantics" "delivered an encrypted message that lacks destination, keys, signature or body" "3.5":
        strict NOBODY, legacy high(Source);
    BadSignature "bad_signature" "delivered a message whose signature does not hold" "3.5":
        strict NOBODY, legacy high(Source);
    OwnMail "own_mail" "delivered a message that is addressed to itself" "3.10":
        strict medium(Source), legacy medium(Source);
    AnonymousProtocolMessage "anonymous_protocol_message" "delivered an anonymous protocol message" "3.12":
        strict low(Source), legacy low(Source);
    UndecodableProtocolMessage "undecodable_protocol_message" "signed a protocol message that does not decode" "3.12":
        strict high(Origin), legacy high(Origin);
    JoinForOther "join_for_other" "signed a join for another key" "3.12 Join":
        strict high(Origin), legacy high(Origin);
    JoinForgedClaim "join_forged_claim" "signed a join with an invalid identity signature" "3.12 Join":
        strict medium(Origin), legacy medium(Origin);
    JoinRefusedClaim "join_refused_claim" "signed a join with an unacceptable claim" "9.3 F-8":
        strict NOBODY, legacy medium(Origin);
    DiscoveryForOther "discovery_for_other" "signed a discovery for another key" "9.3 F-10":
        strict high(Origin), legacy NOBODY;
    DiscoveryForgedClaim "discovery_forged_claim" "signed a discovery with an invalid identity signature" "9.3 F-8":
        strict medium(Origin), legacy NOBODY;
    DiscoveryUnconvertible "discovery_unconvertible" "signed a discovery whose fields do not convert" "9.3 F-8":
        strict NOBODY, legacy high(Origin);
    ResponseOfOther "response_of_other" "discovery response not delivered by its signer" "9.3 F-11":
        strict medium(Source), legacy high(Origin);
    ResponseForOther "response_for_other" "signed a discovery response for another key" "3.12 DiscoveryResponse":
        strict high(Origin), legacy high(Origin);
    ResponseWrongKey "response_wrong_key" "discovery answered with the wrong key" "9.3 F-12":
        strict medium(Origin), legacy medium(Sought);
    ResponseForgedClaim "response_forged_claim" "answered a discovery with an invalid identity signature" "9.3 F-8":
        strict medium(Origin), legacy high(Origin);
    ResponseRefusedClaim "response_refused_claim" "answered a discovery with an unacceptable claim" "9.3 F-8":
        strict NOBODY, legacy high(Origin);
    RejectedGossip "rejected_gossip" "signed gossip the application rejected" "library":
        strict medium(Origin), legacy NOBODY;
}

impl Rule {
    /// What the offence brings under a profile.
    #[must_use]
    pub const fn sanction(&self, profile: AttributionProfile) -> Option<Sanction> {
        match profile {
            AttributionProfile::Strict => self.strict,
            AttributionProfile::Legacy => self.legacy,
        }
    }
}

impl BanTerms {
    /// The seconds of a term.
    #[must_use]
    pub const fn seconds(&self, term: Term) -> u64 {
        match term {
            Term::Short => self.short_seconds,
            Term::Long => self.long_seconds,
            Term::Seconds(seconds) => seconds,
        }
    }
}

impl Default for BanTerms {
    fn default() -> Self {
        Self {
            short_seconds: Severity::Low.default_seconds(),
            long_seconds: Severity::High.default_seconds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offence_has_one_row() {
        for (at, rule) in rules().iter().enumerate() {
            assert_eq!(rule.offence.rule(), rule);
            assert!(rules()[..at].iter().all(|other| other.name != rule.name));
        }
    }

    #[test]
    fn strict_never_blames_a_relay_for_what_only_the_signer_can_know() {
        let relayed = [Offence::BadSemantics, Offence::BadSignature];
        assert!(
            relayed
                .iter()
                .all(|offence| offence.rule().strict.is_none())
        );
        // Nobody but the peer that was looked for could be blamed for being looked for.
        assert!(rules().iter().all(|rule| {
            rule.strict
                .is_none_or(|sanction| sanction.culprit != Sought)
        }));
    }

    #[test]
    fn profiles_are_read_as_they_are_written() {
        for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!("Strict".parse::<AttributionProfile>(), Err(UnknownProfile));
    }

    #[test]
    fn severity_sets_the_term() {
        let terms = BanTerms::default();
        for rule in rules() {
            for sanction in [rule.strict, rule.legacy].into_iter().flatten() {
                let seconds = terms.seconds(sanction.term);
                match sanction.severity {
                    _ if rule.offence == Offence::UnknownSource => assert_eq!(seconds, 300),
                    Severity::Low | Severity::Medium => assert_eq!(seconds, 600),
                    Severity::High => assert_eq!(seconds, 7_200),
                }
            }
        }
    }
}
