use bytes::Bytes;
use dht_core::test_util::{self, NOW};
use dht_dedup::{DedupMeta, DedupTable};
use dht_peers::policy::AttributionProfile;
use proptest::prelude::*;

use super::*;
use crate::fetch::outcome::{self, ReceptionState};

/// Seed of the node that checks.
const ME: u64 = 1;
/// Seed of the origin.
const SENDER: u64 = 5;

fn ago(seconds: u64) -> u64 {
    NOW.0 - seconds
}

/// Message `n`, encrypted for the node that checks, stored at a time.
fn for_me(n: u64, stored_at: u64) -> StoredMessage {
    let (from, to) = (test_util::identity(SENDER), test_util::public_key(ME));
    let raw = RawEnvelope::parse(test_util::encrypted(&from, &to, b"for me", n)).unwrap();
    StoredMessage {
        stored_at,
        version: 2,
        dht_header: raw.header().cloned(),
        body: raw.body().clone(),
    }
}

/// Row SF-34: of a new and a known message one is delivered, and the responder has been read up to the later one.
#[test]
fn sf34_known_messages_count_as_read() {
    for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
        let me = test_util::identity(ME);
        let context = CheckContext {
            identity: &me,
            now: NOW,
            tolerance_seconds: 0,
            max_age_seconds: 1_000,
        };
        let valid = |n, age| check(for_me(n, ago(age)), context);
        let table = DedupTable::new(10, [0; 16]);
        let meta = DedupMeta {
            signed: true,
            expires: None,
        };
        let outcome = outcome::decide(vec![valid(1, 60), valid(2, 3)], profile, |message| {
            if message.stored_at.0 == ago(60) {
                ReceptionState::New(table.reserve(&message.hash, meta, NOW).unwrap())
            } else {
                ReceptionState::Known
            }
        });
        let newest = outcome
            .accepted
            .iter()
            .map(|(message, _)| message.stored_at)
            .max();
        assert_eq!(newest, Some(UnixSeconds(ago(60))));
        assert_eq!(outcome.reached, Some(UnixSeconds(ago(3))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Damage to bytes that another node signed fails a check, and the strict profile bans no peer for it.
    #[test]
    fn damage_is_noticed_without_ban(
        which in 0_usize..4, at in any::<usize>(), bit in 0_u32..8,
    ) {
        let mut message = for_me(1, ago(5));
        let flip = |bytes: &mut Bytes| {
            let mut damaged = bytes.to_vec();
            let at = at % damaged.len();
            damaged[at] ^= 1 << bit;
            *bytes = damaged.into();
        };
        let header = message.dht_header.as_mut().unwrap();
        match which {
            0 => flip(&mut message.body),
            1 => flip(&mut header.message_signature),
            2 => flip(&mut header.ephemeral_public_key),
            _ => header.expires ^= 1 << bit,
        }
        let me = test_util::identity(ME);
        let context = CheckContext { identity: &me, now: NOW, tolerance_seconds: 0, max_age_seconds: 1_000 };
        let fault = check(message, context).unwrap_err();
        let strict = AttributionProfile::Strict;
        let ban = fault.offence().and_then(|offence| offence.penalty(strict));
        prop_assert_eq!((fault.aborts(strict), ban), (false, None), "{:?}", fault);
    }

    /// Any bytes are refused or accepted without a panic.
    #[test]
    fn any_bytes_are_checked(
        body in proptest::collection::vec(any::<u8>(), 0..64),
        signature in proptest::collection::vec(any::<u8>(), 0..110),
        ephemeral in proptest::collection::vec(any::<u8>(), 0..34),
        numbers in any::<(u64, u32, i32, u32)>(),
    ) {
        let mut message = for_me(1, numbers.0);
        message.body = body.into();
        let header = message.dht_header.as_mut().unwrap();
        header.message_signature = signature.into();
        header.ephemeral_public_key = ephemeral.into();
        (header.major, header.message_type, header.flags) = (numbers.1, numbers.2, numbers.3);
        let me = test_util::identity(ME);
        let context = CheckContext { identity: &me, now: NOW, tolerance_seconds: 0, max_age_seconds: u64::MAX };
        let fault = check(message, context).map(drop);
        let severe = matches!(fault, Err(Fault::StoredInFuture));
        prop_assert!(!severe || numbers.0 > NOW.0);
    }
}
