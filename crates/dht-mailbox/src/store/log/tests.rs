use proptest::prelude::*;

use super::*;

fn meta(seed: u8) -> Meta {
    Meta {
        recipient: Recipient::from_bytes([seed; 32]),
        neighbour: Neighbour::from_bytes([seed.wrapping_add(1); 32]),
        hash: DedupHash([seed.wrapping_add(2); 32]),
        stored_at: UnixSeconds(1_700_000_000),
        keep_until: UnixSeconds(1_700_086_400),
        retention: if seed.is_multiple_of(2) {
            Retention::Low
        } else {
            Retention::High
        },
    }
}

fn sample() -> Vec<u8> {
    let mut batch = BatchBuffer::default();
    batch.message(RowId(1), &meta(1), b"header", &[7; 500]);
    batch.deletion(&[RowId(1), RowId(9)]);
    batch.message(RowId(2), &meta(2), b"", b"body");
    batch.seal(3).to_vec()
}

#[test]
fn a_batch_comes_back_as_it_was_written() {
    let mut bytes = Bytes::from([sample(), b"rest".to_vec()].concat());
    let entries = next_batch(&mut bytes, 3).expect("it is whole");
    assert_eq!(bytes, "rest");
    let [
        (
            _,
            _,
            Entry::Message {
                id, header, body, ..
            },
        ),
        (_, _, Entry::Deletion(rows)),
        _,
    ] = &entries[..]
    else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (id.0, header.as_ref(), body.as_ref()),
        (1, &b"header"[..], &[7_u8; 500][..])
    );
    assert_eq!(rows, &[RowId(1), RowId(9)]);
}

#[test]
fn a_batch_counts_for_its_own_segment_only() {
    assert!(next_batch(&mut Bytes::from(sample()), 4).is_none());
}

#[test]
fn segment_heads_are_told_apart() {
    let head = segment_head(5);
    assert_eq!(read_segment_head(&head, 5), SegmentHead::Readable);
    assert_eq!(read_segment_head(&head, 6), SegmentHead::Damaged);
    assert_eq!(read_segment_head(&head[..11], 5), SegmentHead::Damaged);
    let mut newer = head;
    newer[6] = LOG_FORMAT + 1;
    assert_eq!(
        read_segment_head(&newer, 5),
        SegmentHead::Newer(LOG_FORMAT + 1)
    );
}

proptest! {
    #[test]
    fn any_single_change_or_cut_is_noticed(at in 0_usize..900, flip in 1_u8..) {
        let whole = sample();
        let at = at % whole.len();
        let mut changed = whole.clone();
        changed[at] ^= flip;
        prop_assert!(next_batch(&mut Bytes::from(changed), 3).is_none());
        prop_assert!(next_batch(&mut Bytes::from(whole[..at].to_vec()), 3).is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = Bytes::from(bytes);
        let _ = read_segment_head(&bytes, 0);
        let _ = read_record(&bytes);
        while next_batch(&mut bytes, 0).is_some() {}
    }
}
