use std::sync::Arc;

use data_encoding::HEXLOWER;
use dht_core::SeededEntropy;

use super::*;
use crate::noise::{FrameReader, FrameWriter};

fn scalar(value: u8) -> SecretKey {
    let mut bytes = [0; 32];
    bytes[0] = value;
    SecretKey::from_bytes(&bytes).unwrap()
}

fn entropy() -> SharedEntropy {
    Arc::new(SeededEntropy::new(1))
}

/// docs/protocol/02-transport-and-connectivity.md section 18: static 2 and 3, ephemeral 5 and 7.
#[test]
fn published_handshake_is_reproduced_exactly() {
    let mut initiator = Handshake::with_ephemeral(&scalar(2), &scalar(5), entropy(), true).unwrap();
    let mut responder =
        Handshake::with_ephemeral(&scalar(3), &scalar(7), entropy(), false).unwrap();

    let m1 = initiator.write().unwrap();
    assert_eq!(
        HEXLOWER.encode(&m1),
        "e882b131016b52c1d3337080187cf768423efccbb517bb495ab812c4160ff44e"
    );
    responder.read(&m1).unwrap();
    let m2 = responder.write().unwrap();
    assert_eq!(
        HEXLOWER.encode(&m2),
        "44f53520926ec81fbd5a387845beb7df85a96a24ece18738bdcfa6a7822a176ded46b188c291a8087dc937e99882\
         9d8f85ae2b26ae07a6fe3407c8a1967b461a8dc701c2e066506fa9ba8276a258bf5128055defbaecc55e9d04bab8\
         58ef7b6f"
    );
    initiator.read(&m2).unwrap();
    let m3 = initiator.write().unwrap();
    assert_eq!(
        HEXLOWER.encode(&m3),
        "54514c041deef8e434063602a8afefe653f4e7412ab56c0e019f029b6960516054e0e8bc7868fd69624f7eed77c9\
         af15fc77f4a15ca597299e339abbde4b5570"
    );
    responder.read(&m3).unwrap();

    let (initiator, responder) = (initiator.finish().unwrap(), responder.finish().unwrap());
    assert_eq!(initiator.remote, scalar(3).public_key());
    assert_eq!(responder.remote, scalar(2).public_key());
    assert_eq!(initiator.hash, responder.hash);
    assert_eq!(
        HEXLOWER.encode(&initiator.hash),
        "3c48b30709d6e384910ae78ded04ee65425c77359404ed58a7e99e7a0820643d574776915b3ac233ce3a64963889\
         fd237d7e2fc0ff20bcc71f4e86523634ef6e"
    );

    for (from, to, expected) in [
        (
            &initiator,
            &responder,
            "8f5581d172c308e16dd666c793f05b029433b1",
        ),
        (
            &responder,
            &initiator,
            "0861d96e771626196fe1f3e5c9656a5f08024e",
        ),
    ] {
        let mut writer = FrameWriter::new(from, Vec::new());
        writer.write(b"abc").unwrap();
        writer.seal().unwrap();
        assert_eq!(HEXLOWER.encode(&writer.pending()[2..]), expected);
        assert_eq!(writer.pending()[..2], [0, 19]);
        let mut reader = FrameReader::new(to);
        reader.space()[..21].copy_from_slice(writer.pending());
        reader.filled(21);
        assert_eq!(reader.plaintext().unwrap(), Some(&b"abc"[..]));
    }
}

#[test]
fn payload_or_wrong_length_is_refused() {
    let mut responder = Handshake::responder(&scalar(3), entropy()).unwrap();
    assert_eq!(
        responder.read(&[0; 33]),
        Err(NoiseError::HandshakeLength(33))
    );
    assert_eq!(responder.read(&[]), Err(NoiseError::HandshakeLength(0)));
}

#[test]
fn identity_point_as_ephemeral_is_refused() {
    let mut responder = Handshake::responder(&scalar(3), entropy()).unwrap();
    // The first message only stores the key; the second uses it.
    responder.read(&[0; 32]).unwrap();
    assert_eq!(responder.write(), Err(NoiseError::Handshake));
}

#[test]
fn a_changed_message_is_refused() {
    let mut initiator = Handshake::initiator(&scalar(2), entropy()).unwrap();
    let mut responder = Handshake::responder(&scalar(3), entropy()).unwrap();
    responder.read(&initiator.write().unwrap()).unwrap();
    let mut m2 = responder.write().unwrap();
    m2[95] ^= 1;
    assert_eq!(initiator.read(&m2), Err(NoiseError::Handshake));
    assert!(initiator.finish().is_err());
}
