use dht_core::{DedupHash, Deliverer, UnixSeconds};
use proptest::prelude::*;

use super::{format::segment_head, walk::Found, *};
use crate::record::{Recipient, Retention, RowId};

const SEGMENT: u32 = 3;
const SALT: u32 = 0x5eed_1234;
const FORMAT: Format = Format::V2 { salt: SALT };

fn meta(seed: u8) -> Meta {
    Meta {
        recipient: Recipient::from_bytes([seed; 32]),
        deliverer: Deliverer::from_bytes([seed.wrapping_add(1); 32]),
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

/// A segment of these batches, each with these messages; every second batch also deletes row 99.
fn segment(batches: &[&[u64]]) -> Vec<u8> {
    let mut bytes = segment_head(SEGMENT, SALT).to_vec();
    let mut batch = BatchBuffer::default();
    for (n, rows) in batches.iter().enumerate() {
        batch.begin(SALT);
        for row in *rows {
            let seed = row.to_le_bytes()[0];
            batch.message(RowId(*row), &meta(seed), b"header", &[seed; 300]);
        }
        if n % 2 == 1 {
            batch.deletion(&[RowId(99)]);
        }
        bytes.extend_from_slice(batch.seal(SEGMENT));
    }
    bytes
}

/// Content found in a segment: the rows of messages and of deletions, and how much is damaged.
fn read(bytes: &[u8]) -> (Vec<u64>, Vec<u64>, u64) {
    let (mut messages, mut deletions) = (Vec::new(), Vec::new());
    let damaged = walk(bytes, SEGMENT, FORMAT, 0, |found| match found.entry {
        Entry::Message { id, .. } => messages.push(id.0),
        Entry::Deletion(rows) => deletions.extend(rows.iter().map(|row| row.0)),
    });
    (messages, deletions, damaged)
}

#[test]
fn a_segment_reads_as_written() {
    let bytes = segment(&[&[1, 2], &[3], &[], &[4]]);
    assert_eq!(read(&bytes), (vec![1, 2, 3, 4], vec![99, 99], 0));
    let mut records = Vec::new();
    walk(&bytes, SEGMENT, FORMAT, 0, |found| records.push(found));
    let [first, ..] = &records[..] else { panic!() };
    let Entry::Message { meta: found, .. } = &first.entry else {
        panic!("{first:?}")
    };
    assert_eq!(*found, meta(1));
    let end = (first.offset + first.length) as usize;
    let record = bytes::Bytes::copy_from_slice(&bytes[first.offset as usize..end]);
    let stored = stored_record(&record, FORMAT).unwrap();
    assert_eq!(
        (stored.id.0, &stored.header[..], &stored.body[..]),
        (1, &b"header"[..], &[1_u8; 300][..])
    );
}

#[test]
fn batch_counts_only_in_its_segment() {
    let bytes = segment(&[&[1]]);
    let other = Format::V2 { salt: SALT ^ 1 };
    assert_eq!(walk(&bytes, SEGMENT, other, 0, |_| panic!()), 0);
    let renumbered = |found: Found| assert!(matches!(found.entry, Entry::Message { .. }));
    assert_eq!(walk(&bytes, SEGMENT + 1, FORMAT, 0, renumbered), 1);
}

#[test]
fn a_torn_batch_deletes_nothing() {
    let whole = segment(&[&[1], &[2, 3]]);
    for cut in segment(&[&[1]]).len()..whole.len() {
        let (messages, deletions, damaged) = read(&whole[..cut]);
        assert!(messages.starts_with(&[1]), "{messages:?}");
        assert_eq!(
            (deletions, damaged),
            (vec![], 0),
            "an unfinished write is no damage"
        );
    }
}

#[test]
fn segment_heads_are_told_apart() {
    let head = segment_head(5, SALT);
    assert_eq!(read_segment_head(&head, 5), SegmentHead::Readable(FORMAT));
    assert_eq!(read_segment_head(&head, 6), SegmentHead::Damaged);
    assert_eq!(read_segment_head(&head[..11], 5), SegmentHead::Damaged);
    let mut changed = head;
    changed[6] = 3;
    assert_eq!(read_segment_head(&changed, 5), SegmentHead::Damaged);
    let check = crc32fast::hash(&changed[..16]);
    changed[16..].copy_from_slice(&check.to_le_bytes());
    assert_eq!(read_segment_head(&changed, 5), SegmentHead::Newer(3));
    let first = *b"DHTSAF\x01\x00\x05\x00\x00\x00\x00\x00\x00\x00SAFB";
    assert_eq!(
        read_segment_head(&first, 5),
        SegmentHead::Readable(Format::V1)
    );
}

#[test]
fn a_damaged_head_hides_nothing() {
    let mut bytes = segment(&[&[1], &[2]]);
    for at in 0..SEGMENT_HEAD as usize {
        bytes[at] ^= 0x10;
        assert_eq!(read_segment_head(&bytes, SEGMENT), SegmentHead::Damaged);
        assert_eq!(detect(&bytes, SEGMENT), Some(FORMAT));
        bytes[at] ^= 0x10;
    }
}

#[test]
fn body_cannot_pose_as_record() {
    // Records that an attacker would send who knows everything but the salt.
    let mut inner = BatchBuffer::default();
    inner.begin(SALT ^ 7);
    inner.message(RowId(77), &meta(7), b"", b"posed");
    inner.deletion(&[RowId(1)]);
    let posed = inner.seal(SEGMENT).to_vec();
    let mut bytes = segment(&[&[1]]);
    let mut batch = BatchBuffer::default();
    batch.begin(SALT);
    batch.message(RowId(2), &meta(2), b"", &posed);
    batch.message(RowId(3), &meta(3), b"", b"");
    let start = bytes.len();
    bytes.extend_from_slice(batch.seal(SEGMENT));
    for at in start..start + 60 {
        bytes[at] ^= 0xff;
        let (messages, deletions, _) = read(&bytes);
        assert!(
            messages.iter().all(|row| [1, 2, 3].contains(row)),
            "{messages:?}"
        );
        assert!(messages.contains(&3) && deletions.is_empty());
        bytes[at] ^= 0xff;
    }
}

proptest! {
    #[test]
    fn a_changed_byte_costs_one_record(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let rows: [&[u64]; 4] = [&[1, 2], &[3, 4, 5], &[6], &[7, 8]];
        let mut bytes = segment(&rows);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let format = detect(&bytes, SEGMENT).unwrap();
        prop_assert_eq!(format, FORMAT);
        let (messages, _, damaged) = read(&bytes);
        let lost: Vec<_> = (1..9).filter(|row| !messages.contains(row)).collect();
        prop_assert!(lost.len() <= 1, "{:?}", lost);
        prop_assert!(messages.is_sorted());
        prop_assert!(damaged <= 1);
        if at >= SEGMENT_HEAD as usize {
            prop_assert_eq!(damaged, 1);
        }
    }

    #[test]
    fn lost_pages_cost_their_records(
        at in any::<prop::sample::Index>(),
        length in 1_usize..900,
    ) {
        let mut bytes = segment(&[&[1, 2], &[3, 4, 5], &[6], &[7, 8]]);
        let whole = bytes.clone();
        let at = at.index(bytes.len());
        let end = (at + length).min(bytes.len());
        bytes[at..end].fill(0);
        // Zeros over zeros lose nothing, so the bytes tell which records were touched.
        let mut touched = Vec::new();
        walk(&whole, SEGMENT, FORMAT, 0, |found| {
            let record = found.offset as usize..(found.offset + found.length) as usize;
            if let Entry::Message { id, .. } = found.entry
                && whole[record.clone()] != bytes[record]
            {
                touched.push(id.0);
            }
        });
        let (messages, _, _) = read(&bytes);
        let untouched: Vec<_> = (1..9).filter(|row| !touched.contains(row)).collect();
        prop_assert_eq!(messages, untouched);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_segment_head(&bytes, 0);
        for format in [Format::V1, FORMAT] {
            let _ = stored_record(&bytes::Bytes::copy_from_slice(&bytes), format);
            walk(&bytes, 0, format, 0, |_| {});
        }
    }
}
