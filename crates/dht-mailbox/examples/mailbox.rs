//! A mailbox on disk: `cargo run -p dht-mailbox --example mailbox [DIRECTORY]`.
//!
//! Stores 120 sealed messages for Bob, restarts, fetches them page by page, deletes what was fetched and expires the rest.
#![allow(clippy::print_stdout, reason = "it is an example")]

use bytes::Bytes;
use dht_core::{DedupHash, UnixSeconds};
use dht_mailbox::{
    Deliverer, NewRecord, Query, Recipient, Retention, Store, StoreConfig, StoreError,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().into(), std::path::PathBuf::from);
    let (bob, now) = (Recipient::from_bytes([1; 32]), UnixSeconds(1_700_000_000));

    let store = Store::open(&directory, StoreConfig::default())?;
    for number in 0..120 {
        store.insert(message(bob, number), now).await?; // on the device when this returns
    }
    println!("stored     {:?}", store.stats());
    store.close();

    let store = Store::open(&directory, StoreConfig::default())?;
    let query = Query::all(bob, now);
    let mut page = store.fetch(&query)?;
    while page.more {
        println!("fetched    {} messages", page.records.len());
        let rows = page.records.iter().map(|record| record.id).collect();
        store.delete(rows, Some(bob)).await?;
        page = store.fetch(&query)?;
    }
    println!("not yet deleted: {}", store.stats().rows);
    let expired = store.expire(now.saturating_add(4 * 86_400)).await?;
    println!("expired    {expired} messages");
    store.close();
    match store.insert(message(bob, 200), now).await {
        Err(StoreError::Closed) if expired == 20 => Ok(()),
        other => Err(format!("{expired} expired, then {other:?}").into()),
    }
}

/// A message that `number` tells from all others.
fn message(recipient: Recipient, number: u8) -> NewRecord {
    NewRecord {
        recipient,
        deliverer: Deliverer::from_bytes([2; 32]), // who delivered it
        hash: DedupHash([number; 32]),             // the same hash again is the same message
        retention: Retention::High,
        expires: None,
        header: Bytes::from_static(b"header"),
        body: Bytes::from_static(b"sealed"),
    }
}
