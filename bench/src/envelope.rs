//! Sealing, verifying and opening one envelope on one thread.

use bytes::Bytes;
use dht_core::{
    Destination, DomainHeader, Encryption, Entropy, FingerprintKey, MessageTag, MessageType,
    NodeIdentity, ProtocolVersion, RawEnvelope, SealRequest, SealSecrets, SeededEntropy, Signing,
    domain_parts, encode_envelope, encode_parts, seal, test_util,
};

use crate::{
    primitives::Floors,
    report::Report,
    sample::{Effort, micros, micros_with},
};

const SIZES: [(&str, usize); 3] = [("100", 100), ("6k", 5_900), ("60k", 60_000)];

/// One sealed frame from seed 1 to seed 2 around a payload of `bytes`.
pub(crate) fn sealed_frame(
    sender: &NodeIdentity,
    recipient: &NodeIdentity,
    bytes: usize,
    seed: u64,
) -> anyhow::Result<Bytes> {
    let to = *recipient.public_key();
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
        destination: Destination::PublicKey(to),
        encryption: Encryption::EncryptFor(to),
        sender: sender.secret_key(),
        signing: Signing::Anonymous,
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
    let alice = test_util::identity(1);
    let bob = test_util::identity(2);
    for (name, bytes) in SIZES {
        let frame = sealed_frame(&alice, &bob, bytes, 5)?;
        let body = frame.len();
        // A buffer of its own for each, as a received frame has.
        let fresh = || Bytes::from(frame.to_vec());

        let mut seed = 0;
        report.row(
            &format!("envelope.seal.{name}"),
            "us",
            Some(floors.seal(body)),
            || {
                micros(effort, || {
                    seed += 1;
                    sealed_frame(&alice, &bob, bytes, seed).ok()
                })
            },
        );
        report.row(
            &format!("envelope.verify.{name}"),
            "us",
            Some(floors.verify(body)),
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
            &format!("envelope.open.{name}"),
            "us",
            Some(floors.open(body)),
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
        report.row(&format!("envelope.fingerprint.{name}"), "us", None, || {
            micros_with(effort, fresh, |frame| {
                Some(RawEnvelope::parse(frame).ok()?.fingerprint(&key))
            })
        });
    }
    Ok(())
}
