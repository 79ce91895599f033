//! What a returning peer accepts of an answer: sections 8 and 8.1. No I/O, no clock.
//!
//! Each message is checked by itself with [`check`]; [`settle`] then decides about all of them together: nothing is
//! recorded as seen before everything has been checked (defect D6), and in the strict profile good messages are
//! delivered whatever came with them.

use bytes::Bytes;
use dht_core::{
    AttributionProfile, DedupHash, Destination, NodeIdentity, OpenError, Opened, RawEnvelope,
    Severity, UnixSeconds, VerifyError, dedup_hash, dedup_key,
};
use dht_mailbox::DEFAULT_RESPONSE_BYTES;
use dht_proto::{envelope::DhtEnvelope, store_forward::StoredMessage};

use crate::fault::Fault;

/// A stored message that holds: signed, ours, open.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Header and parts.
    pub opened: Opened,
    /// Names the message.
    pub hash: DedupHash,
    /// When the answerer stored it, on its clock.
    pub stored_at: UnixSeconds,
    /// Whether somebody signed it.
    pub signed: bool,
    /// Bytes of header and body as received.
    pub bytes: usize,
}

/// What [`check`] compares with.
#[derive(Clone, Copy, Debug)]
pub struct Checks<'a> {
    /// This node.
    pub identity: &'a NodeIdentity,
    /// The present.
    pub now: UnixSeconds,
    /// Messages stored longer ago than this many seconds are replays.
    pub max_age_seconds: u64,
}

/// What came of an answer.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// To be delivered, the oldest first.
    pub accepted: Vec<Sound>,
    /// Messages this node had before.
    pub known: u64,
    /// Messages that were let go for another reason.
    pub refused: u64,
    /// The gravest ban of the answerer, and what for.
    pub ban: Option<(Severity, Fault)>,
    /// The answer as a whole was let go.
    pub aborted: bool,
    /// The newest `stored_at` of what is delivered; the reference's `LastSafMessageReceived`.
    pub newest: Option<UnixSeconds>,
    /// The newest `stored_at` of what is delivered or was known: how far the answerer has been read.
    pub reached: Option<UnixSeconds>,
}

/// The outline of an answer, from which one can tell whether there may be more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outline {
    messages: usize,
    bytes: usize,
    ascending: bool,
    /// Names the page, roughly: by its first and its last body.
    pub name: Option<DedupHash>,
}

/// An answer of this many bytes was cut by a byte budget of [`DEFAULT_RESPONSE_BYTES`]: one more message of the
/// largest size would not have fitted.
const FULL_BYTES: usize =
    DEFAULT_RESPONSE_BYTES - dht_proto::limits::MAX_STORED_BODY_BYTES - 16 * 1024;

