//! Outcome of a received message.

/// Outcome of a received message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Disposition {
    /// The application has taken it.
    Delivered,
    /// This node passed it on to other peers.
    Forwarded,
    /// This node stored it for an offline peer.
    Stored,
    /// A protocol message that this node acted on.
    Answered,
    /// This node discarded it.
    Dropped(DropReason),
}

/// Why a received message was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// The frame is empty.
    Empty,
    /// The frame is not a protobuf envelope, or exceeds a limit of the decoder.
    Undecodable,
    /// The frame differs from its own deterministic re-encoding.
    NotCanonical,
    /// A header field does not convert.
    BadHeader,
    /// The directory does not know the peer that delivered it.
    UnknownSource,
    /// It asks for a role that this node does not have.
    RoleFilter,
    /// Its expiry time has passed.
    Expired,
    /// It is encrypted, but lacks destination, ephemeral key, signature or body.
    BadSemantics,
    /// The signature does not cover header and body.
    BadSignature,
    /// It is addressed to this node and does not decrypt.
    Undecryptable,
    /// It is clear and its body does not decode.
    UndecodableBody,
    /// This node has received it before.
    Duplicate,
    /// This node has passed it on before and must not do so again.
    Rebroadcast,
    /// This node can neither read it nor pass it on.
    NotForUs,
    /// A protocol message with an invalid content.
    BadProtocolMessage,
    /// Its type requires a signature and it has none.
    Unauthenticated,
    /// This node sent it.
    OwnMessage,
    /// It comes from, or is about, a banned peer.
    Banned,
    /// An answer to a request that this node did not make.
    Unrequested,
    /// The application's validator refused it.
    Refused,
    /// It is for the application, and no application listens. Another copy is welcome.
    NobodyListens,
    /// It is for the application, whose inbox has room for nobody. Another copy is welcome.
    InboxFull,
    /// It is for the application, whose inbox has no more room for its deliverer or its origin. Another copy is welcome.
    InboxShareFull,
    /// It is for the application, whose inbox could not write it. Another copy is welcome.
    InboxFailed,
    /// A queue is full, or a rate limit was reached.
    Overload,
    /// A component of this node failed.
    Internal,
    /// A part of this node, perhaps the application's, panicked on it. Another copy would make it panic again, and is a
    /// duplicate.
    Panicked,
}

impl From<DropReason> for Disposition {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl Disposition {
    /// Short name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Forwarded => "forwarded",
            Self::Stored => "stored",
            Self::Answered => "answered",
            Self::Dropped(reason) => reason.name(),
        }
    }
}

impl DropReason {
    /// Whether the reason says nothing about the message: this node had no place for it, and takes another copy once
    /// it has.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::NobodyListens
                | Self::InboxFull
                | Self::InboxShareFull
                | Self::InboxFailed
                | Self::Overload
                | Self::Internal
        )
    }

    /// Every reason to drop a message.
    pub const ALL: [Self; 27] = [
        Self::Empty,
        Self::Undecodable,
        Self::NotCanonical,
        Self::BadHeader,
        Self::UnknownSource,
        Self::RoleFilter,
        Self::Expired,
        Self::BadSemantics,
        Self::BadSignature,
        Self::Undecryptable,
        Self::UndecodableBody,
        Self::Duplicate,
        Self::Rebroadcast,
        Self::NotForUs,
        Self::BadProtocolMessage,
        Self::Unauthenticated,
        Self::OwnMessage,
        Self::Banned,
        Self::Unrequested,
        Self::Refused,
        Self::NobodyListens,
        Self::InboxFull,
        Self::InboxShareFull,
        Self::InboxFailed,
        Self::Overload,
        Self::Internal,
        Self::Panicked,
    ];

    /// Its index in [`ALL`](Self::ALL), for tables of counts.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Short name for logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Undecodable => "undecodable",
            Self::NotCanonical => "not_canonical",
            Self::BadHeader => "bad_header",
            Self::UnknownSource => "unknown_source",
            Self::RoleFilter => "role_filter",
            Self::Expired => "expired",
            Self::BadSemantics => "bad_semantics",
            Self::BadSignature => "bad_signature",
            Self::Undecryptable => "undecryptable",
            Self::UndecodableBody => "undecodable_body",
            Self::Duplicate => "duplicate",
            Self::Rebroadcast => "rebroadcast",
            Self::NotForUs => "not_for_us",
            Self::BadProtocolMessage => "bad_protocol_message",
            Self::Unauthenticated => "unauthenticated",
            Self::OwnMessage => "own_message",
            Self::Banned => "banned",
            Self::Unrequested => "unrequested",
            Self::Refused => "refused",
            Self::NobodyListens => "nobody_listens",
            Self::InboxFull => "inbox_full",
            Self::InboxShareFull => "inbox_share_full",
            Self::InboxFailed => "inbox_failed",
            Self::Overload => "overload",
            Self::Internal => "internal",
            Self::Panicked => "panicked",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Tables of counts are indexed by reason.
    #[test]
    fn reasons_have_unique_indexes_and_names() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
        let kept = [
            Disposition::Delivered,
            Disposition::Forwarded,
            Disposition::Stored,
            Disposition::Answered,
        ];
        let names = kept.map(Disposition::name).into_iter();
        let names = names.chain(DropReason::ALL.map(DropReason::name));
        assert_eq!(
            names.collect::<BTreeSet<_>>().len(),
            kept.len() + DropReason::ALL.len()
        );
    }
}
