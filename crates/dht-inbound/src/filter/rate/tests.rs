use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Destination, Disposition, Encryption, Features, ManualClock, NodeId, RemotePeer, Signing,
    SourceGroup,
    test_util::{clear, identity, public_key},
};

use super::*;
use crate::{
    filter::{Decode, MAX_METERED_PEERS},
    test_support::{NOW, frame, raw, received, run_check},
};

fn from(seed: u64) -> RemotePeer {
    RemotePeer::new(public_key(seed), Features::NODE)
}

fn from_group(seed: u64, address: &str) -> RemotePeer {
    from(seed).at(SourceGroup::of(&address.parse().unwrap()))
}

fn limits() -> RateLimits {
    let rate = |per_second, burst| Rate { per_second, burst };
    RateLimits {
        application: rate(1, 3),
        join: rate(1, 2),
        undecodable_bytes: rate(100, 200),
        ..RateLimits::default()
    }
}

fn of_type(message_type: MessageType) -> InboundEnvelope<RawEnvelope> {
    let frame = frame(
        &identity(3),
        message_type,
        Destination::Unknown,
        Encryption::Clear,
        Signing::Origin,
        Bytes::from_static(b"body"),
    );
    raw(frame)
}

const OVERLOAD: Disposition = Disposition::Dropped(DropReason::Overload);

#[tokio::test]
async fn each_type_has_its_bucket() {
    let clock = Arc::new(ManualClock::new(NOW));
    let limiter = RateLimiter::new(limits(), [0; 16]);
    let check = RateLimit {
        limiter,
        clock: Arc::clone(&clock) as SharedClock,
    };
    let run = |kind| run_check(check.clone(), of_type(kind));
    for _ in 0..3 {
        assert_eq!(run(MessageType::None).await, Disposition::Delivered);
    }
    assert_eq!(run(MessageType::None).await, OVERLOAD);
    for _ in 0..2 {
        assert_eq!(run(MessageType::Join).await, Disposition::Delivered);
    }
    assert_eq!(run(MessageType::Join).await, OVERLOAD);
    assert_eq!(run(MessageType::Discovery).await, Disposition::Delivered);
    clock.set(NOW.saturating_add(1));
    assert_eq!(run(MessageType::None).await, Disposition::Delivered);
    assert_eq!(run(MessageType::None).await, OVERLOAD);
}

#[tokio::test]
async fn junk_sender_is_ignored() {
    let clock = Arc::new(ManualClock::new(NOW));
    let limiter = RateLimiter::new(limits(), [0; 16]);
    let decode = Decode {
        limiter: limiter.clone(),
        clock: Arc::clone(&clock) as SharedClock,
        known_in: None,
    };
    let run = |frame: Bytes| run_check(decode.clone(), received(frame));
    let good = clear(&identity(3), Signing::Origin, b"x", 1);
    let junk = Bytes::from(vec![0xff; 150]);
    for _ in 0..2 {
        assert_eq!(run(good.clone()).await, Disposition::Delivered);
        let undecodable = Disposition::Dropped(DropReason::Undecodable);
        assert_eq!(run(junk.clone()).await, undecodable);
    }
    assert_eq!(run(good.clone()).await, OVERLOAD);
    assert!(
        !limiter.is_exhausted(&from(77), || NOW),
        "others are not affected"
    );
    clock.set(NOW.saturating_add(2));
    assert_eq!(run(good).await, Disposition::Delivered);
}

#[tokio::test]
async fn empty_frames_cost_something() {
    let limiter = RateLimiter::new(limits(), [0; 16]);
    for _ in 0..4 {
        assert!(!limiter.is_exhausted(&from(3), || NOW));
        limiter.charge_junk(&from(3), 0, NOW);
    }
    assert!(limiter.is_exhausted(&from(3), || NOW));
}

#[test]
fn space_is_constant_and_debts_stay() {
    let limiter = RateLimiter::new(limits(), [5; 16]);
    let any = from(1);
    let stranger = |n: u64| {
        let mut bytes = [0; 13];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        RemotePeer {
            node_id: NodeId::from_bytes(&bytes).unwrap(),
            ..any
        }
    };
    limiter.charge_junk(&stranger(0), 1_000, NOW);
    let strangers = 1..3 * MAX_METERED_PEERS as u64;
    let take = |n: u64, now| limiter.try_take(&stranger(n), Bucket::Join, now);
    let admitted = strangers.clone().filter(|n| take(*n, NOW)).count();
    assert!(admitted < MAX_METERED_PEERS);
    // Whoever was let in cannot empty a bucket, be forgotten, and find it full.
    assert!(strangers.clone().all(|n| !take(n, NOW) || !take(n, NOW)));
    // The buckets are full again a second or two later, and others take their places.
    assert!(take(strangers.end, NOW.saturating_add(2)));
    assert!(limiter.len() <= MAX_METERED_PEERS);
    assert!(limiter.is_exhausted(&stranger(0), || NOW));
}

#[test]
fn new_limits_apply_at_once() {
    let (peer, now) = (from(1), NOW);
    let of = |join| RateLimits {
        join: Rate::per_second(join),
        ..RateLimits::default()
    };
    let limiter = RateLimiter::new(of(1), [7; 16]);
    let join = || limiter.try_take(&peer, Bucket::Join, now);
    assert!(join() && !join());
    limiter.set_limits(of(3));
    assert!(join() && join() && !join());
    limiter.set_limits(of(2));
    assert!(!join());
}

/// Keys are free: a thousand of one source group get no more than its share, and others are not affected.
#[test]
fn keys_of_one_group_share_rate() {
    let limiter = RateLimiter::new(limits(), [7; 16]);
    let take = |peer: &RemotePeer| limiter.try_take(peer, Bucket::Application, NOW);
    let neighbours = (1..=20).map(|seed| from_group(seed, "/ip4/1.2.3.4/tcp/5"));
    assert_eq!(
        neighbours
            .map(|peer| usize::from(take(&peer)))
            .sum::<usize>(),
        4
    );
    assert!(take(&from_group(1, "/ip4/1.2.4.4/tcp/5")));
    assert!(take(&from(30)), "nobody knows who is behind a proxy");
}

/// One peer that uses its rate up leaves something to its neighbours.
#[test]
fn noisy_peer_leaves_neighbours_something() {
    let limiter = RateLimiter::new(limits(), [7; 16]);
    let noisy = from_group(1, "/ip4/1.2.3.4/tcp/5");
    let quiet = from_group(2, "/ip4/1.2.3.5/tcp/5");
    let take = |peer: &RemotePeer| limiter.try_take(peer, Bucket::Application, NOW);
    assert!((0..3).all(|_| take(&noisy)));
    assert!((0..100).all(|_| !take(&noisy)));
    assert!(take(&quiet));
}

#[test]
fn junk_of_a_group_adds_up() {
    let limiter = RateLimiter::new(limits(), [7; 16]);
    let sender = |seed| from_group(seed, "/ip4/1.2.3.4/tcp/5");
    for seed in 1..=3 {
        assert!(!limiter.is_exhausted(&sender(9), || NOW));
        limiter.charge_junk(&sender(seed), 100, NOW);
    }
    assert!(limiter.is_exhausted(&sender(9), || NOW));
    assert!(!limiter.is_exhausted(&from_group(9, "/ip4/1.2.4.4/tcp/5"), || NOW));
}
