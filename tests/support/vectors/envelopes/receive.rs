//! The receiver's side: docs/protocol/01-identity-and-envelope.md section 7, stages 1 to 9.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use bytes::Bytes;
use dht_core::{
    Content, Entropy, Features, HeaderError, NodeIdentity, OpenError, RawEnvelope, SecretKey,
    SeededEntropy, UnixSeconds, VerifyError,
};
use dht_proto::DecodeError;

use super::super::case::{Case, Outcome, same, same_bytes};

/// A day in 2025: every expiry of the vectors lies before it or in 2100.
const NOW: UnixSeconds = UnixSeconds(1_760_000_000);

/// Conclusion of a node about an envelope.
#[derive(Debug, PartialEq)]
pub(super) enum ReceiveResult {
    Accepted {
        dedup_hash: Bytes,
        opened: Option<Opened>,
    },
    Refused {
        stage: &'static str,
        reason: &'static str,
    },
    /// A refusal as a vector file spells it.
    Expected {
        stage: String,
        reason: String,
        bans_source: bool,
    },
}

/// Readable parts of an accepted envelope.
#[derive(Debug, PartialEq)]
pub(super) struct Opened {
    /// The authenticated sender's key in hex.
    sender: Option<String>,
    /// BLAKE2b-256 of each part.
    parts: Vec<Bytes>,
}

/// A full node with this secret.
pub(super) fn node(secret: SecretKey) -> NodeIdentity {
    NodeIdentity::new(
        secret,
        Features::NODE,
        Vec::new(),
        NOW,
        &mut SeededEntropy::new(1).rng(),
    )
}

/// A node no vector is addressed to.
pub(super) fn unrelated() -> NodeIdentity {
    node(SecretKey::random(&mut SeededEntropy::new(2).rng()))
}

pub(super) fn receive(frame: Bytes, node: &NodeIdentity) -> ReceiveResult {
    accept(frame, node).unwrap_or_else(|(stage, reason)| ReceiveResult::Refused { stage, reason })
}

fn accept(
    frame: Bytes,
    node: &NodeIdentity,
) -> Result<ReceiveResult, (&'static str, &'static str)> {
    let raw = RawEnvelope::parse(frame).map_err(|error| match error {
        DecodeError::Empty => ("decode", "EmptyMessage"),
        _ => ("decode", "ProtobufDecode"),
    })?;
    let sealed = raw
        .into_sealed()
        .map_err(|error| ("header", header_reason(&error)))?;
    if sealed.header().is_expired(NOW) {
        return Err(("filter", "Expired"));
    }
    let verified = sealed.verify().map_err(|error| match error {
        VerifyError::Semantics => ("validate", "BadEncryptedMessageSemantics"),
        _ => ("validate", "InvalidSignature"),
    })?;
    let dedup_hash = Bytes::copy_from_slice(&verified.dedup_hash().0);
    let opened = verified.open(node).map_err(|error| match error {
        OpenError::Undecryptable => ("validate", "MessageRejectDecryptionFailed"),
        OpenError::UndecodableBody => ("validate", "EnvelopeBodyDecodeFailed"),
        _ => ("validate", "unknown"),
    })?;
    let opened = match opened.content {
        Content::Readable { parts, origin } => Some(Opened {
            sender: origin.map(|key| key.to_string()),
            parts: parts.iter().map(hash).collect(),
        }),
        Content::Unreadable => None,
    };
    Ok(ReceiveResult::Accepted { dedup_hash, opened })
}

/// BLAKE2b-256.
pub(super) fn hash(part: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&Blake2b::<U32>::digest(part))
}

fn header_reason(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::Missing => "HeaderOmitted",
        HeaderError::Destination => "InvalidDestination",
        HeaderError::EphemeralKey => "InvalidEphemeralPublicKey",
        HeaderError::Version(_) => "InvalidProtocolVersion",
        HeaderError::MessageType(_) => "InvalidMessageType",
        HeaderError::Flags(_) => "InvalidMessageFlags",
        _ => "unknown",
    }
}

// === impl ReceiveResult ===

impl ReceiveResult {
    /// Reads a `recipient_result` or `relay_result`.
    pub(super) fn expected(result: &Case<'_>) -> Outcome<Self> {
        if !result.flag("accepted")? {
            let (stage, reason) = (
                result.text("stage")?.to_owned(),
                result.text("reason")?.to_owned(),
            );
            return Ok(Self::Expected {
                stage,
                reason,
                bans_source: result.flag("ban_source")?,
            });
        }
        let opened = if result.flag("opened")? {
            let parts = result
                .list("parts_blake2b256")?
                .iter()
                .map(Case::own_hex)
                .collect::<Outcome<Vec<_>>>()?;
            same(
                "number of parts",
                result.number::<usize>("parts")?,
                parts.len(),
            )?;
            Some(Opened {
                sender: result
                    .optional_key("sender_public")?
                    .map(|key| key.to_string()),
                parts,
            })
        } else {
            None
        };
        Ok(Self::Accepted {
            dedup_hash: result.hex("dedup_hash")?,
            opened,
        })
    }

    pub(super) fn matches(&self, expected: &Self) -> Outcome {
        match (self, expected) {
            (
                Self::Accepted { dedup_hash, opened },
                Self::Accepted {
                    dedup_hash: expected,
                    opened: inside,
                },
            ) => {
                same_bytes("dedup hash", dedup_hash, expected)?;
                same("opened", opened, inside)
            }
            (
                Self::Refused { stage, reason },
                Self::Expected {
                    stage: at,
                    reason: expected,
                    bans_source,
                },
            ) => {
                same("stage", *stage, at.as_str())?;
                same("reason", *reason, expected.as_str())?;
                // Only what every hop can check is held against the hop that passed it on.
                let blamed = matches!(*reason, "InvalidSignature" | "BadEncryptedMessageSemantics");
                same("ban of the source", blamed, *bans_source)
            }
            _ => Err(format!("{self:?}, expected {expected:?}")),
        }
    }
}