/// Checks one stored message; the first failing row of section 8.1 counts.
///
/// # Errors
/// [`Fault`].
pub fn check(message: StoredMessage, checks: Checks<'_>) -> Result<Sound, Fault> {
    let stored_at = UnixSeconds(message.stored_at);
    let header = message.dht_header.ok_or(Fault::NoHeader)?;
    if message.body.is_empty() {
        return Err(Fault::EmptyBody);
    }
    if stored_at > checks.now {
        return Err(Fault::StoredInFuture);
    }
    if checks.now.saturating_since(stored_at) > checks.max_age_seconds {
        return Err(Fault::StoredTooLongAgo);
    }
    // One copy, into a buffer of its own: the message is decrypted there, and the answer can be let go.
    let frame = dht_proto::encode(&DhtEnvelope {
        header: Some(header),
        body: message.body,
    });
    let bytes = frame.len();
    let sealed = RawEnvelope::parse(frame)
        .map_err(|_| Fault::BadHeader)?
        .into_sealed()
        .map_err(|_| Fault::BadHeader)?;
    sealed.check_semantics().map_err(|_| Fault::BadSemantics)?;
    let kind = sealed.header().message_type;
    if kind.is_dht() {
        return Err(Fault::DhtMessage);
    }
    if kind.is_saf() {
        return Err(Fault::SafMessage);
    }
    match &sealed.header().destination {
        Destination::PublicKey(key) if key != checks.identity.public_key() => {
            return Err(Fault::WrongDestination);
        }
        _ => {}
    }
    let encrypted = sealed.header().is_encrypted();
    let verified = sealed.verify().map_err(|error| match error {
        VerifyError::Semantics(_) => Fault::BadSemantics,
        VerifyError::Signature(_) => Fault::UndecodableSignature,
        _ => Fault::BadSignature,
    })?;
    // Another encoding of the signature would give the same message another name.
    if !verified.signature_is_canonical() {
        return Err(Fault::UndecodableSignature);
    }
    let unreadable = if encrypted {
        Fault::Undecryptable
    } else {
        Fault::UndecodableBody
    };
    let hash = dedup_key(&verified).map_err(|_| unreadable)?;
    let signed = !verified.header().signature.is_empty();
    let opened = verified
        .open(checks.identity)
        .map_err(|error| match error {
            OpenError::UndecodableBody => Fault::UndecodableBody,
            _ => Fault::Undecryptable,
        })?;
    Ok(Sound {
        opened,
        hash,
        stored_at,
        signed,
        bytes,
    })
}

/// Decides about a whole answer. `is_new` records a message as seen and says whether it was not; it is asked only
/// about messages that would be delivered.
pub fn settle(
    checked: Vec<Result<Sound, Fault>>,
    profile: AttributionProfile,
    mut is_new: impl FnMut(&Sound) -> bool,
) -> Settled {
    let mut settled = Settled::default();
    for fault in checked.iter().filter_map(|checked| checked.as_ref().err()) {
        let ruling = fault.rule().ruling(profile);
        if let Some(severity) = ruling.ban
            && settled.ban.is_none_or(|(gravest, _)| severity > gravest)
        {
            settled.ban = Some((severity, *fault));
        }
        if ruling.abort {
            settled.aborted = true;
            // What stands behind it has not been looked at.
            settled.ban = ruling.ban.map(|severity| (severity, *fault));
            break;
        }
    }
    if settled.aborted {
        settled.refused = u64::try_from(checked.len()).unwrap_or(u64::MAX);
        return settled;
    }
    for sound in checked {
        let Ok(sound) = sound else {
            settled.refused = settled.refused.saturating_add(1);
            continue;
        };
        settled.reached = settled.reached.max(Some(sound.stored_at));
        if is_new(&sound) {
            settled.newest = settled.newest.max(Some(sound.stored_at));
            settled.accepted.push(sound);
        } else {
            settled.known = settled.known.saturating_add(1);
        }
    }
    // Answers come in either order; applications like to read in the order of arrival.
    settled.accepted.sort_by_key(|sound| sound.stored_at);
    settled
}

impl Outline {
    /// The outline of these messages.
    #[must_use]
    pub fn of(messages: &[StoredMessage]) -> Self {
        let at = |message: Option<&StoredMessage>| message.map_or(0, |message| message.stored_at);
        Self {
            messages: messages.len(),
            bytes: messages
                .iter()
                .map(|message| Bytes::len(&message.body))
                .fold(0, usize::saturating_add),
            ascending: at(messages.first()) <= at(messages.last()),
            name: messages
                .first()
                .zip(messages.last())
                .map(|(first, last)| dedup_hash(&first.body, &last.body)),
        }
    }

    /// Whether the answerer may hold more that a further request gets.
    ///
    /// One that serves the newest first leaves out the oldest, which no request gets: a repetition would only make
    /// it delete them (defects D1 and D2).
    #[must_use]
    pub const fn may_continue(&self, limit: usize) -> bool {
        let full = self.messages >= limit || self.bytes >= FULL_BYTES;
        self.messages > 0 && full && self.ascending
    }
}
