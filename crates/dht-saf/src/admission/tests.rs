use dht_core::{Entropy, SecretKey, SeededEntropy};

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MAX: u64 = 524_288;

struct Node {
    stores: bool,
    key: PublicKey,
    banned: Option<PublicKey>,
    region: bool,
}

impl Surroundings for Node {
    fn stores(&self) -> bool {
        self.stores
    }
    fn own_key(&self) -> &PublicKey {
        &self.key
    }
    fn is_banned(&self, key: &PublicKey) -> bool {
        self.banned.as_ref() == Some(key)
    }
    fn in_region(&self, _: &PublicKey) -> bool {
        self.region
    }
}

fn key(seed: u64) -> PublicKey {
    SecretKey::random(&mut SeededEntropy::new(seed).rng()).public_key()
}

fn node() -> Node {
    Node {
        stores: true,
        key: key(1),
        banned: None,
        region: true,
    }
}

fn stored(destination: &Destination) -> Candidate<'_> {
    Candidate {
        hits: 1,
        body_bytes: 6_000,
        expires: None,
        message_type: MessageType::None,
        destination,
        origin: None,
        readable: false,
        signed: true,
    }
}

fn judged(change: impl FnOnce(&mut Candidate<'_>, &mut Node)) -> Decision {
    let destination = Destination::PublicKey(key(2));
    let (mut message, mut node) = (stored(&destination), node());
    change(&mut message, &mut node);
    decide(&message, &node, MAX, NOW)
}

#[test]
fn each_row_of_the_table_decides() {
    let origin = key(3);
    let own = key(1);
    let to_self = Destination::PublicKey(own);
    let unknown = Destination::Unknown;
    let skip = |reason| Decision::Skip(reason);

    assert_eq!(judged(|m, _| m.hits = 2), skip(Skip::Duplicate));
    assert_eq!(judged(|_, n| n.stores = false), skip(Skip::NotAStore));
    assert_eq!(judged(|m, _| m.body_bytes = 0), skip(Skip::Empty));
    assert_eq!(
        judged(|m, _| m.expires = Some(UnixSeconds(NOW.0 - 1))),
        skip(Skip::Expired)
    );
    assert_eq!(judged(|m, _| m.body_bytes = MAX + 1), skip(Skip::TooLarge));
    for saf in [
        MessageType::SafRequestMessages,
        MessageType::SafStoredMessages,
    ] {
        assert_eq!(judged(|m, _| m.message_type = saf), skip(Skip::SafMessage));
    }
    for dht in [
        MessageType::Join,
        MessageType::Discovery,
        MessageType::DiscoveryResponse,
    ] {
        assert_eq!(judged(|m, _| m.message_type = dht), skip(Skip::DhtMessage));
    }
    let destination = Destination::PublicKey(key(2));
    let message = Candidate {
        origin: Some(&own),
        ..stored(&destination)
    };
    assert_eq!(decide(&message, &node(), MAX, NOW), skip(Skip::OwnMessage));
    assert_eq!(judged(|m, _| m.readable = true), skip(Skip::Readable));
    assert_eq!(judged(|m, _| m.signed = false), skip(Skip::Unsigned));
    assert_eq!(
        decide(&stored(&to_self), &node(), MAX, NOW),
        skip(Skip::ForThisNode)
    );
    let message = Candidate {
        origin: Some(&origin),
        ..stored(&destination)
    };
    let banning = Node {
        banned: Some(origin),
        ..node()
    };
    assert_eq!(
        decide(&message, &banning, MAX, NOW),
        skip(Skip::OriginBanned)
    );
    assert_eq!(
        decide(&stored(&unknown), &node(), MAX, NOW),
        Decision::Store(Retention::Low)
    );
    assert_eq!(judged(|_, n| n.region = false), skip(Skip::OutOfRegion));
    assert_eq!(
        judged(|_, n| n.banned = Some(key(2))),
        skip(Skip::DestinationBanned)
    );
    assert_eq!(judged(|_, _| {}), Decision::Store(Retention::High));
}

#[test]
fn bounds_are_inclusive() {
    assert_eq!(
        judged(|m, _| m.expires = Some(NOW)),
        Decision::Store(Retention::High)
    );
    assert_eq!(
        judged(|m, _| m.body_bytes = MAX),
        Decision::Store(Retention::High)
    );
    assert_eq!(judged(|m, _| m.hits = 0), Decision::Store(Retention::High));
}

#[test]
fn earlier_rows_win() {
    // A duplicate on a node that does not store, empty and expired: row 1 speaks.
    let all = judged(|m, n| {
        m.hits = 2;
        n.stores = false;
        m.body_bytes = 0;
        m.expires = Some(UnixSeconds(0));
    });
    assert_eq!(all, Decision::Skip(Skip::Duplicate));
    assert_eq!(
        judged(|m, _| (m.readable, m.signed) = (true, false)),
        Decision::Skip(Skip::Readable)
    );
}

#[test]
fn only_the_first_two_rows_leave_the_mark_unset() {
    assert!(Skip::Duplicate.leaves_mark_unset() && Skip::NotAStore.leaves_mark_unset());
    assert!(!Skip::Empty.leaves_mark_unset() && !Skip::OutOfRegion.leaves_mark_unset());
}
