//! Seals a message for a recipient and opens it again.

use bytes::Bytes;
use dht_core::{
    Clock, Destination, Encryption, Entropy, Features, MessageTag, MessageType, NodeIdentity,
    OsEntropy, ProtocolVersion, RawEnvelope, SealRequest, SealSecrets, SecretKey, Signing,
    SystemClock, encode_envelope, encode_parts, seal,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (rng, now) = (&mut OsEntropy.rng(), SystemClock.now());
    let alice = SecretKey::random(rng);
    let bob = NodeIdentity::new(SecretKey::random(rng), Features::NODE, vec![], now, rng);

    let request = SealRequest {
        body: encode_parts(&[Bytes::from_static(b"hello, Bob")]),
        message_type: MessageType::None,
        destination: Destination::PublicKey(*bob.public_key()),
        encryption: Encryption::EncryptFor(*bob.public_key()),
        sender: &alice,
        signing: Signing::Anonymous, // encrypted messages are always signed, with a masked key
        expires: Some(now.saturating_add(3_600)),
        tag: MessageTag(1),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(request, SealSecrets::random(rng))?;
    let frame = encode_envelope(&sealed.header, &sealed.body);
    println!("sealed: {} bytes, {}", frame.len(), bob.public_key());

    let verified = RawEnvelope::parse(frame)?.into_sealed()?.verify()?;
    println!("verified: signed by the masked key {:?}", verified.signer());
    let opened = verified.open(&bob)?;
    println!("opened: {:?} from {:?}", opened.parts(), opened.origin());
    assert_eq!(opened.origin(), Some(&alice.public_key()));
    Ok(())
}
