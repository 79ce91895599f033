use proptest::prelude::*;
use tokio::io::duplex;

use super::*;

const MESSAGING: &[u8] = b"t/msg/0.1";

fn ids(all: &[&'static [u8]]) -> Vec<Bytes> {
    all.iter().map(|id| Bytes::from_static(id)).collect()
}

#[test]
fn optimistic_is_judged_before_terminate() {
    let supported = ids(&[MESSAGING]);
    let mut responder = Responder::new(&supported);
    let frame = Frame::propose(supported[0].clone(), true);
    assert_eq!(frame.encode().unwrap(), b"\x09\x03t/msg/0.1");
    assert_eq!(
        responder.on_frame(&frame),
        Decision::Accept {
            protocol: supported[0].clone(),
            answer: None
        }
    );
    let unknown = Frame::propose(Bytes::from_static(b"x"), true);
    assert_eq!(responder.on_frame(&unknown), Decision::End(None));
}

#[test]
fn fifth_unsupported_proposal_ends_stream() {
    let supported = ids(&[b"t/dht/1"]);
    let mut responder = Responder::new(&supported);
    let unknown = Frame::propose(Bytes::from_static(b"x"), false);
    for _ in 0..4 {
        let Decision::Refuse(answer) = responder.on_frame(&unknown) else {
            panic!("refusal")
        };
        assert_eq!(answer.encode().unwrap(), [0, 4]);
    }
    let Decision::End(Some(answer)) = responder.on_frame(&unknown) else {
        panic!("end")
    };
    assert_eq!(answer.encode().unwrap(), [0, 6]);
}

#[test]
fn supported_proposal_is_echoed() {
    let supported = ids(&[b"t/dht/1"]);
    let mut responder = Responder::new(&supported);
    let Decision::Accept {
        answer: Some(answer),
        ..
    } = responder.on_frame(&Frame::propose(supported[0].clone(), false))
    else {
        panic!("acceptance")
    };
    assert_eq!(answer.encode().unwrap(), b"\x07\x00t/dht/1");
    let end = Frame::new(TERMINATE, Bytes::new()).unwrap();
    assert_eq!(responder.on_frame(&end), Decision::End(None));
}

#[test]
fn unknown_flags_are_an_offence() {
    assert_eq!(Frame::decode(&[200, 8]), Err(StreamError::Flags(8)));
    assert!(StreamError::Flags(8).is_offence());
    assert!(!StreamError::Timeout.is_offence());
}

#[tokio::test]
async fn negotiation_leaves_following_bytes_untouched() {
    for optimistic in [true, false] {
        let (mut opener, mut responder) = duplex(1024);
        let supported = ids(&[b"t/dht/1", MESSAGING]);
        let wanted = supported[1].clone();
        let (proposed, answered) = tokio::join!(
            async {
                propose(&mut opener, &wanted, optimistic).await.unwrap();
                opener.write_all(b"payload").await
            },
            respond(&mut responder, &supported)
        );
        proposed.unwrap();
        assert_eq!(answered.unwrap(), wanted);
        let mut rest = [0; 7];
        responder.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"payload");
    }
}

#[tokio::test]
async fn an_unsupported_protocol_is_named() {
    let (mut opener, mut responder) = duplex(1024);
    let supported = ids(&[b"t/dht/1"]);
    let wanted = Bytes::from_static(MESSAGING);
    let (proposed, answered) = tokio::join!(
        propose(&mut opener, &wanted, false),
        respond(&mut responder, &supported)
    );
    assert_eq!(proposed, Err(StreamError::NotSupported));
    assert_eq!(answered, Err(StreamError::NothingSupported));
}

#[tokio::test(start_paused = true)]
async fn silence_times_out_on_both_sides() {
    let (mut a, mut b) = duplex(1024);
    assert_eq!(respond(&mut a, &[]).await, Err(StreamError::Timeout));
    let id = Bytes::from_static(MESSAGING);
    assert_eq!(propose(&mut b, &id, false).await, Err(StreamError::Timeout));
}

proptest! {
    #[test]
    fn random_bytes_give_frame_or_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((frame, used))) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode().unwrap(), &bytes[..used]);
            let supported = ids(&[MESSAGING]);
            let _decision = Responder::new(&supported).on_frame(&frame);
        }
    }

    #[test]
    fn a_cut_frame_is_incomplete(flags in 0_u8..8, id in prop::collection::vec(any::<u8>(), 0..=255)) {
        let bytes = Frame::new(flags, id.into()).unwrap().encode().unwrap();
        for end in 0..bytes.len() {
            prop_assert_eq!(Frame::decode(&bytes[..end]), Ok(None));
        }
        prop_assert_eq!(Frame::decode(&bytes).unwrap().unwrap().1, bytes.len());
    }

    #[test]
    fn responder_ends_within_five_refusals(flags in prop::collection::vec(0_u8..8, 5..20)) {
        let mut responder = Responder::new(&[]);
        let ended = flags.into_iter().take(5).any(|flags| {
            let frame = Frame::new(flags, Bytes::from_static(b"x")).unwrap();
            matches!(responder.on_frame(&frame), Decision::End(_))
        });
        prop_assert!(ended);
    }
}
