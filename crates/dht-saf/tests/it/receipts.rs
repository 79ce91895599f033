//! Receipts over an in-memory stream.

use dht_core::{
    DedupHash, Disposition, Features, NodeId,
    test_util::{encrypted, identity},
};
use dht_saf::{Config, RECEIPT_LIMIT, Receipt, ReceiptAsker};
use futures::{
    Stream, StreamExt as _,
    future::{BoxFuture, join_all},
    stream,
};
use tokio::{io::DuplexStream, task::JoinSet};

use crate::world::{AWAY, Envelope, NODE, OTHER, World, peer};

/// Answers as this node does, which has no durable inbox.
fn serving(
    world: &World,
    streams: impl Stream<Item = (NodeId, DuplexStream)> + Send + 'static,
) -> BoxFuture<'static, ()> {
    let saf = world.saf.clone();
    Box::pin(async move { saf.serve_receipts(|_| false, streams).await })
}

/// An asker of this node; the tasks end with the set.
fn asker(world: &World) -> (ReceiptAsker, JoinSet<()>) {
    let (ours, theirs) = tokio::io::duplex(64);
    let asks = peer(OTHER, Features::NODE);
    let streams = stream::iter([(asks.node_id, theirs)]).chain(stream::pending());
    let mut tasks = JoinSet::new();
    tasks.spawn(serving(world, streams));
    let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
    tasks.spawn(carrying);
    (asker, tasks)
}

#[tokio::test]
async fn a_receipt_tells_what_is_stored() {
    let world = World::new(Config::default());
    let (asker, _tasks) = asker(&world);
    world.keep(AWAY, 1, 1).await;
    let hash = world.unreadable(AWAY, 1).hash;
    world.hand_over(OTHER, &hash);
    assert_eq!(asker.ask(hash).await, Some(Receipt::Stored));
    world.saf.store().unwrap().close();
    let refused = world.unreadable(AWAY, 2);
    let hash = refused.hash;
    world.hand_over(OTHER, &hash);
    world.store(refused).await;
    assert_eq!(asker.ask(hash).await, Some(Receipt::Neither));
}

#[tokio::test]
async fn a_thousand_questions_share_one_stream() {
    let world = World::new(Config::default());
    let (asker, _tasks) = asker(&world);
    // Asked before the messages arrive, and answered as they do.
    let hashes: Vec<_> = (1..=1_000)
        .map(|n| world.unreadable(AWAY, n).hash)
        .collect();
    for hash in &hashes {
        world.hand_over(OTHER, hash);
    }
    let asking = join_all(hashes.iter().map(|hash| asker.ask(*hash)));
    let (answers, ()) = tokio::join!(asking, world.keep(AWAY, 1_000, 1));
    assert!(answers.iter().all(|it| *it == Some(Receipt::Stored)));
}

