//! Encodes a message, decodes it without copying, and shows two inputs that the decoder refuses.

use bytes::Bytes;
use dht_proto::{comms::EnvelopeBody, limits::MAX_ENVELOPE_PARTS};

fn main() -> Result<(), dht_proto::DecodeError> {
    let body = EnvelopeBody {
        parts: vec![
            Bytes::from_static(b"header"),
            Bytes::from_static(b"payload"),
        ],
    };
    let bytes = dht_proto::encode(&body);
    let decoded: EnvelopeBody = dht_proto::decode(bytes.clone())?;
    assert_eq!(decoded, body);
    println!("{} parts in {} bytes", decoded.parts.len(), bytes.len());
    for part in &decoded.parts {
        // The parts are slices of the received buffer.
        assert!(bytes.as_ptr_range().contains(&part.as_ptr()));
    }

    let too_many = dht_proto::encode(&EnvelopeBody {
        parts: vec![Bytes::new(); MAX_ENVELOPE_PARTS + 1],
    });
    for refused in [too_many, Bytes::from_static(&[0xff; 8])] {
        let error = dht_proto::decode::<EnvelopeBody>(refused).err();
        println!(
            "refused: {}",
            error.map(|it| it.to_string()).unwrap_or_default()
        );
    }
    Ok(())
}
