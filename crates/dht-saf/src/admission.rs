//! Whether a message in transit is kept: the decision procedure of
//! `docs/protocol/05-store-and-forward.md` section 2. Pure; the caller brings the facts.

use dht_core::{Destination, MessageType, PublicKey, UnixSeconds};
use dht_mailbox::Retention;

/// What is known about a message when it reaches the store layer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// How often the dedup layer has counted it, this time included.
    pub hits: u32,
    /// Bytes of the encrypted body, or of the envelope parts if it was readable.
    pub body_bytes: u64,
    /// The header's `expires`.
    pub expires: Option<UnixSeconds>,
    /// The header's type.
    pub message_type: MessageType,
    /// The header's destination.
    pub destination: &'a Destination,
    /// Who signed it, where this node can tell.
    pub origin: Option<&'a PublicKey>,
    /// Clear text, or decrypted by this node.
    pub readable: bool,
    /// Whether the header carries a message signature.
    pub signed: bool,
}

/// This node and its neighbourhood.
pub trait Surroundings {
    /// Whether this node offers store-and-forward.
    fn stores(&self) -> bool;
    /// This node's key.
    fn own_key(&self) -> &PublicKey;
    /// Whether that peer is known and banned at present.
    fn is_banned(&self, key: &PublicKey) -> bool;
    /// Whether that key lies in this node's region (section 2.1).
    fn in_region(&self, key: &PublicKey) -> bool;
}

/// What to do with a message. Only [`Decision::Skip`] with [`Skip::leaves_mark_unset`] leaves the "stored" mark unset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// Keep it, in this class.
    Store(Retention),
    /// Pass it on without keeping it.
    Skip(Skip),
}

/// Why a message is not kept; one for each row of the table that says "skip".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Skip {
    /// Row 1: seen before.
    Duplicate,
    /// Row 2: this node does not store.
    NotAStore,
    /// Row 3: no body.
    Empty,
    /// Row 4: past its time.
    Expired,
    /// Row 5: larger than one message may be.
    TooLarge,
    /// Row 6: a store-and-forward message.
    SafMessage,
    /// Row 7: Join, Discovery or its response.
    DhtMessage,
    /// Row 8: this node's own.
    OwnMessage,
    /// Row 9: this node could read it.
    Readable,
    /// Row 10: nobody signed it.
    Unsigned,
    /// Row 11: addressed to this node.
    ForThisNode,
    /// Row 12: its origin is banned.
    OriginBanned,
    /// Row 13: a Discovery without destination.
    UndirectedDiscovery,
    /// Row 15: addressed out of this node's region.
    OutOfRegion,
    /// Row 16: its destination is banned.
    DestinationBanned,
}

/// Decides whether to keep a message; the first matching row of the table counts.
///
/// ```
/// # use dht_core::{Destination, MessageType, PublicKey, UnixSeconds, SecretKey, SeededEntropy, Entropy};
/// use dht_saf::{Candidate, Decision, Retention, Surroundings, decide};
///
/// struct Alone(PublicKey);
/// impl Surroundings for Alone {
///     fn stores(&self) -> bool { true }
///     fn own_key(&self) -> &PublicKey { &self.0 }
///     fn is_banned(&self, _: &PublicKey) -> bool { false }
///     fn in_region(&self, _: &PublicKey) -> bool { true }
/// }
/// # let mut rng = SeededEntropy::new(1).rng();
/// # let mut key = || SecretKey::random(&mut rng).public_key();
/// let away = Destination::PublicKey(key());
/// let message = Candidate {
///     hits: 1, body_bytes: 6_000, expires: None, message_type: MessageType::None,
///     destination: &away, origin: None, readable: false, signed: true,
/// };
/// let decision = decide(&message, &Alone(key()), 524_288, UnixSeconds(1_700_000_000));
/// assert_eq!(decision, Decision::Store(Retention::High));
/// ```
pub fn decide(
    message: &Candidate<'_>,
    here: &impl Surroundings,
    max_body_bytes: u64,
    now: UnixSeconds,
) -> Decision {
    match skip(message, here, max_body_bytes, now) {
        Err(reason) => Decision::Skip(reason),
        Ok(retention) => Decision::Store(retention),
    }
}

impl Skip {
    /// Rows 1 and 2 end before the mark "not stored" is set; everywhere else it is set.
    #[must_use]
    pub const fn leaves_mark_unset(self) -> bool {
        matches!(self, Self::Duplicate | Self::NotAStore)
    }

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
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

/// The table itself, row by row.
fn skip(
    message: &Candidate<'_>,
    here: &impl Surroundings,
    max_body_bytes: u64,
    now: UnixSeconds,
) -> Result<Retention, Skip> {
    let unless = |condition: bool, reason: Skip| if condition { Err(reason) } else { Ok(()) };
    unless(message.hits > 1, Skip::Duplicate)?;
    unless(!here.stores(), Skip::NotAStore)?;
    unless(message.body_bytes == 0, Skip::Empty)?;
    unless(
        message.expires.is_some_and(|expires| expires < now),
        Skip::Expired,
    )?;
    unless(message.body_bytes > max_body_bytes, Skip::TooLarge)?;
    unless(message.message_type.is_saf(), Skip::SafMessage)?;
    unless(message.message_type.is_dht(), Skip::DhtMessage)?;
    unless(message.origin == Some(here.own_key()), Skip::OwnMessage)?;
    unless(message.readable, Skip::Readable)?;
    unless(!message.signed, Skip::Unsigned)?;
    let destination = message.destination.public_key();
    unless(destination == Some(here.own_key()), Skip::ForThisNode)?;
    unless(
        message.origin.is_some_and(|origin| here.is_banned(origin)),
        Skip::OriginBanned,
    )?;
    let Some(destination) = destination else {
        // Row 13 is shadowed by row 7 and kept as the table has it.
        unless(
            message.message_type == MessageType::Discovery,
            Skip::UndirectedDiscovery,
        )?;
        return Ok(Retention::Low);
    };
    unless(!here.in_region(destination), Skip::OutOfRegion)?;
    unless(here.is_banned(destination), Skip::DestinationBanned)?;
    Ok(Retention::High)
}

#[cfg(test)]
mod tests;
