//! The table of offences: what is banned, whom, how long, and which section of the specification says so.

use dht_core::Severity::High;

use super::{
    AttributionProfile,
    Party::{Deliverer, Origin, Peer, Sought},
    Penalty, Term,
};

/// Something a peer must not do, in the order of the stack: connections, inbound messages, stored messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Offence {
    /// Sent an identity that does not decode or breaks a limit.
    MalformedIdentity,
    /// Sent an identity with an address that no node may advertise.
    RefusedAddress,
    /// Sent an identity that is not validly signed.
    ForgedIdentity,
    /// Sent an identity of a version that this node does not speak.
    IdentityVersion,
    /// Connected and did not send its identity in time.
    IdentityTimeout,
    /// Broke the rules of protocol negotiation.
    Negotiation,
    /// Sent a messaging frame over the limit.
    FrameTooLong,
    /// More messages than the flood limit.
    Flood,
    /// Delivered an encrypted message without what encryption takes.
    BadSemantics,
    /// Delivered a message whose signature does not hold.
    BadSignature,
    /// Delivered a message that was addressed to itself.
    OwnMessage,
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
    /// Delivered a discovery response that another node signed.
    ResponseOfOther,
    /// Signed a discovery response for another key.
    ResponseForOther,
    /// Answered a discovery for another node with its own key.
    ResponseWrongKey,
    /// Signed a discovery response with a claim its owner did not sign.
    ResponseForgedClaim,
    /// Signed a discovery response with a claim that breaks another rule.
    ResponseRefusedClaim,
    /// Signed gossip the application rejected.
    RejectedGossip,
    /// Answered with more stored messages than were asked for.
    SafTooManyMessages,
    /// Answered with a stored message without a header.
    SafNoHeader,
    /// Answered with a stored message without a body.
    SafEmptyBody,
    /// Answered with a message stored in the future.
    SafStoredInFuture,
    /// Answered with a stored message whose header does not convert.
    SafBadHeader,
    /// Answered with an encrypted message that lacks destination, keys or signature.
    SafBadSemantics,
    /// Answered with a DHT message.
    SafDhtMessage,
    /// Answered with a store-and-forward message.
    SafSafMessage,
    /// Answered with a message for another node.
    SafWrongDestination,
    /// Answered with a message whose signature does not decode.
    SafUndecodableSignature,
    /// Answered with a message whose signature does not hold.
    SafBadSignature,
    /// Answered with a clear message whose body does not decode.
    SafUndecodableBody,
    /// Told of more peers than it was asked for.
    SyncTooManyPeers,
    /// Told of one peer twice in an answer.
    SyncDuplicate,
    /// Told of a peer without a key, or with fields that do not convert.
    SyncUnconvertible,
    /// Told of a peer with a claim that the peer did not sign.
    SyncForgedClaim,
    /// Told of a peer with a claim that breaks another rule.
    SyncRefusedClaim,
    /// Broke the RPC protocol, or answered with what does not decode.
    SyncProtocol,
    /// Did not answer a request for peers in time.
    SyncTimeout,
    /// Answered a request for peers with a status other than ok.
    SyncStatus,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Offence that this row is about.
    pub offence: Offence,
    /// Short name for logs and metrics, unique in the table.
    pub name: &'static str,
    /// Reason of the ban, for people.
    pub text: &'static str,
    /// Document and section of the specification (`docs/protocol`) behind the row.
    pub section: &'static str,
    /// Party that could make an honest node commit the offence, or look as if it had; `None` if only the node's own
    /// software could. A row with such a party bans no peer in the strict profile.
    pub framed_by: Option<&'static str>,
    /// Ban in the strict profile; `None` if no peer is banned.
    pub strict: Option<Penalty>,
    /// Ban in the legacy profile; `None` if no peer is banned.
    pub legacy: Option<Penalty>,
}

/// Every row, in the order of [`Offence`].
#[must_use]
pub const fn rules() -> &'static [Rule] {
    RULES
}

