//! Inserts without end and prints what is acknowledged, to be killed at any moment:
//! `crash_writer DIRECTORY write [immediate|eventual] [FIRST]`, then `crash_writer DIRECTORY check < ACKNOWLEDGED`.
//!
//! `write` prints a line `n` for each acknowledged message `n`, written in one piece before the next is waited for.
//! `check` opens the directory, compares everything with everything, looks for every `n` on its input, prints
//! `acknowledged A lost L inconsistent I opened_ms M`, and exits with 1 if anything is lost or inconsistent.
#![allow(clippy::print_stdout, reason = "it is a tool for tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures how long opening takes"
)]

use std::{
    collections::{HashSet, VecDeque},
    error::Error,
    io::{BufRead, Write},
    process::ExitCode,
    time::Instant,
};

use bytes::Bytes;
use dht_core::{DedupHash, UnixSeconds};
use dht_saf::{
    Durability, Limits, Neighbour, NewRecord, Query, Recipient, Retention, Room, Store, StoreConfig,
};

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const MAILBOXES: u64 = 16;
/// Requests that wait for a commit at a time.
const IN_FLIGHT: usize = 64;

fn config(durability: Durability) -> StoreConfig {
    let room = Room {
        rows: 10_000_000,
        bytes: 1 << 40,
    };
    let limits = Limits {
        capacity: room,
        per_recipient: room,
        per_neighbour: room,
        ..Limits::default()
    };
    // Small files, so that a kill meets segments being begun and checkpoints under way.
    StoreConfig {
        durability,
        limits,
        segment_bytes: 1 << 20,
        checkpoint_bytes: 2 << 20,
        ..StoreConfig::default()
    }
}

fn mailbox(n: u64) -> Recipient {
    let mut key = [1; 32];
    key.iter_mut()
        .zip((n % MAILBOXES).to_be_bytes())
        .for_each(|(to, from)| *to = from);
    Recipient::from_bytes(key)
}

fn message(n: u64) -> NewRecord {
    let mut hash = [2; 32];
    hash.iter_mut()
        .zip(n.to_be_bytes())
        .for_each(|(to, from)| *to = from);
    let size = usize::try_from(n.wrapping_mul(2_654_435_761) % 6_000).unwrap_or(0);
    NewRecord {
        recipient: mailbox(n),
        neighbour: Neighbour::from_bytes([3; 32]),
        hash: DedupHash(hash),
        retention: Retention::High,
        expires: None,
        header: Bytes::from(n.to_le_bytes().to_vec()),
        body: Bytes::from(vec![n.to_le_bytes()[0]; size.max(1)]),
    }
}

fn write(directory: &str, durability: Durability, first: u64) -> Result<(), Box<dyn Error>> {
    let store = Store::open(directory, config(durability))?;
    let mut waiting = VecDeque::new();
    let mut out = std::io::stdout().lock();
    for n in first.. {
        waiting.push_back((n, store.submit(message(n), NOW)?));
        if waiting.len() >= IN_FLIGHT
            && let Some((n, ticket)) = waiting.pop_front()
        {
            ticket.wait()?;
            out.write_all(format!("{n}\n").as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

fn check(directory: &str) -> Result<ExitCode, Box<dyn Error>> {
    let start = Instant::now();
    let store = Store::open(directory, config(Durability::Immediate))?;
    let opened = start.elapsed().as_millis();
    let found = store.verify()?;
    for fault in found.faults.iter().take(20) {
        println!("{fault}");
    }
    let mut there = HashSet::new();
    let mut faults = found.faults.len();
    for n in 0..MAILBOXES {
        let query = Query {
            limit: usize::MAX,
            max_bytes: usize::MAX,
            ..Query::all(mailbox(n), NOW)
        };
        for record in store.fetch(&query)?.records {
            let n = u64::from_le_bytes(record.header.as_ref().try_into()?);
            // Whole, and what was sent.
            faults += usize::from(record.body != message(n).body || !there.insert(n));
        }
    }
    let (mut acknowledged, mut lost) = (0, 0);
    for line in std::io::stdin().lock().lines() {
        // A kill may cut the last line; a number that is cut short was acknowledged under its whole name only.
        if let Ok(n) = line?.parse::<u64>() {
            acknowledged += 1;
            lost += usize::from(!there.contains(&n));
        }
    }
    println!("acknowledged {acknowledged} lost {lost} inconsistent {faults} opened_ms {opened}");
    Ok(if lost + faults == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [directory, "check"] => check(directory),
        [directory, "write", rest @ ..] => {
            let durability = match rest.first() {
                Some(&"eventual") => Durability::Eventual,
                _ => Durability::Immediate,
            };
            write(
                directory,
                durability,
                rest.get(1).map_or(Ok(0), |first| first.parse())?,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: crash_writer DIRECTORY write [immediate|eventual] [FIRST] | check".into()),
    }
}
