//! Measures operations of the inbox a second: `cargo run --release -p dht-spool --example measure [DIRECTORY] [ROWS]`.
//!
//! Inserts durable rows of 1 kB from 1, 64 and 256 callers that each wait for their last row, then from one caller
//! that keeps the queue full, and reads and acks them.
#![allow(clippy::print_stdout, reason = "it is an example")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    collections::VecDeque,
    error::Error,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, NodeId, UnixSeconds};
use dht_spool::{Arrival, Inbox, InboxConfig, Limit, NewRow};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const PAYLOAD: [u8; 1024] = [7; 1024];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let temporary = tempfile::tempdir()?;
    let directory = arguments
        .next()
        .map_or_else(|| temporary.path().into(), PathBuf::from);
    let rows = arguments.next().and_then(|rows| rows.into_string().ok());
    let rows: u64 = rows.map_or(Ok(20_000), |rows| rows.parse())?;
    for callers in [1, 64, 256] {
        let inbox = open(&directory, &format!("waiting-{callers}.redb"))?;
        let each = if callers == 1 { rows / 20 } else { rows } / callers;
        let started = Instant::now();
        thread::scope(|scope| {
            for caller in 0..callers {
                let inbox = &inbox;
                scope.spawn(move || {
                    for number in 0..each {
                        // Errors are the measurement's end.
                        let _ = inbox.insert(row(caller * each + number)).wait();
                    }
                });
            }
        });
        report(
            &format!("insert, {callers} waiting callers"),
            inbox.stats().rows,
            started,
        );
    }
    let inbox = open(&directory, "full.redb")?;
    let started = Instant::now();
    let mut tickets = VecDeque::new();
    for number in 0..rows {
        tickets.push_back(inbox.insert(row(number)));
        while tickets.len() > 3000
            && let Some(ticket) = tickets.pop_front()
        {
            ticket.wait()?;
        }
    }
    for ticket in tickets {
        ticket.wait()?;
    }
    report("insert, full queue", inbox.stats().rows, started);

    let started = Instant::now();
    let (mut read, mut after) = (0, None);
    loop {
        let page = inbox.read("default", after, Limit::default())?;
        let Some(last) = page.last() else { break };
        read += page.len() as u64;
        after = Some(last.id);
    }
    report("read, pages of 100", read, started);

    let started = Instant::now();
    drop(inbox);
    let inbox = Inbox::open(directory.join("full.redb"), InboxConfig::default(), NOW)?;
    report("close and open with so many", inbox.stats().rows, started);

    let started = Instant::now();
    let mut read = 0;
    loop {
        let page = inbox.read("default", None, Limit::default())?;
        let Some(last) = page.last() else { break };
        read += page.len() as u64;
        inbox.ack("default", last.id, NOW).wait()?;
    }
    report("read and ack, pages of 100", read, started);
    Ok(())
}

fn open(directory: &Path, name: &str) -> Result<Inbox, Box<dyn Error>> {
    let path = directory.join(name);
    let _ = std::fs::remove_file(&path);
    Ok(Inbox::open(path, InboxConfig::default(), NOW)?)
}

fn row(number: u64) -> NewRow {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    NewRow {
        received_at: NOW,
        origin: None,
        origin_is_proven: true,
        message_type: 1,
        payload: Bytes::from_static(&PAYLOAD),
        via: NodeId::from_bytes(&[1; NodeId::LENGTH]).expect("as long as a node id is"),
        deliverer: Deliverer::from_bytes([1; 32]),
        arrival: Arrival::Live,
        hash: DedupHash(hash),
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows are few")]
fn report(what: &str, rows: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds;
    println!("{what:32} {rows:8} rows {seconds:8.3} s {rate:10.0} /s");
}