const TWO_MINUTES: Term = Term::Seconds(120);

macro_rules! table {
    ($($offence:ident $name:literal $text:literal $section:literal framed by $framed_by:expr => strict $strict:expr, legacy $legacy:expr;)+) => {
        const RULES: &[Rule] = &[$(*Offence::$offence.rule()),+];

        impl Offence {
            /// Row of this offence.
            #[must_use]
            pub const fn rule(self) -> &'static Rule {
                // One constant per offence, so that a missing row does not compile.
                match self {
                    $(Self::$offence => &const { Rule {
                        offence: Self::$offence,
                        name: $name,
                        text: $text,
                        section: $section,
                        framed_by: $framed_by,
                        strict: $strict,
                        legacy: $legacy,
                    } },)+
                }
            }
        }
    };
}

#[rustfmt::skip]
table! {
    MalformedIdentity "malformed_identity" "sent an identity that does not decode or breaks a limit" "02 4.3" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    RefusedAddress "refused_address" "sent an identity with an address nobody may advertise" "02 4.3" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    ForgedIdentity "forged_identity" "sent an identity that is not validly signed" "02 4.3" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    IdentityVersion "identity_version" "sent an identity of a version this node does not speak" "02 4.3" framed by None =>
        strict Penalty::new(Peer, High, TWO_MINUTES), legacy Penalty::new(Peer, High, TWO_MINUTES);
    IdentityTimeout "identity_timeout" "connected and did not send its identity in time" "02 4.3" framed by Some("anyone who slows its line or ours") =>
        strict None, legacy Penalty::new(Peer, High, TWO_MINUTES);
    Negotiation "negotiation" "broke the rules of protocol negotiation" "02 9.6" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    FrameTooLong "frame_too_long" "sent a messaging frame over the limit" "02 7" framed by None =>
        strict Penalty::new(Peer, High, Term::Short), legacy Penalty::new(Peer, High, Term::Short);
    Flood "flood" "sends more messages than the flood limit" "03 5" framed by Some("anyone whose messages it passes on") =>
        strict None, legacy Penalty::low(Deliverer);
    BadSemantics "bad_semantics" "delivered an encrypted message that lacks destination, keys, signature or body" "03 3.5" framed by Some("anyone whose messages it passes on") =>
        strict None, legacy Penalty::high(Deliverer);
    BadSignature "bad_signature" "delivered a message whose signature does not hold" "03 3.5" framed by Some("anyone whose messages it passes on") =>
        strict None, legacy Penalty::high(Deliverer);
    OwnMessage "own_message" "delivered a message that is addressed to itself" "03 3.10" framed by Some("anyone who writes to it what it cannot read") =>
        strict None, legacy Penalty::medium(Deliverer);
    AnonymousProtocolMessage "anonymous_protocol_message" "delivered an anonymous protocol message" "03 3.12" framed by None =>
        strict Penalty::low(Deliverer), legacy Penalty::low(Deliverer);
    UndecodableProtocolMessage "undecodable_protocol_message" "signed a protocol message that does not decode" "03 3.12" framed by None =>
        strict Penalty::high(Origin), legacy Penalty::high(Origin);
    JoinForOther "join_for_other" "signed a join for another key" "03 3.12 Join" framed by None =>
        strict Penalty::high(Origin), legacy Penalty::high(Origin);
    JoinForgedClaim "join_forged_claim" "signed a join with an invalid identity signature" "03 3.12 Join" framed by None =>
        strict Penalty::medium(Origin), legacy Penalty::medium(Origin);
    JoinRefusedClaim "join_refused_claim" "signed a join with an unacceptable claim" "03 9.3 F-8" framed by Some("its operator, whose settings or version differ from ours") =>
        strict None, legacy Penalty::medium(Origin);
    DiscoveryForOther "discovery_for_other" "signed a discovery for another key" "03 9.3 F-10" framed by None =>
        strict None, legacy Penalty::high(Origin);
    DiscoveryForgedClaim "discovery_forged_claim" "signed a discovery with an invalid identity signature" "03 9.3 F-8" framed by None =>
        strict Penalty::medium(Origin), legacy None;
    DiscoveryUnconvertible "discovery_unconvertible" "signed a discovery whose fields do not convert" "03 9.3 F-8" framed by Some("its operator, whose settings or version differ from ours") =>
        strict None, legacy Penalty::high(Origin);
    ResponseOfOther "response_of_other" "discovery response not delivered by its signer" "03 9.3 F-11" framed by None =>
        strict Penalty::medium(Deliverer), legacy Penalty::high(Origin);
    ResponseForOther "response_for_other" "signed a discovery response for another key" "03 3.12 DiscoveryResponse" framed by None =>
        strict Penalty::high(Origin), legacy Penalty::high(Origin);
    ResponseWrongKey "response_wrong_key" "discovery answered with the wrong key" "03 9.3 F-12" framed by None =>
        strict Penalty::medium(Origin), legacy Penalty::medium(Sought);
    ResponseForgedClaim "response_forged_claim" "answered a discovery with an invalid identity signature" "03 9.3 F-8" framed by None =>
        strict Penalty::medium(Origin), legacy Penalty::high(Origin);
    ResponseRefusedClaim "response_refused_claim" "answered a discovery with an unacceptable claim" "03 9.3 F-8" framed by Some("its operator, whose settings or version differ from ours") =>
        strict None, legacy Penalty::high(Origin);
    RejectedGossip "rejected_gossip" "signed gossip the application rejected" "03 library" framed by None =>
        strict Penalty::medium(Origin), legacy None;
    SafTooManyMessages "saf_too_many_messages" "answered with more stored messages than were asked for" "05 8" framed by None =>
        strict Penalty::high(Deliverer), legacy Penalty::high(Deliverer);
    SafNoHeader "saf_no_header" "answered with a stored message without a header" "05 8.1" framed by None =>
        strict Penalty::medium(Deliverer), legacy Penalty::medium(Deliverer);
    SafEmptyBody "saf_empty_body" "answered with a stored message without a body" "05 8.1" framed by None =>
        strict Penalty::medium(Deliverer), legacy Penalty::medium(Deliverer);
    SafStoredInFuture "saf_stored_in_future" "answered with a message stored in the future" "05 8.1" framed by Some("anyone who sets its clock or ours wrong") =>
        strict None, legacy Penalty::high(Deliverer);
    SafBadHeader "saf_bad_header" "answered with a stored message whose header does not convert" "05 8.1" framed by Some("anyone whose messages it stores") =>
        strict None, legacy Penalty::medium(Deliverer);
    SafBadSemantics "saf_bad_semantics" "answered with an encrypted message that lacks destination, keys or signature" "05 8.1" framed by Some("anyone whose messages it stores") =>
        strict None, legacy Penalty::high(Deliverer);
    SafDhtMessage "saf_dht_message" "answered with a DHT message" "05 8.1" framed by None =>
        strict Penalty::high(Deliverer), legacy Penalty::high(Deliverer);
    SafSafMessage "saf_saf_message" "answered with a store-and-forward message" "05 8.1" framed by None =>
        strict Penalty::high(Deliverer), legacy Penalty::high(Deliverer);
    SafWrongDestination "saf_wrong_destination" "answered with a message for somebody else" "05 8.1" framed by None =>
        strict Penalty::high(Deliverer), legacy Penalty::high(Deliverer);
    SafUndecodableSignature "saf_undecodable_signature" "answered with a message whose signature does not decode" "05 8.1" framed by Some("anyone whose messages it stores") =>
        strict None, legacy Penalty::medium(Deliverer);
    SafBadSignature "saf_bad_signature" "answered with a message whose signature does not hold" "05 8.1" framed by Some("anyone whose messages it stores") =>
        strict None, legacy Penalty::high(Deliverer);
    SafUndecodableBody "saf_undecodable_body" "answered with a clear message whose body does not decode" "05 8.1" framed by Some("anyone whose messages it stores") =>
        strict None, legacy Penalty::medium(Deliverer);
    SyncTooManyPeers "sync_too_many_peers" "told of more peers than it was asked for" "06 7.2" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    SyncDuplicate "sync_duplicate" "told of one peer twice in an answer" "06 7.2" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    SyncUnconvertible "sync_unconvertible" "told of a peer whose fields do not convert" "06 7.2" framed by Some("its operator, whose settings or version differ from ours") =>
        strict None, legacy Penalty::high(Peer);
    SyncForgedClaim "sync_forged_claim" "told of a peer with an invalid identity signature" "06 5" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    SyncRefusedClaim "sync_refused_claim" "told of a peer with an unacceptable claim" "06 5" framed by Some("the peer that it tells of, whose settings or version differ from ours") =>
        strict None, legacy Penalty::high(Peer);
    SyncProtocol "sync_protocol" "broke the RPC protocol when asked for peers" "06 7.2" framed by None =>
        strict Penalty::high(Peer), legacy Penalty::high(Peer);
    SyncTimeout "sync_timeout" "did not answer in time when asked for peers" "06 7.2" framed by Some("anyone who slows its line or ours") =>
        strict None, legacy Penalty::high(Peer);
    SyncStatus "sync_status" "answered with a failure when asked for peers" "06 7.2" framed by Some("anyone who keeps it busy") =>
        strict None, legacy Penalty::low(Peer);
}

