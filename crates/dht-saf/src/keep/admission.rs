//! The admission rule: which messages in transit are stored. Specification 05 section 2, row by row.
//!
//! Pure: the caller supplies the facts about the message and about this node.

use dht_core::{Destination, MessageType, PublicKey, UnixSeconds};
use dht_mailbox::Retention;

/// A message that may be stored, as the store layer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// How often the dedup table has seen it, this time included.
    pub(crate) occurrences: u32,
    /// Length of the encrypted body, or of the envelope parts of a readable message, in bytes.
    pub(crate) body_bytes: u64,
    pub(crate) expires: Option<UnixSeconds>,
    pub(crate) message_type: MessageType,
    pub(crate) destination: &'a Destination,
    /// Authenticated sender, if this node can tell.
    pub(crate) origin: Option<&'a PublicKey>,
    /// Whether the content is clear text, or was decrypted by this node.
    pub(crate) readable: bool,
    /// Whether the header carries a message signature.
    pub(crate) signed: bool,
}

/// Facts about this node and its neighbourhood that the admission rule reads.
pub(crate) trait LocalView {
    /// Whether this node stores messages for others.
    fn stores(&self) -> bool;
    /// This node's key.
    fn own_key(&self) -> &PublicKey;
    /// Whether the directory bans this key at present.
    fn is_banned(&self, key: &PublicKey) -> bool;
    /// Whether the key lies in this node's region (05 section 2.1).
    fn in_region(&self, key: &PublicKey) -> bool;
}

/// Why a message is not stored; one variant for each row of the table that says "skip".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum StoreRejection {
    /// Row 1: the message was seen before.
    Duplicate,
    /// Row 2: this node does not store.
    NotAStore,
    /// Row 3: the body is empty.
    Empty,
    /// Row 4: the message has expired.
    Expired,
    /// Row 5: the body is larger than one message may be.
    TooLarge,
    /// Row 6: a store-and-forward message.
    SafMessage,
    /// Row 7: Join, Discovery or its response.
    DhtMessage,
    /// Row 8: this node is the origin.
    OwnMessage,
    /// Row 9: this node can read the content.
    Readable,
    /// Row 10: the message carries no signature.
    Unsigned,
    /// Row 11: the message is addressed to this node.
    ForThisNode,
    /// Row 12: the origin is banned.
    OriginBanned,
    /// Row 13: a Discovery without destination.
    UndirectedDiscovery,
    /// Row 15: the destination is outside this node's region.
    OutOfRegion,
    /// Row 16: the destination is banned.
    DestinationBanned,
}

/// Decides whether a message is stored, and how long it is retained; the first matching row of the table counts.
pub(crate) fn admit(
    message: &Candidate<'_>,
    here: &impl LocalView,
    max_body_bytes: u64,
    now: UnixSeconds,
) -> Result<Retention, StoreRejection> {
    let unless = |condition: bool, reason: StoreRejection| match condition {
        true => Err(reason),
        false => Ok(()),
    };
    unless(message.occurrences > 1, StoreRejection::Duplicate)?;
    unless(!here.stores(), StoreRejection::NotAStore)?;
    unless(message.body_bytes == 0, StoreRejection::Empty)?;
    unless(
        message.expires.is_some_and(|expires| expires < now),
        StoreRejection::Expired,
    )?;
    unless(
        message.body_bytes > max_body_bytes,
        StoreRejection::TooLarge,
    )?;
    unless(message.message_type.is_saf(), StoreRejection::SafMessage)?;
    unless(message.message_type.is_dht(), StoreRejection::DhtMessage)?;
    unless(
        message.origin == Some(here.own_key()),
        StoreRejection::OwnMessage,
    )?;
    unless(message.readable, StoreRejection::Readable)?;
    unless(!message.signed, StoreRejection::Unsigned)?;
    let destination = message.destination.public_key();
    unless(
        destination == Some(here.own_key()),
        StoreRejection::ForThisNode,
    )?;
    unless(
        message.origin.is_some_and(|origin| here.is_banned(origin)),
        StoreRejection::OriginBanned,
    )?;
    let Some(destination) = destination else {
        // Row 13 is shadowed by row 7 and kept as the table has it.
        unless(
            message.message_type == MessageType::Discovery,
            StoreRejection::UndirectedDiscovery,
        )?;
        return Ok(Retention::Low);
    };
    unless(!here.in_region(destination), StoreRejection::OutOfRegion)?;
    unless(
        here.is_banned(destination),
        StoreRejection::DestinationBanned,
    )?;
    Ok(Retention::High)
}

impl StoreRejection {
    /// Rows 1 and 2 end before the mark "not stored" is set on the message; all later rows set it.
    pub(crate) const fn leaves_message_unmarked(self) -> bool {
        matches!(self, Self::Duplicate | Self::NotAStore)
    }

    /// Label in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::NotAStore => "not_a_store",
            Self::Empty => "empty",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::SafMessage => "saf_message",
            Self::DhtMessage => "dht_message",
            Self::OwnMessage => "own_message",
            Self::Readable => "readable",
            Self::Unsigned => "unsigned",
            Self::ForThisNode => "for_this_node",
            Self::OriginBanned => "origin_banned",
            Self::UndirectedDiscovery => "undirected_discovery",
            Self::OutOfRegion => "out_of_region",
            Self::DestinationBanned => "destination_banned",
        }
    }
}

#[cfg(test)]
mod tests;
