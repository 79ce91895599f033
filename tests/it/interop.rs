//! Recorded conversations with stock nodes, replayed to a node of ours in the place of either.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Address, DropReason, Entropy as _, Features, ManualClock, Network, NodeIdentity, Priority,
    SecretKey, SeededEntropy, SendParams, SharedClock, UnixSeconds,
};
use dht_node::{Node, OsEntropy};
use dht_stack::ByteBudget;
use dht_tests::interop::{ANSWERS, Recording, Report, Role, Wire, fingerprint, stranger};
use dht_transport::{IdentityRules, Transport, check_identity, encode_identity};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::net::{builder_with, message, until, within};

/// Time in which a stream is closed, much more than it takes.
const LIMIT: Duration = Duration::from_secs(20);

/// The recordings, each with its file name.
fn recordings() -> Vec<(String, Recording)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/recordings");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .map(|path| (path.display().to_string(), Recording::read(&path).unwrap()))
        .collect()
}

/// Sends the frames that `sender` sent to a node with the key of the other, at the time of the recording. Nothing is dropped but a
/// response with stored messages, for which this node has not asked.
async fn replay(name: &str, recording: &Recording, sender: Role) {
    let (sending, receiving): (SecretKey, SecretKey) = match sender {
        Role::Stock => (
            recording.stock.parse().unwrap(),
            recording.ours.parse().unwrap(),
        ),
        Role::Ours => (
            recording.ours.parse().unwrap(),
            recording.stock.parse().unwrap(),
        ),
    };
    let (key, now) = (sending.public_key(), UnixSeconds(recording.at));
    let clock: SharedClock = Arc::new(ManualClock::new(now));
    let node: Node = within(builder_with(receiving).clock(Arc::clone(&clock)).start())
        .await
        .unwrap();
    // A message counts as received once the application asks for the next.
    let mut inbox = node.subscribe();
    let (reads, mut read) = mpsc::unbounded_channel();
    let _reader = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(received) = inbox.recv().await {
            reads.send(received).unwrap();
        }
    }));

    let claimed = vec![Address::tcp(Ipv4Addr::LOCALHOST.into(), 18_189)];
    let mut rng = SeededEntropy::new(1).rng();
    let identity = NodeIdentity::new(sending, Features::NODE, claimed, now, &mut rng);
    let (transport, _outlets) = Transport::builder(
        Arc::new(identity),
        Network::LocalNet,
        Arc::new(OsEntropy),
        clock,
        ByteBudget::new(16 << 20),
    )
    .start()
    .unwrap();
    let address = node.peer_address();
    let dial = transport.dial(&address.public_key, &address.addresses);
    within(dial).await.unwrap();

    let frames = recording.frames.iter().filter(|frame| frame.by == sender);
    for (number, frame) in (1_u64..).zip(frames) {
        let to = node.public_key().node_id();
        let envelope = frame.envelope().unwrap();
        let sent = transport.send(&to, envelope, Priority::Direct).unwrap();
        within(sent).await.unwrap();
        let what = format!("{name}: {}", frame.what);
        if let Some(content) = &frame.message {
            let received = within(read.recv()).await.unwrap();
            assert_eq!(received.sender, content.signed.then_some(key), "{what}");
            let payload = &received.message.payload;
            let got = (payload.len(), fingerprint(payload));
            assert_eq!(got, (content.bytes, content.hash.clone()), "{what}");
            assert_eq!(received.message.message_type, 7, "{what}");
        }
        // The next one only after it has gone all the way.
        until(|| node.stats().messages_received >= number).await;
    }
    let stats = node.stats();
    let drops = stats.drops.iter().filter(|(_, count)| *count > 0);
    let drops: Vec<_> = drops.map(|(reason, _)| reason).collect();
    assert!(
        drops
            .iter()
            .all(|reason| *reason == DropReason::Unrequested),
        "{name}: {drops:?}"
    );
    assert_eq!(node.directory().banned(now), []);
}

#[tokio::test]
async fn interop_stock_frames_are_understood() {
    for (name, recording) in recordings() {
        replay(&name, &recording, Role::Stock).await;
    }
}

/// A stock node understood them when they were recorded.
#[tokio::test]
async fn interop_own_frames_are_understood() {
    for (name, recording) in recordings() {
        replay(&name, &recording, Role::Ours).await;
    }
}

/// Each node dialled, and was dialled; a stock node took the identity of ours.
#[tokio::test]
async fn interop_handshakes_are_understood() {
    for (name, recording) in recordings() {
        let keys = [&recording.stock, &recording.ours].map(|key| key.parse::<SecretKey>().unwrap());
        let [stock, ours] = keys;
        let mut played = Vec::new();
        for handshake in &recording.handshakes {
            let (own, other) = match handshake.by {
                Role::Stock => (&stock, &ours),
                Role::Ours => (&ours, &stock),
            };
            let (key, identity) = handshake.replay(other).await.unwrap();
            assert_eq!(key, own.public_key(), "{name}");
            assert_eq!(identity, handshake.identity().unwrap(), "{name}");
            let message = Bytes::copy_from_slice(&identity[3..]);
            let (rules, now) = (IdentityRules::default(), UnixSeconds(recording.at));
            let info = check_identity(message, &key, &rules, now).unwrap();
            let again = encode_identity(0, &info.claim, &info.user_agent, &info.protocols);
            assert_eq!(again.unwrap(), identity, "{name}");
            played.push((handshake.by, handshake.dials));
        }
        let all = [Role::Stock, Role::Ours].map(|by| [true, false].map(|dials| (by, dials)));
        assert_eq!(played, all.concat(), "{name}");
    }
}

/// A stock node answered so, and opened streams so.
#[tokio::test]
async fn interop_streams_are_as_recorded() {
    for (name, recording) in recordings() {
        let node = within(builder_with(recording.ours.parse().unwrap()).start())
            .await
            .unwrap();
        let connect = async |protocols: Vec<Bytes>| {
            let identity = stranger();
            let wire = Wire::connect(&node.peer_address(), &identity, &protocols).await;
            let id = *identity.node_id();
            until(|| node.peers().iter().any(|peer| peer.node_id == id)).await;
            (wire.unwrap(), *identity.public_key())
        };
        let (mut wire, _key) = connect(Vec::new()).await;
        for exchange in &recording.streams.exchanges {
            let played = exchange.play(&mut wire, LIMIT).await.unwrap();
            assert_eq!(played, *exchange, "{name}");
        }
        assert_eq!(recording.streams.openings.len(), ANSWERS.len());
        for (answer, opening) in ANSWERS.iter().zip(&recording.streams.openings) {
            let (mut wire, key) = connect(answer.protocols()).await;
            let params = SendParams::builder().direct_public_key(key).finish();
            let _sending = node.request(params, message("x")).await.unwrap();
            let given = answer.give(&mut wire).await.unwrap();
            assert_eq!(given, *opening, "{name}");
        }
        assert_eq!(node.directory().banned(UnixSeconds(recording.at)), []);
    }
}

/// `cargo xtask interop --report` writes a row for each scenario that was played; a new or changed one has none.
#[test]
fn interop_scenarios_have_passed_as_reported() {
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let report = Report::read(&report).unwrap();
    let mut versions: Vec<_> = recordings()
        .into_iter()
        .map(|(_, recording)| recording.version)
        .collect();
    versions.sort();
    assert_eq!(report.missing(&versions), [""; 0]);
}
