//! Receipts over an in-memory stream.

use dht_core::{
    DedupHash, Disposition,
    test_util::{encrypted, identity},
};
use dht_saf::{Config, RECEIPT_LIMIT, Receipt, ReceiptAsker, serve_receipts};
use futures::{StreamExt as _, future::join_all, stream};
use tokio::task::JoinSet;

use crate::world::{AWAY, Envelope, World};

/// An asker of this node; the tasks end with the set.
fn asker(world: &World) -> (ReceiptAsker, JoinSet<()>) {
    let (ours, theirs) = tokio::io::duplex(64);
    let streams = stream::iter([theirs]).chain(stream::pending());
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_receipts(world.saf.clone(), streams));
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
    assert_eq!(asker.ask(hash).await, Some(Receipt::Stored));
    world.saf.store().unwrap().close();
    let refused = world.unreadable(AWAY, 2);
    let hash = refused.hash;
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
    let (answer, disposition) = tokio::join!(asker.ask(hash), world.handle(mine));
    assert_eq!(disposition, Disposition::Delivered);
    assert_eq!(answer, Some(Receipt::Received));
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