#[tokio::test(start_paused = true)]
async fn no_receipt_without_the_message() {
    let world = World::new(Config::default());
    let (asker, _tasks) = asker(&world);
    let start = tokio::time::Instant::now();
    assert_eq!(asker.ask(DedupHash([9; 32])).await, Some(Receipt::Neither));
    assert!(start.elapsed() >= RECEIPT_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn idle_streams_are_closed() {
    let world = World::new(Config::default());
    let (asker, mut tasks) = asker(&world);
    let mine = mine(&world);
    let hash = mine.hash;
    world.hand_over(OTHER, &hash);
    world.handle(mine).await;
    assert_eq!(asker.ask(hash).await, Some(Receipt::Received));
    tasks.join_next().await.unwrap().unwrap();
    assert!(asker.is_closed());
    assert_eq!(asker.ask(hash).await, None);
}

#[tokio::test]
async fn what_was_delivered_is_received() {
    let world = World::new(Config::default());
    let (asker, _tasks) = asker(&world);
    let mine = mine(&world);
    let hash = mine.hash;
    world.hand_over(OTHER, &hash);
    let (answer, disposition) = tokio::join!(asker.ask(hash), world.handle(mine));
    assert_eq!(disposition, Disposition::Delivered);
    assert_eq!(answer, Some(Receipt::Received));
}

/// One peer opens stream after stream, and asks for what never comes: its third stream is closed, and another peer is
/// answered.
#[tokio::test(start_paused = true)]
async fn no_peer_takes_every_stream() {
    let world = World::new(Config::default());
    let (greedy, other) = (peer(NODE, Features::NODE), peer(OTHER, Features::NODE));
    let ends: Vec<_> = (0..400).map(|_| tokio::io::duplex(64)).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let theirs = theirs.into_iter().map(move |it| (greedy.node_id, it));
    let (asking, answering) = tokio::io::duplex(64);
    let streams = stream::iter(theirs.chain([(other.node_id, answering)])).chain(stream::pending());
    let mut tasks = JoinSet::new();
    tasks.spawn(serving(&world, streams));
    let mut askers = Vec::new();
    for (n, stream) in ours.into_iter().enumerate() {
        let (asker, carrying) = ReceiptAsker::new(async { Ok(stream) });
        tasks.spawn(carrying);
        let asking = asker.clone();
        let hash = DedupHash([u8::try_from(n % 256).unwrap(); 32]);
        tasks.spawn(async move { asking.ask(hash).await.map_or((), drop) });
        askers.push(asker);
    }
    let (asker, carrying) = ReceiptAsker::new(async { Ok(asking) });
    tasks.spawn(carrying);
    let mine = mine(&world);
    let hash = mine.hash;
    world.hand_over(OTHER, &hash);
    world.handle(mine).await;
    let start = tokio::time::Instant::now();
    assert_eq!(asker.ask(hash).await, Some(Receipt::Received));
    assert!(start.elapsed() < RECEIPT_LIMIT);
    let open = askers.iter().filter(|asker| !asker.is_closed()).count();
    assert_eq!(open, 2);
}

/// Hundreds of peers ask for what never comes, and one more is answered.
#[tokio::test(start_paused = true)]
async fn many_askers_keep_nobody_out() {
    let world = World::new(Config::default());
    let mut tasks = JoinSet::new();
    let ends: Vec<_> = (0..400).map(|_| tokio::io::duplex(64)).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let peers = (1_000..).map(|seed| identity(seed).node_id().to_owned());
    let peers: Vec<_> = peers.take(400).collect();
    let last_peer = peers[399];
    let streams = stream::iter(peers.into_iter().zip(theirs)).chain(stream::pending());
    tasks.spawn(serving(&world, streams));
    let mut askers: Vec<_> = ours
        .into_iter()
        .map(|stream| {
            let (asker, carrying) = ReceiptAsker::new(async { Ok(stream) });
            tasks.spawn(carrying);
            asker
        })
        .collect();
    let last = askers.pop().unwrap();
    for asker in askers {
        tasks.spawn(async move { asker.ask(DedupHash([9; 32])).await.map_or((), drop) });
    }
    let mine = mine(&world);
    let hash = mine.hash;
    world.dedup.note_deliverer(&last_peer, &hash);
    world.handle(mine).await;
    let start = tokio::time::Instant::now();
    assert_eq!(last.ask(hash).await, Some(Receipt::Received));
    assert!(start.elapsed() < RECEIPT_LIMIT);
}

/// A peer that did not hand the message over learns nothing from its hash, nor from the time of the answer.
#[tokio::test]
async fn only_deliverers_get_receipts() {
    let world = World::new(Config::default());
    let mine = mine(&world);
    let (received, stored) = (mine.hash, world.unreadable(AWAY, 1).hash);
    world.handle(mine).await;
    world.keep(AWAY, 1, 1).await;
    // Only now: the clock would run ahead of the thread that stores.
    tokio::time::pause();
    let (asker, _tasks) = asker(&world);
    for hash in [received, stored] {
        world.hand_over(NODE, &hash);
    }
    for hash in [received, stored, DedupHash([9; 32])] {
        let start = tokio::time::Instant::now();
        assert_eq!(asker.ask(hash).await, Some(Receipt::Neither));
        assert_eq!(start.elapsed().as_secs(), RECEIPT_LIMIT.as_secs());
    }
    // A repeat of the message is enough.
    world.hand_over(OTHER, &received);
    assert_eq!(asker.ask(received).await, Some(Receipt::Received));
}

/// Questions beyond the rate wait in the stream; each is answered.
#[tokio::test(start_paused = true)]
async fn many_questions_wait_their_turn() {
    const COUNT: u32 = 12_000;
    let world = World::new(Config::default());
    let (asker, _tasks) = asker(&world);
    let mine = mine(&world);
    let hash = mine.hash;
    world.hand_over(OTHER, &hash);
    world.handle(mine).await;
    let start = tokio::time::Instant::now();
    for _ in 0..COUNT {
        assert_eq!(asker.ask(hash).await, Some(Receipt::Received));
    }
    let seconds = start.elapsed().as_secs();
    assert!((2..=3).contains(&seconds), "{seconds}");
}

/// A message for the node under test.
fn mine(world: &World) -> Envelope {
    world.open(encrypted(
        &identity(7),
        world.identity.public_key(),
        b"x",
        1,
    ))
}
