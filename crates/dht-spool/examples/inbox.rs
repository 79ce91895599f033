//! An inbox alone: `cargo run -p dht-spool --example inbox [FILE]`.
//!
//! Messages arrive, some twice. An application reads and acks half of them and stops. It comes back and gets the rest;
//! an archive with a place of its own gets them all.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::{error::Error, path::PathBuf};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds};
use dht_spool::{
    Arrival, DEFAULT_CONSUMER, Inbox, InboxConfig, Inserted, Limit, NewRow, Start, Ticket,
};

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().join("inbox.redb"), PathBuf::from);
    // A clock outside of examples.
    let now = UnixSeconds(1_700_000_000);

    println!("1. Ten messages arrive; a mailbox holder brings three of them again.");
    let inbox = Inbox::open(&path, InboxConfig::default(), now)?;
    inbox.add_consumer("archive", Start::Oldest).wait()?;
    let live = (1..=10).map(|number| message(number, Arrival::Live, now));
    let stored = (1..=3).map(|number| message(number, Arrival::Stored, now));
    // All tickets first: the writer commits what waits together.
    let tickets: Vec<_> = live
        .chain(stored)
        .map(|message| inbox.insert(message))
        .collect();
    let outcomes: Vec<_> = tickets
        .into_iter()
        .map(Ticket::wait)
        .collect::<Result<_, _>>()?;
    let fresh = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Inserted::New(_)));
    println!("   {} of {} were new", fresh.count(), outcomes.len());

    println!("2. The application reads five, acks them, and stops before it acks two more.");
    let limit = Limit {
        rows: 5,
        ..Limit::default()
    };
    let page = inbox.read(DEFAULT_CONSUMER, None, limit)?;
    if let Some(last) = page.last() {
        inbox.ack(DEFAULT_CONSUMER, last.id, now).wait()?;
        let unacked = inbox.read(DEFAULT_CONSUMER, Some(last.id), Limit { rows: 2, ..limit })?;
        println!("   acked up to {}, saw {} more", last.id, unacked.len());
    }
    inbox.close();

    println!("3. It comes back: everything that it did not ack is there.");
    let inbox = Inbox::open(&path, InboxConfig::default(), now)?;
    for row in inbox.read(DEFAULT_CONSUMER, None, Limit::default())? {
        println!("   {}: {:?}", row.id, row.message.payload);
        inbox.ack(DEFAULT_CONSUMER, row.id, now).wait()?;
    }
    for consumer in inbox.stats().consumers {
        println!("   {} has {} to read", consumer.name, consumer.pending);
    }

    println!("4. The archive acks; the rows leave, and are not received again.");
    inbox.ack("archive", inbox.stats().newest, now).wait()?;
    let again = inbox.insert(message(7, Arrival::Stored, now)).wait()?;
    println!(
        "   {} rows are held, message 7 is {again:?}",
        inbox.stats().rows
    );
    Ok(())
}

fn message(number: u8, arrival: Arrival, now: UnixSeconds) -> NewRow {
    NewRow {
        received_at: now,
        origin: None,
        origin_is_proven: true,
        message_type: 1,
        payload: Bytes::from(format!("message {number}")),
        via: NodeId::from_bytes(&[1; NodeId::LENGTH]).expect("as long as a node id is"),
        deliverer: Deliverer::from_bytes([1; 32]),
        arrival,
        hash: DedupHash([number; 32]),
    }
}
