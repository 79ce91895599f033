//! Sealing, verifying and opening one envelope on one thread.

use bytes::Bytes;
use dht_core::{
    Destination, DomainHeader, Encryption, Entropy, FingerprintKey, MessageTag, MessageType,
    ProtocolVersion, PublicKey, RawEnvelope, SealRequest, SealSecrets, SecretKey, SeededEntropy,
    Signing, domain_parts, encode_envelope, encode_parts, seal, test_util,
};

use crate::{
    primitives::Floors,
    report::{Report, Row},
    sample::{Effort, micros, micros_with},
};

const SIZES: [(&str, usize); 3] = [("100", 100), ("6k", 5_900), ("60k", 60_000)];

/// Kinds of frames Alice (seed 1) sends to Bob (seed 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Clear and unsigned.
    Clear,
    /// Clear and signed.
    Signed,
    /// Encrypted for Bob.
    ToBob,
    /// Encrypted for Carol (seed 3), for Bob to pass on.
    ToCarol,
}

/// One frame around a payload of `bytes`.
pub(crate) fn frame_of(kind: Kind, bytes: usize, seed: u64) -> anyhow::Result<Bytes> {
    let (alice, to) = PEOPLE.with(|people| match kind {
        Kind::ToCarol => (people.0.clone(), people.2),
        _ => (people.0.clone(), people.1),
    });
    frame(&alice, to, kind, bytes, seed)
}

const fn signing(kind: Kind) -> Signing {
    match kind {
        Kind::Signed => Signing::Origin,
        _ => Signing::Anonymous,
    }
}

thread_local! {
    static PEOPLE: (SecretKey, PublicKey, PublicKey) = (
        test_util::identity(1).secret_key().clone(),
        test_util::public_key(2),
        test_util::public_key(3),
    );
}

fn frame(
    sender: &SecretKey,
    to: PublicKey,
    kind: Kind,
    bytes: usize,
    seed: u64,
) -> anyhow::Result<Bytes> {
    let (destination, encryption) = match kind {
        Kind::Clear | Kind::Signed => (Destination::Unknown, Encryption::Clear),
        Kind::ToBob | Kind::ToCarol => (Destination::PublicKey(to), Encryption::EncryptFor(to)),
    };
    let parts = domain_parts(
        DomainHeader {
            message_type: 1,
            nonce: seed,
        },
        vec![7; bytes].into(),
    );
    let request = SealRequest {
        body: encode_parts(&parts),
        message_type: MessageType::None,
        destination,
        encryption,
        sender,
        signing: signing(kind),
        expires: Some(test_util::NOW.saturating_add(3_600)),
        tag: MessageTag(seed),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(
        request,
        SealSecrets::random(&mut SeededEntropy::new(seed).rng()),
    )?;
    Ok(encode_envelope(&sealed.header, &sealed.body))
}

pub(crate) fn run(report: &mut Report, effort: Effort, floors: &Floors) -> anyhow::Result<()> {
    let bob = test_util::identity(2);
    for (name, bytes) in SIZES {
        let frame = frame_of(Kind::ToBob, bytes, 5)?;
        let body = frame.len();
        // A buffer of its own for each, as a received frame has.
        let fresh = || Bytes::from(frame.to_vec());

        let mut seed = 0;
        report.row(
            Row::new(
                &format!("envelope.seal.{name}"),
                "us",
                "one body sealed for a recipient, and its frame encoded",
            )
            .floor(floors.seal(body)),
            || {
                micros(effort, || {
                    seed += 1;
                    frame_of(Kind::ToBob, bytes, seed).ok()
                })
            },
        );
        report.row(
            Row::new(
                &format!("envelope.verify.{name}"),
                "us",
                "one frame parsed and its signature checked",
            )
            .floor(floors.verify(body)),
            || {
                micros_with(effort, fresh, |frame| {
                    RawEnvelope::parse(frame)
                        .ok()?
                        .into_sealed()
                        .ok()?
                        .verify()
                        .ok()
                })
            },
        );
        report.row(
            Row::new(
                &format!("envelope.open.{name}"),
                "us",
                "one frame parsed, verified and decrypted",
            )
            .floor(floors.open(body)),
            || {
                micros_with(effort, fresh, |frame| {
                    RawEnvelope::parse(frame)
                        .ok()?
                        .into_sealed()
                        .ok()?
                        .verify()
                        .ok()?
                        .open(&bob)
                        .ok()
                })
            },
        );
        let key = FingerprintKey::random(&mut SeededEntropy::new(3).rng());
        let name = format!("envelope.fingerprint.{name}");
        let row = Row::new(&name, "us", "one frame parsed and compared with those seen");
        report.row(row, || {
            micros_with(effort, fresh, |frame| {
                Some(RawEnvelope::parse(frame).ok()?.fingerprint(&key))
            })
        });
    }
    Ok(())
}
