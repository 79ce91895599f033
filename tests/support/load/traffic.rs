//! The mix of messages one peer sends.

use std::collections::VecDeque;

use bytes::Bytes;
use dht_core::{
    Destination, DomainHeader, Encryption, Entropy, Header, MessageSignature, MessageTag,
    MessageType, ProtocolVersion, PublicKey, SealError, SealRequest, SealSecrets, SecretKey,
    SeededEntropy, Signing, UnixSeconds, binding_hash, domain_parts, encode_envelope, encode_parts,
    seal,
};
use rand_chacha::ChaCha12Rng;

/// Kind of a message for the node that receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Encrypted for somebody else: verified and passed on.
    Relay,
    /// Encrypted for the node: verified, opened, delivered.
    Ours,
    /// Clear, signed, for everybody: verified, delivered.
    Clear,
    /// An exact copy of the last relayed message.
    Duplicate,
    /// By turns: no envelope at all, and an envelope with somebody else's signature.
    Junk,
}

/// The kinds in the order in which they are sent, over and over.
pub const MIX: [Kind; 20] = {
    use Kind::{Clear, Duplicate, Junk, Ours, Relay};
    [
        Relay, Ours, Clear, Relay, Relay, Duplicate, Ours, Relay, Clear, Junk, Relay, Ours, Clear,
        Relay, Relay, Duplicate, Ours, Relay, Clear, Junk,
    ]
};

/// Payload of a message in bytes: with padding and header 6.2 kB on the wire when encrypted.
const PAYLOAD: usize = 1_000;

const JUNK: usize = 300;

/// Endless messages for one node. Those prepared are each new to it; once they are used up they repeat.
#[derive(Debug)]
pub struct Traffic {
    rng: ChaCha12Rng,
    relay: Supply,
    ours: Supply,
    clear: Supply,
    sender: SecretKey,
    /// For the node: the one-time key of all of them, so that only signatures differ.
    ephemeral: SecretKey,
    forged: Bytes,
    noise: Bytes,
    last: Bytes,
    sent: usize,
}

/// One envelope with many signatures. A message is known by signature and body, so each makes a new one.
#[derive(Debug)]
struct Supply {
    header: Header,
    body: Bytes,
    hash: [u8; 32],
    signatures: VecDeque<Bytes>,
}

impl Traffic {
    /// Traffic of peer number `seed` for the node with this key, valid until `expires`.
    ///
    /// # Errors
    /// [`SealError`] if the messages could not be made, which takes a payload beyond every limit.
    pub fn new(
        seed: u64,
        sender: &SecretKey,
        to: &PublicKey,
        expires: UnixSeconds,
    ) -> Result<Self, SealError> {
        let mut rng = SeededEntropy::new(seed ^ 0x10ad).rng();
        let stranger = SecretKey::random(&mut rng).public_key();
        let ephemeral = SecretKey::random(&mut rng);
        let to = Request {
            sender,
            expires,
            to: Some(*to),
        };
        let relay = Request {
            to: Some(stranger),
            ..to
        };
        let everybody = Request { to: None, ..to };
        let mut supply = |request: Request<'_>| {
            let secrets = SealSecrets::from_parts(copy(&ephemeral), SecretKey::random(&mut rng));
            request.seal(secrets).map(Supply::new)
        };
        let (relay, ours, clear) = (supply(relay)?, supply(to)?, supply(everybody)?);
        // A well-formed signature that covers another message.
        let forged = Header {
            signature: clear.header.signature.clone(),
            ..relay.header
        };
        let forged = encode_envelope(&forged, &relay.body);
        let mut traffic = Self {
            rng,
            relay,
            ours,
            clear,
            sender: copy(sender),
            ephemeral,
            forged,
            noise: vec![0xff; JUNK].into(),
            last: Bytes::new(),
            sent: 0,
        };
        traffic.prepare(MIX.len());
        Ok(traffic)
    }

    /// Makes sure that the next `messages` are new.
    pub fn prepare(&mut self, messages: usize) {
        let wanted = |kind: Kind| {
            let share = MIX.iter().filter(|each| **each == kind).count();
            messages.div_ceil(MIX.len()) * share
        };
        // The author of a relayed message's mask does not matter: any key signs it.
        for (supply, kind) in [
            (&mut self.relay, Kind::Relay),
            (&mut self.clear, Kind::Clear),
        ] {
            while supply.signatures.len() < wanted(kind) {
                let nonce = SecretKey::random(&mut self.rng);
                let signature =
                    MessageSignature::sign_with_nonce(&self.sender, &supply.hash, &nonce);
                supply.signatures.push_back(signature.encode());
            }
        }
        while self.ours.signatures.len() < wanted(Kind::Ours) {
            let nonce = SecretKey::random(&mut self.rng);
            let secrets = SealSecrets::from_parts(copy(&self.ephemeral), nonce);
            let Destination::PublicKey(to) = self.ours.header.destination else {
                return;
            };
            let request = Request {
                sender: &self.sender,
                expires: self.ours.header.expires.unwrap_or_default(),
                to: Some(to),
            };
            // The same request was sealed when this was made.
            let Ok((header, _)) = request.seal(secrets) else {
                return;
            };
            self.ours.signatures.push_back(header.signature);
        }
    }

    /// The next message of the mix.
    pub fn next_message(&mut self) -> (Kind, Bytes) {
        let kind = MIX
            .get(self.sent % MIX.len())
            .copied()
            .unwrap_or(Kind::Junk);
        self.sent = self.sent.wrapping_add(1);
        let frame = match kind {
            Kind::Relay => {
                self.last = self.relay.next();
                self.last.clone()
            }
            Kind::Ours => self.ours.next(),
            Kind::Clear => self.clear.next(),
            Kind::Duplicate => self.last.clone(),
            Kind::Junk if self.sent.is_multiple_of(MIX.len()) => self.forged.clone(),
            Kind::Junk => self.noise.clone(),
        };
        (kind, frame)
    }
}

