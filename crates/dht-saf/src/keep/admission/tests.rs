use dht_core::test_util::public_key;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MAX: u64 = 524_288;

struct Node {
    stores: bool,
    key: PublicKey,
    banned: Option<PublicKey>,
    region: bool,
}

impl LocalView for Node {
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

fn node() -> Node {
    Node {
        stores: true,
        key: public_key(1),
        banned: None,
        region: true,
    }
}

fn stored(destination: &Destination) -> Candidate<'_> {
    Candidate {
        occurrences: 1,
        body_bytes: 6_000,
        expires: None,
        message_type: MessageType::None,
        destination,
        origin: None,
        readable: false,
        signed: true,
    }
}

fn admitted(
    change: impl FnOnce(&mut Candidate<'_>, &mut Node),
) -> Result<Retention, StoreRejection> {
    let destination = Destination::PublicKey(public_key(2));
    let (mut message, mut node) = (stored(&destination), node());
    change(&mut message, &mut node);
    admit(&message, &node, MAX, NOW)
}

#[test]
fn each_row_of_the_table_decides() {
    let origin = public_key(3);
    let own = public_key(1);
    let to_self = Destination::PublicKey(own);
    let unknown = Destination::Unknown;
    let skip = Err::<Retention, StoreRejection>;

    assert_eq!(
        admitted(|m, _| m.occurrences = 2),
        skip(StoreRejection::Duplicate)
    );
    assert_eq!(
        admitted(|_, n| n.stores = false),
        skip(StoreRejection::NotAStore)
    );
    assert_eq!(
        admitted(|m, _| m.body_bytes = 0),
        skip(StoreRejection::Empty)
    );
    assert_eq!(
        admitted(|m, _| m.expires = Some(UnixSeconds(NOW.0 - 1))),
        skip(StoreRejection::Expired)
    );
    assert_eq!(
        admitted(|m, _| m.body_bytes = MAX + 1),
        skip(StoreRejection::TooLarge)
    );
    for saf in [
        MessageType::SafRequestMessages,
        MessageType::SafStoredMessages,
    ] {
        assert_eq!(
            admitted(|m, _| m.message_type = saf),
            skip(StoreRejection::SafMessage)
        );
    }
    for dht in [
        MessageType::Join,
        MessageType::Discovery,
        MessageType::DiscoveryResponse,
    ] {
        assert_eq!(
            admitted(|m, _| m.message_type = dht),
            skip(StoreRejection::DhtMessage)
        );
    }
    let destination = Destination::PublicKey(public_key(2));
    let message = Candidate {
        origin: Some(&own),
        ..stored(&destination)
    };
    assert_eq!(
        admit(&message, &node(), MAX, NOW),
        skip(StoreRejection::OwnMessage)
    );
    assert_eq!(
        admitted(|m, _| m.readable = true),
        skip(StoreRejection::Readable)
    );
    assert_eq!(
        admitted(|m, _| m.signed = false),
        skip(StoreRejection::Unsigned)
    );
    assert_eq!(
        admit(&stored(&to_self), &node(), MAX, NOW),
        skip(StoreRejection::ForThisNode)
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
        admit(&message, &banning, MAX, NOW),
        skip(StoreRejection::OriginBanned)
    );
    assert_eq!(
        admit(&stored(&unknown), &node(), MAX, NOW),
        Ok(Retention::Low)
    );
    assert_eq!(
        admitted(|_, n| n.region = false),
        skip(StoreRejection::OutOfRegion)
    );
    assert_eq!(
        admitted(|_, n| n.banned = Some(public_key(2))),
        skip(StoreRejection::DestinationBanned)
    );
    assert_eq!(admitted(|_, _| {}), Ok(Retention::High));
}

#[test]
fn bounds_are_inclusive() {
    assert_eq!(admitted(|m, _| m.expires = Some(NOW)), Ok(Retention::High));
    assert_eq!(admitted(|m, _| m.body_bytes = MAX), Ok(Retention::High));
    assert_eq!(admitted(|m, _| m.occurrences = 0), Ok(Retention::High));
}

#[test]
fn earlier_rows_win() {
    // A duplicate on a node that does not store, empty and expired: row 1 speaks.
    let all = admitted(|m, n| {
        m.occurrences = 2;
        n.stores = false;
        m.body_bytes = 0;
        m.expires = Some(UnixSeconds(0));
    });
    assert_eq!(all, Err(StoreRejection::Duplicate));
    assert_eq!(
        admitted(|m, _| (m.readable, m.signed) = (true, false)),
        Err(StoreRejection::Readable)
    );
}

#[test]
fn two_rows_leave_the_message_unmarked() {
    assert!(
        StoreRejection::Duplicate.leaves_message_unmarked()
            && StoreRejection::NotAStore.leaves_message_unmarked()
    );
    assert!(
        !StoreRejection::Empty.leaves_message_unmarked()
            && !StoreRejection::OutOfRegion.leaves_message_unmarked()
    );
}

/// Row SF-01: without the feature, nothing is looked up and the message stays unmarked.
#[test]
fn sf01_a_client_stores_nothing() {
    struct Client(PublicKey);
    impl LocalView for Client {
        fn stores(&self) -> bool {
            false
        }
        fn own_key(&self) -> &PublicKey {
            &self.0
        }
        fn is_banned(&self, _: &PublicKey) -> bool {
            unreachable!("nothing is looked up")
        }
        fn in_region(&self, _: &PublicKey) -> bool {
            unreachable!("nothing is looked up")
        }
    }
    let away = Destination::PublicKey(public_key(2));
    let decision = admit(&stored(&away), &Client(public_key(1)), MAX, NOW);
    assert_eq!(decision, Err(StoreRejection::NotAStore));
}
