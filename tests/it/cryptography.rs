//! Message encryption and signatures.

use bytes::{Bytes, BytesMut};
use curve25519_dalek::scalar::Scalar;
use dht_core::hash::{Hasher512, MESSAGE_SIGNATURE};
use dht_core::test_util::{encrypted, identity, parts};
use dht_core::{
    Content, Destination, Encryption, Header, KeyAgreement, MessageSignature, MessageTag,
    MessageType, NodeIdentity, OpenError, Opened, ProtocolVersion, RawEnvelope, SealRequest,
    SealSecrets, SecretKey, Signing, binding_hash, encode_envelope, encode_parts, seal,
};
use dht_proto::message_signature::ProtoMessageSignature;
use prost::Message;

#[test]
fn b028_decryption_gives_the_original() {
    let (from, to) = (identity(1), identity(2));
    let opened = open(encrypted(&from, to.public_key(), b"hello", 3), &to).unwrap();
    let origin = Some(*from.public_key());
    assert_eq!(
        opened.content,
        Content::Readable {
            parts: parts(b"hello"),
            origin
        }
    );
}

#[test]
fn b029_an_altered_tag_does_not_decrypt() {
    let alter = |body: &mut BytesMut| *body.last_mut().unwrap() ^= 0xff;
    assert_eq!(open_altered(alter).unwrap_err(), OpenError::Undecryptable);
}

#[test]
fn b030_altered_ciphertext_does_not_decrypt() {
    let alter = |body: &mut BytesMut| *body.first_mut().unwrap() ^= 0xff;
    assert_eq!(open_altered(alter).unwrap_err(), OpenError::Undecryptable);
    assert!(
        open_altered(|_| ()).is_ok(),
        "re-signing alone must not break it"
    );
}

#[test]
fn b031_foreign_exchange_key_decrypts_nothing() {
    let (from, to, other) = (identity(1), identity(2), identity(4));
    let sealed = Sender::seal(&from, &to);
    // The same ciphertext under a valid signature, addressed to somebody else.
    let header = Header {
        destination: Destination::PublicKey(*other.public_key()),
        ..sealed.header.clone()
    };
    let frame = sealed.sign(header, &sealed.body);
    assert_eq!(open(frame, &other).unwrap_err(), OpenError::Undecryptable);
}

#[test]
fn b038_signature_holds_for_one_message() {
    let signature = MessageSignature::sign_with_nonce(&secret(7), &[1; 32], &secret(9));
    assert!(signature.verify(&[1; 32]));
    assert!(!signature.verify(&[2; 32]));
}

/// A signature cannot be moved to a related key.
#[test]
fn b039_signature_binds_its_exact_key() {
    let message = [1; 32];
    let [key, shift] = [7_u64, 1000];
    let signature = MessageSignature::sign_with_nonce(&secret(key), &message, &secret(9));
    // P' = P + d·G and s' = s + e·d: holds wherever e does not depend on the key.
    let e = Hasher512::new(MESSAGE_SIGNATURE).chain(signature.signer().as_bytes());
    let e = Scalar::from_bytes_mod_order_wide(&e.chain(signature.nonce()).chain(&message).finish());
    let s = Scalar::from_canonical_bytes(*signature.scalar()).unwrap() + e * Scalar::from(shift);
    let forged = ProtoMessageSignature {
        signer_public_key: Bytes::copy_from_slice(secret(key + shift).public_key().as_bytes()),
        public_nonce: Bytes::copy_from_slice(signature.nonce()),
        signature: Bytes::copy_from_slice(s.as_bytes()),
    };
    assert!(
        !MessageSignature::decode(&forged.encode_to_vec())
            .unwrap()
            .verify(&message)
    );
    // The same shift with the challenge of the shifted key is no forgery: it needs that key's secret.
    assert!(
        MessageSignature::sign_with_nonce(&secret(key + shift), &message, &secret(9))
            .verify(&message)
    );
}

fn secret(number: u64) -> SecretKey {
    SecretKey::from_bytes(Scalar::from(number).as_bytes()).unwrap()
}

fn open(frame: Bytes, node: &NodeIdentity) -> Result<Opened, OpenError> {
    RawEnvelope::parse(frame)
        .unwrap()
        .into_sealed()
        .unwrap()
        .verify()
        .unwrap()
        .open(node)
}

/// Opens a message whose body was altered by somebody who can sign for it.
fn open_altered(alter: impl FnOnce(&mut BytesMut)) -> Result<Opened, OpenError> {
    let (from, to) = (identity(1), identity(2));
    let sealed = Sender::seal(&from, &to);
    let mut body = BytesMut::from(&sealed.body[..]);
    alter(&mut body);
    open(sealed.sign(sealed.header.clone(), &body), &to)
}

/// A sealed message together with what it takes to sign it again.
struct Sender {
    header: Header,
    body: Bytes,
    masked: SecretKey,
}

impl Sender {
    fn seal(from: &NodeIdentity, to: &NodeIdentity) -> Self {
        let destination = Destination::PublicKey(*to.public_key());
        let request = SealRequest {
            body: encode_parts(&parts(b"hello")),
            message_type: MessageType::None,
            destination,
            encryption: Encryption::EncryptFor(*to.public_key()),
            sender: from.secret_key(),
            signing: Signing::Origin,
            expires: None,
            tag: MessageTag(1),
            version: ProtocolVersion::V2,
        };
        let sealed = seal(request, SealSecrets::from_parts(secret(5), secret(6))).unwrap();
        let masked = KeyAgreement::new(&secret(5), to.public_key()).mask_secret(from.secret_key());
        Self {
            header: sealed.header,
            body: sealed.body,
            masked,
        }
    }

    fn sign(&self, mut header: Header, body: &[u8]) -> Bytes {
        let hash = binding_hash(&header, body);
        header.signature =
            MessageSignature::sign_with_nonce(&self.masked, &hash, &secret(8)).encode();
        encode_envelope(&header, body)
    }
}
