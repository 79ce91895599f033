//! Seals a message for a recipient and opens it again.

use dht_core::{
    Clock, Destination, Encryption, Entropy, Features, NodeIdentity, OsEntropy, RawEnvelope,
    SealRequest, SealSecrets, SecretKey, SystemClock, encode_parts, seal,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (rng, now) = (&mut OsEntropy.rng(), SystemClock.now());
    let alice = SecretKey::random(rng);
    let bob = NodeIdentity::new(SecretKey::random(rng), Features::NODE, vec![], now, rng);

    let body = encode_parts(&["hello, Bob".into()]);
    // Encrypted messages are signed with a masked key, whatever `signing` says.
    let request = SealRequest {
        destination: Destination::PublicKey(*bob.public_key()),
        encryption: Encryption::EncryptFor(*bob.public_key()),
        expires: Some(now.saturating_add(3_600)),
        ..SealRequest::new(body, &alice)
    };
    let frame = seal(request, SealSecrets::random(rng))?.to_frame();
    println!("sealed: {} bytes, {}", frame.len(), bob.public_key());

    let verified = RawEnvelope::parse(frame)?.into_sealed()?.verify()?;
    println!("verified: signed by the masked key {:?}", verified.signer());
    let opened = verified.open(&bob)?;
    println!("opened: {:?} from {:?}", opened.parts(), opened.origin());
    assert_eq!(opened.origin(), Some(&alice.public_key()));
    Ok(())
}
