//! Receipts over an in-memory stream.

use std::io;

use dht_core::DedupHash;
use dht_saf::{Config, ask_receipt, serve_receipts};
use futures::{StreamExt as _, stream};

use crate::world::{AWAY, World};

async fn ask(world: &World, hash: DedupHash) -> io::Result<bool> {
    let (ours, theirs) = tokio::io::duplex(64);
    let streams = stream::iter([theirs]).chain(stream::pending());
    let serving = tokio::spawn(serve_receipts(world.saf.clone(), streams));
    let stored = ask_receipt(ours, &hash).await;
    serving.abort();
    stored
}

#[tokio::test]
async fn a_receipt_tells_what_is_stored() {
    let world = World::new(Config::default());
    world.keep(AWAY, 1, 1).await;
    assert!(ask(&world, world.unreadable(AWAY, 1).hash).await.unwrap());
    world.saf.store().unwrap().close();
    let refused = world.unreadable(AWAY, 2);
    let hash = refused.hash;
    world.store(refused).await;
    assert!(!ask(&world, hash).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn no_receipt_without_the_message() {
    let world = World::new(Config::default());
    let error = ask(&world, DedupHash([9; 32])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