impl Offence {
    /// Ban that follows under a profile; `None` if no peer is banned.
    #[must_use]
    pub const fn penalty(self, profile: AttributionProfile) -> Option<Penalty> {
        match profile {
            AttributionProfile::Strict => self.rule().strict,
            AttributionProfile::Legacy => self.rule().legacy,
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::Severity;

    use super::*;
    use crate::policy::BanTerms;

    #[test]
    fn every_offence_has_one_row() {
        for (at, rule) in rules().iter().enumerate() {
            assert_eq!(rule.offence.rule(), rule);
            let earlier = &rules()[..at];
            assert!(
                earlier
                    .iter()
                    .all(|other| other.name != rule.name && other.text != rule.text)
            );
            assert!(earlier.iter().all(|other| other.offence < rule.offence));
        }
    }

    #[test]
    fn strict_never_blames_relays() {
        // Only the signer can know of these.
        let relayed = [
            Offence::BadSemantics,
            Offence::BadSignature,
            Offence::SafBadHeader,
            Offence::SafBadSemantics,
            Offence::SafUndecodableSignature,
            Offence::SafBadSignature,
            Offence::SafUndecodableBody,
        ];
        assert!(
            relayed
                .iter()
                .all(|offence| offence.rule().strict.is_none())
        );
        // Only the peer that was looked for could be blamed, and it did nothing.
        let strict = rules().iter().filter_map(|rule| rule.strict);
        assert!(strict.into_iter().all(|penalty| penalty.party != Sought));
    }

    #[test]
    fn strict_bans_no_framed_peer() {
        for rule in rules() {
            assert!(
                rule.framed_by.is_none() || rule.strict.is_none(),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn every_row_bans_in_some_profile() {
        for rule in rules() {
            assert!(
                rule.strict.is_some() || rule.legacy.is_some(),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn severity_sets_the_term() {
        let terms = BanTerms::default();
        for rule in rules() {
            for penalty in [rule.strict, rule.legacy].into_iter().flatten() {
                let seconds = terms.seconds(penalty.term);
                match (rule.offence, penalty.severity) {
                    (Offence::IdentityVersion | Offence::IdentityTimeout, _) => {
                        assert_eq!(seconds, 120)
                    }
                    (Offence::FrameTooLong, _) | (_, Severity::Low | Severity::Medium) => {
                        assert_eq!(seconds, 600)
                    }
                    (_, High) => assert_eq!(seconds, 7_200),
                }
            }
        }
    }
}