impl Supply {
    fn new((header, body): (Header, Bytes)) -> Self {
        Self {
            hash: binding_hash(&header, &body),
            signatures: VecDeque::from([header.signature.clone()]),
            header,
            body,
        }
    }

    fn next(&mut self) -> Bytes {
        let mut header = self.header.clone();
        if let Some(signature) = self.signatures.pop_front() {
            // The last one stays, and repeats.
            if self.signatures.is_empty() {
                self.signatures.push_back(signature.clone());
            }
            header.signature = signature;
        }
        encode_envelope(&header, &self.body)
    }
}

#[derive(Clone, Copy)]
struct Request<'a> {
    sender: &'a SecretKey,
    expires: UnixSeconds,
    /// `None`: clear, for everybody.
    to: Option<PublicKey>,
}

impl Request<'_> {
    fn seal(self, secrets: SealSecrets) -> Result<(Header, Bytes), SealError> {
        let header = DomainHeader {
            message_type: 1,
            nonce: 0,
        };
        let request = SealRequest {
            body: encode_parts(&domain_parts(header, vec![7; PAYLOAD].into())),
            message_type: MessageType::None,
            destination: self.to.map_or(Destination::Unknown, Destination::PublicKey),
            encryption: self.to.map_or(Encryption::Clear, Encryption::EncryptFor),
            sender: self.sender,
            signing: Signing::Origin,
            expires: Some(self.expires),
            tag: MessageTag(0),
            version: ProtocolVersion::V2,
        };
        seal(request, secrets).map(|sealed| (sealed.header, sealed.body))
    }
}

/// One-time secrets are used up by sealing; here the same key serves many messages that say the same.
#[expect(
    clippy::expect_used,
    reason = "the encoding of a secret key is one of a secret key"
)]
fn copy(secret: &SecretKey) -> SecretKey {
    SecretKey::from_bytes(&*secret.to_bytes()).expect("an encoded key decodes")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dht_core::RawEnvelope;

    use super::*;

    #[test]
    fn prepared_messages_are_new_and_valid() {
        let mut rng = SeededEntropy::new(1).rng();
        let (sender, node) = (SecretKey::random(&mut rng), SecretKey::random(&mut rng));
        let expires = UnixSeconds(2_000_000_000);
        let mut traffic = Traffic::new(1, &sender, &node.public_key(), expires).unwrap();
        traffic.prepare(60);
        let mut seen = BTreeSet::new();
        let mut verified = 0;
        for _ in 0..60 {
            let (kind, frame) = traffic.next_message();
            let is_new = seen.insert(frame.clone());
            let sealed = RawEnvelope::parse(frame).ok().map(|raw| raw.into_sealed());
            let is_valid = sealed.is_some_and(|sealed| sealed.unwrap().verify().is_ok());
            verified += usize::from(is_valid);
            match kind {
                Kind::Relay | Kind::Ours | Kind::Clear => assert!(is_new && is_valid),
                Kind::Duplicate => assert!(!is_new && is_valid),
                Kind::Junk => assert!(!is_valid),
            }
        }
        assert_eq!(verified, 54);
    }
}
