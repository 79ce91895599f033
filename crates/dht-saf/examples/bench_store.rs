//! Measures the store on a real file: `cargo run --release -p dht-saf --example bench_store [ROWS] [DIRECTORY]`.
//!
//! Bodies of 6 kB. Prints one row a line; the figures of the project come from `cargo xtask bench`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods)]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dht_core::{DedupHash, UnixSeconds};
use dht_saf::{
    Durability, Limits, Neighbour, NewRecord, Order, Query, Recipient, Retention, Room, Store,
    StoreConfig,
};
use hdrhistogram::Histogram;

const BODY: usize = 6_000;
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn record(number: u64, mailboxes: u64, body: &Bytes) -> NewRecord {
    let mut hash = [0; 32];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in hash.chunks_mut(8) {
        state ^= state >> 29;
        state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    hash[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    NewRecord {
        recipient: recipient(number % mailboxes),
        neighbour: Neighbour::from_bytes([(number % 8) as u8; 32]),
        hash: DedupHash(hash),
        retention: if number.is_multiple_of(2) {
            Retention::Low
        } else {
            Retention::High
        },
        expires: None,
        header: Bytes::from(vec![7; 250]),
        body: body.clone(),
    }
}

fn recipient(number: u64) -> Recipient {
    let mut key = [9; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Recipient::from_bytes(key)
}

fn config(durability: Durability) -> StoreConfig {
    let room = Room {
        rows: 1_000_000,
        bytes: 64 << 30,
    };
    StoreConfig {
        durability,
        limits: Limits {
            capacity: room,
            per_recipient: room,
            per_neighbour: room,
            ..Limits::default()
        },
        ..StoreConfig::default()
    }
}

fn fill(store: &Store, from: u64, count: u64, body: &Bytes, now: UnixSeconds) -> Duration {
    let start = Instant::now();
    let mut tickets = std::collections::VecDeque::new();
    for number in from..from + count {
        loop {
            match store.submit(record(number, 2_000, body), now) {
                Ok(ticket) => break tickets.push_back(ticket),
                Err(_) => tickets
                    .pop_front()
                    .map(|ticket: dht_saf::Ticket<_>| ticket.wait().unwrap()),
            };
        }
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    start.elapsed()
}

fn callers(
    store: &Store,
    callers: u64,
    count: u64,
    from: u64,
    body: &Bytes,
) -> (Duration, Histogram<u64>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let next = Arc::new(AtomicU64::new(from));
    let start = Instant::now();
    let waits = runtime.block_on(async {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (store, next, body) = (store.clone(), next.clone(), body.clone());
                tokio::spawn(async move {
                    let mut waits = Histogram::<u64>::new(3).unwrap();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= from + count {
                            return waits;
                        }
                        let start = Instant::now();
                        store
                            .insert(record(number, 2_000, &body), NOW)
                            .await
                            .unwrap();
                        waits.record(start.elapsed().as_micros() as u64).unwrap();
                    }
                })
            })
            .collect();
        let mut all = Histogram::<u64>::new(3).unwrap();
        for task in tasks {
            all.add(task.await.unwrap()).unwrap();
        }
        all
    });
    (start.elapsed(), waits)
}

/// Inserts from the side until told to stop; the longest waits, in microseconds.
fn side_load(
    store: &Store,
    stop: &Arc<AtomicBool>,
    from: u64,
    body: &Bytes,
    pause: Duration,
    now: UnixSeconds,
) -> std::thread::JoinHandle<Histogram<u64>> {
    let (store, stop, body) = (store.clone(), stop.clone(), body.clone());
    std::thread::spawn(move || {
        let mut waits = Histogram::<u64>::new(3).unwrap();
        let mut number = from;
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            store
                .submit(record(number, 2_000, &body), now)
                .unwrap()
                .wait()
                .unwrap();
            waits.record(start.elapsed().as_micros() as u64).unwrap();
            number += 1;
            std::thread::sleep(pause);
        }
        waits
    })
}

fn fetches(store: &Store, count: u64, stop: &AtomicBool, now: UnixSeconds) -> Histogram<u64> {
    let mut waits = Histogram::<u64>::new(3).unwrap();
    for number in 0..count {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let query = Query {
            limit: 50,
            order: Order::OldestFirst,
            ..Query::all(recipient(number * 7 % 2_000), now)
        };
        let start = Instant::now();
        let page = store.fetch(&query).unwrap();
        waits.record(start.elapsed().as_micros() as u64).unwrap();
        std::hint::black_box(page);
    }
    waits
}

fn shown(waits: &Histogram<u64>) -> String {
    format!(
        "p50 {} µs, p99 {} µs, max {} µs, n {}",
        waits.value_at_quantile(0.5),
        waits.value_at_quantile(0.99),
        waits.max(),
        waits.len()
    )
}

/// Processor time of the writing threads so far, in milliseconds; what a busy machine does not distort.
fn writer_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let own = stats.filter(|stat| stat.contains("(dht-saf-write)"));
    let ticks = own.map(|stat| {
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    });
    ticks.sum::<u64>() * 10
}

