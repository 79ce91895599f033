//! Padding and the bytes a destination is hashed as.

use bytes::{Bytes, BytesMut};
use dht_core::test_util::public_key;
use dht_core::{Destination, OpenError, pad, unpad};

/// Thirteen bytes become one block with the length prefix in front.
#[test]
fn b032_short_payload_fills_one_block() {
    let block = pad(b"nine byte", 0).unwrap();
    assert_eq!(block.len(), 6000);
    assert_eq!(block[..13], *b"\x09\0\0\0nine byte");
    assert!(block[13..].iter().all(|byte| *byte == 0));
}

#[test]
fn b033_empty_payload_becomes_zero_block() {
    assert_eq!(pad(b"", 0).unwrap(), BytesMut::zeroed(6000));
}

#[test]
fn b034_truncated_prefix_is_refused() {
    for length in [0, 3] {
        assert_eq!(
            unpad(Bytes::from(vec![0; length])),
            Err(OpenError::TooShort)
        );
    }
}

#[test]
fn b035_padded_payloads_unpad_to_themselves() {
    for length in [13, 1024, 984, 0] {
        let payload: Bytes = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
        assert_eq!(unpad(pad(&payload, 0).unwrap().freeze()), Ok(payload));
    }
}

#[test]
fn b036_smaller_prefix_gives_shorter_message() {
    let mut block = pad(b"a message", 0).unwrap();
    block[0] = 1;
    assert_eq!(unpad(block.freeze()), Ok(Bytes::from_static(b"a")));
}

#[test]
fn b037_destinations_are_hashed_as_33_bytes() {
    assert_eq!(Destination::Unknown.to_hash_bytes(), [0; 33]);
    let key = public_key(1);
    let bytes = Destination::PublicKey(key).to_hash_bytes();
    assert_eq!(bytes[0], 1);
    assert_eq!(bytes[1..], key.as_bytes()[..]);
}
