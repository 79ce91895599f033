//! Checks one stored message of a response: 05 section 8.1. No I/O, no clock.

use dht_core::{
    DedupHash, Destination, NodeIdentity, OpenError, Opened, RawEnvelope, UnixSeconds, VerifyError,
    dedup_key,
};
use dht_proto::{envelope::DhtEnvelope, store_forward::StoredMessage};

use super::fault::Fault;

/// A stored message that passed every check: signature holds, addressed to this node, decrypted.
#[derive(Clone, Debug)]
pub(super) struct ValidMessage {
    pub(super) opened: Opened,
    pub(super) hash: DedupHash,
    /// Second in which the responder stored it, on its clock.
    pub(super) stored_at: UnixSeconds,
    /// Whether the header carries a signature.
    pub(super) signed: bool,
    /// Length of header and body as received, in bytes.
    pub(super) bytes: usize,
}

/// State that [`check`] compares a message with.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckContext<'a> {
    pub(super) identity: &'a NodeIdentity,
    pub(super) now: UnixSeconds,
    /// Seconds by which the clock of a responder may be ahead.
    pub(super) tolerance_seconds: u64,
    /// Age in seconds beyond which a stored message is a replay.
    pub(super) max_age_seconds: u64,
}

/// Checks one stored message; the first failing row of 05 section 8.1 counts.
pub(super) fn check(
    message: StoredMessage,
    context: CheckContext<'_>,
) -> Result<ValidMessage, Fault> {
    let stored_at = UnixSeconds(message.stored_at);
    let header = message.dht_header.ok_or(Fault::NoHeader)?;
    if message.body.is_empty() {
        return Err(Fault::EmptyBody);
    }
    if stored_at > context.now.saturating_add(context.tolerance_seconds) {
        return Err(Fault::StoredInFuture);
    }
    if context.now.saturating_since(stored_at) > context.max_age_seconds {
        return Err(Fault::StoredTooLongAgo);
    }
    // One copy into a buffer of its own: the message is decrypted in it, and the response can be freed.
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
        Destination::PublicKey(key) if key != context.identity.public_key() => {
            return Err(Fault::WrongDestination);
        }
        _ => {}
    }
    let encrypted = sealed.header().is_encrypted();
    let verified = sealed.verify().map_err(|error| match error {
        VerifyError::Semantics => Fault::BadSemantics,
        VerifyError::BadSignature => Fault::BadSignature,
        _ => Fault::UndecodableSignature,
    })?;
    // Another encoding of the signature would give the same message another dedup hash.
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
        .open(context.identity)
        .map_err(|error| match error {
            OpenError::UndecodableBody => Fault::UndecodableBody,
            _ => Fault::Undecryptable,
        })?;
    Ok(ValidMessage {
        opened,
        hash,
        stored_at,
        signed,
        bytes,
    })
}

#[cfg(test)]
mod tests;
