//! A mailbox on disk: `cargo run -p dht-mailbox --example mailbox [DIRECTORY]`.
#![allow(clippy::print_stdout, reason = "it is an example")]

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_mailbox::{NewRecord, Query, Recipient, Retention, Store, StoreConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let argument = std::env::args_os().nth(1);
    let directory = argument.map_or_else(|| temporary.path().into(), std::path::PathBuf::from);
    let (bob, now) = (Recipient::from_bytes([1; 32]), UnixSeconds(1_700_000_000));

    let store = Store::open(&directory, StoreConfig::default())?;
    for number in 0..120 {
        let message = NewRecord {
            recipient: bob,
            deliverer: Deliverer::from_bytes([2; 32]), // who delivered it
            hash: DedupHash([number; 32]),             // the same hash again is the same message
            retention: Retention::High,
            expires: None,
            header: Bytes::from_static(b"header"),
            body: Bytes::from_static(b"sealed"),
        };
        store.insert(message, now).await?; // on the device when this returns
    }
    store.close();

    let store = Store::open(&directory, StoreConfig::default())?;
    let page = store.fetch(&Query::all(bob, now))?;
    println!("fetched {}, more: {}", page.records.len(), page.more);
    let rows = page.records.iter().map(|record| record.id).collect();
    store.delete(rows, Some(bob)).await?;
    let expired = store.expire(now.saturating_add(4 * 86_400)).await?;
    println!("expired {expired} messages");
    store.close();
    Ok(())
}
