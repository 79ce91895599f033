//! The encoded body of a message: specification 04, section 4.

use bytes::Bytes;
use dht_core::{DomainHeader, Payload, Strategy, domain_parts, encode_parts};
use rand_core::Rng;

/// Encodes the inside of a message. Padding and length prefix belong to encryption and come later.
///
/// The nonce of an application's message is random, but not 0, if it goes to one peer; otherwise it is 0, so that
/// the same payload is the same message, no matter which node sends it again.
///
/// Specification 04, section 4.
pub(crate) fn prepare_body(payload: Payload, strategy: &Strategy, rng: &mut impl Rng) -> Bytes {
    match payload {
        Payload::Body(bytes) => bytes,
        Payload::Part(bytes) => encode_parts(&[bytes]),
        Payload::Domain(message) => {
            let nonce = if strategy.is_direct() {
                rng.next_u64().max(1)
            } else {
                0
            };
            let header = DomainHeader {
                message_type: message.message_type,
                nonce,
            };
            encode_parts(&domain_parts(header, message.payload))
        }
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy, Message, NodeId, SeededEntropy, decode_parts};

    use super::*;

    fn domain(strategy: &Strategy, seed: u64) -> Vec<Bytes> {
        let payload = Payload::Domain(Message::new(7, &b"hello"[..]));
        decode_parts(prepare_body(
            payload,
            strategy,
            &mut SeededEntropy::new(seed).rng(),
        ))
        .unwrap()
    }

    #[test]
    fn messages_to_many_have_equal_bytes() {
        let many = [
            Strategy::default(),
            Strategy::Broadcast { exclude: vec![] },
            Strategy::SelectedPeers(vec![NodeId::default()]),
        ];
        for strategy in many {
            let parts = domain(&strategy, 1);
            assert_eq!(parts, domain(&Strategy::default(), 2));
            let header = DomainHeader::decode(&parts[0]).unwrap();
            assert_eq!(
                header,
                DomainHeader {
                    message_type: 7,
                    nonce: 0
                }
            );
            assert_eq!(parts[1], &b"hello"[..]);
        }
    }

    #[test]
    fn direct_messages_have_a_random_nonce() {
        let direct = Strategy::DirectNodeId(NodeId::default());
        let nonce = |seed| {
            DomainHeader::decode(&domain(&direct, seed)[0])
                .unwrap()
                .nonce
        };
        assert_ne!(nonce(1), 0);
        assert_ne!(nonce(1), nonce(2));
    }

    #[test]
    fn bodies_and_parts_are_taken_unchanged() {
        let mut rng = SeededEntropy::new(1).rng();
        let body = Bytes::from_static(b"\x0a\x01a");
        let strategy = Strategy::default();
        assert_eq!(
            prepare_body(Payload::Body(body.clone()), &strategy, &mut rng),
            body
        );
        let part = Payload::Part(Bytes::from_static(b"a"));
        assert_eq!(prepare_body(part, &strategy, &mut rng), body);
    }
}