fn on_disk(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .fold((0, 0), |(length, blocks), file| {
            (length + file.len(), blocks + file.blocks() * 512)
        })
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments
        .next()
        .map_or(100_000, |rows| rows.parse().unwrap());
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(base).unwrap();
    let mut random = 1_u64;
    let body: Vec<u8> = (0..BODY)
        .map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 56) as u8
        })
        .collect();
    let body = Bytes::from(body);

    let path = directory.path().join("eventual");
    let store = Store::open(&path, config(Durability::Eventual)).unwrap();
    let took = fill(&store, 0, rows, &body, NOW);
    println!(
        "fill.eventual         {:>8.0} /s",
        rows as f64 / took.as_secs_f64()
    );
    let cpu = writer_cpu();
    let took = fill(&store, rows, rows / 2, &body, NOW);
    println!(
        "insert.eventual       {:>8.0} /s at {rows} rows, pipelined; {:.1} µs of the writer's processor time each",
        rows as f64 / 2.0 / took.as_secs_f64(),
        (writer_cpu() - cpu) as f64 * 2e3 / rows as f64
    );
    let (took, waits) = callers(&store, 64, rows / 4, rows * 3 / 2, &body);
    println!(
        "insert.eventual.64    {:>8.0} /s, {}",
        rows as f64 / 4.0 / took.as_secs_f64(),
        shown(&waits)
    );

    let stop = Arc::new(AtomicBool::new(false));
    println!(
        "fetch50 idle          {}",
        shown(&fetches(&store, 2_000, &stop, NOW))
    );
    let load = side_load(
        &store,
        &stop,
        10_000_000,
        &body,
        Duration::from_micros(50),
        NOW,
    );
    println!(
        "fetch50 with inserts  {}",
        shown(&fetches(&store, 4_000, &stop, NOW))
    );
    stop.store(true, Ordering::Relaxed);
    println!("  inserts beside      {}", shown(&load.join().unwrap()));
    let stats = store.stats();
    let (length, blocks) = on_disk(&path);
    println!(
        "disk                  {:.3} by length, {:.3} by blocks, per stored byte; {} rows",
        length as f64 / stats.bytes as f64,
        blocks as f64 / stats.bytes as f64,
        stats.rows
    );
    let start = Instant::now();
    drop(store);
    println!(
        "close                 {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let start = Instant::now();
    let store = Store::open(&path, config(Durability::Eventual)).unwrap();
    println!(
        "open                  {:.0} ms, {} rows",
        start.elapsed().as_secs_f64() * 1e3,
        store.stats().rows
    );

    // Half of the rows are Low and go after six hours.
    let later = NOW.saturating_add(7 * 60 * 60);
    let stop = Arc::new(AtomicBool::new(false));
    let load = side_load(
        &store,
        &stop,
        20_000_000,
        &body,
        Duration::from_millis(1),
        later,
    );
    let reads = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || fetches(&store, u64::MAX, &stop, NOW))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (start, cpu) = (Instant::now(), writer_cpu());
    let expired = runtime.block_on(store.expire(later)).unwrap();
    println!(
        "expire                {expired} rows in {:.0} ms, {} ms of the writer's processor time",
        start.elapsed().as_secs_f64() * 1e3,
        writer_cpu() - cpu
    );
    stop.store(true, Ordering::Relaxed);
    println!("  inserts beside      {}", shown(&load.join().unwrap()));
    println!("  fetches beside      {}", shown(&reads.join().unwrap()));
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();

    let path = directory.path().join("immediate");
    let store = Store::open(&path, config(Durability::Immediate)).unwrap();
    for (count, from) in [(1, 0), (64, 1_000_000), (256, 2_000_000)] {
        let total = if count == 1 { 1_000 } else { rows / 3 };
        let (took, waits) = callers(&store, count, total, from, &body);
        let rate = total as f64 / took.as_secs_f64();
        println!(
            "insert.immediate.{count:<4} {rate:>8.0} /s, {}",
            shown(&waits)
        );
    }
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();

    // Ten turnovers of a store at its capacity.
    let path = directory.path().join("turnover");
    let capacity = rows / 10;
    let limits = Limits {
        capacity: Room {
            rows: capacity,
            bytes: 64 << 30,
        },
        per_recipient: Room {
            rows: capacity,
            bytes: 64 << 30,
        },
        per_neighbour: Room {
            rows: capacity,
            bytes: 64 << 30,
        },
        ..Limits::default()
    };
    let turning = StoreConfig {
        limits,
        segment_bytes: 4 << 20,
        checkpoint_bytes: 8 << 20,
        ..config(Durability::Eventual)
    };
    let store = Store::open(&path, turning).unwrap();
    for turn in 0..=10 {
        fill(
            &store,
            turn * capacity,
            capacity,
            &body,
            NOW.saturating_add(turn),
        );
        runtime.block_on(store.checkpoint()).unwrap();
        let (stats, (length, blocks)) = (store.stats(), on_disk(&path));
        println!(
            "turnover {turn:<2}           {:.3} by length, {:.3} by blocks, {} rows",
            length as f64 / stats.bytes as f64,
            blocks as f64 / stats.bytes as f64,
            stats.rows
        );
    }
}
