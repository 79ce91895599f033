//! The mailbox of messages for offline peers, on a real file beside this program, with bodies of 6 kB.
//!
//! Beside each figure stand what the same file and device give without a store (the floor) and what the project
//! asks for (the target).

mod floor;
mod load;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use dht_core::UnixSeconds;
use dht_mailbox::{Durability, Query, Quota, Store, StoreConfig};
use tokio::runtime::Runtime;

use self::load::{Load, NOW, RECORD_BYTES, config, mailbox, on_disk};
use crate::{
    report::{Report, Row},
    sample::{Effort, median, now},
};

/// Between one insertion or fetch that runs beside something else and the next: there are two cores.
const PAUSE: Duration = Duration::from_millis(1);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Rows that are there before anything is measured.
    rows: u64,
    /// Insertions in one sample.
    sample: u64,
    fetches: usize,
    /// Rows of the store that is turned over.
    turned: u64,
}

impl Scale {
    const fn of(effort: Effort) -> Self {
        if effort.quick {
            Self {
                rows: 4_000,
                sample: 500,
                fetches: 200,
                turned: 500,
            }
        } else {
            Self {
                rows: 100_000,
                sample: 10_000,
                fetches: 4_000,
                turned: 10_000,
            }
        }
    }
}

pub(crate) fn run(report: &mut Report, effort: Effort) -> anyhow::Result<()> {
    if !report.wants("saf.") {
        return Ok(());
    }
    // Beside the program: temporary directories are often in memory.
    let program = std::env::current_exe()?;
    let beside = program.parent().context("no directory of the program")?;
    let directory = tempfile::tempdir_in(beside)?;
    let (path, scale) = (directory.path(), Scale::of(effort));
    full_store(report, effort, scale, &path.join("full"))?;
    immediate(report, effort, scale, &path.join("immediate"))?;
    expire_immediate(report, scale, &path.join("expire"))?;
    turnovers(report, scale, &path.join("turned"))?;
    million(report, effort, &path.join("million"))
}

/// Everything that is measured on a store of [`Scale::rows`].
fn full_store(
    report: &mut Report,
    effort: Effort,
    scale: Scale,
    path: &Path,
) -> anyhow::Result<()> {
    let rows = [
        "saf.insert.eventual",
        "saf.fetch50",
        "saf.fetch50.median",
        "saf.fetch50.insert",
        "saf.expire",
        "saf.expire.rows",
        "saf.open",
        "saf.disk",
    ];
    if !rows.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let load = Load::new();
    let mut store = Store::open(path, config(Durability::Eventual))?;
    load.insert(&store, scale.rows, NOW)?;
    let row = Row::new(
        "saf.insert.eventual",
        "messages/s",
        "one 6 kB message until acknowledged, 1 024 waiting",
    )
    .target(25_000.0);
    if report.wants(row.name) {
        let floor = floor::append(path, scale.sample, effort.samples)?;
        let mut samples = Vec::new();
        for _ in 0..effort.samples {
            samples.push(load.insert(&store, scale.sample, NOW)?);
        }
        report.row(row.floor(floor), || median(samples));
    }
    fetches(report, scale, &load, &store, path)?;
    let disk = Row::new(
        "saf.disk",
        "B/B",
        "bytes of the files for each byte of header and body",
    )
    .floor(1.0)
    .target(1.8);
    if report.wants(disk.name) {
        Runtime::new()?.block_on(store.checkpoint())?;
        let stored = store.stats().rows as f64 * RECORD_BYTES as f64;
        report.row(disk, || on_disk(path) / stored);
    }
    let open = Row::new(
        "saf.open",
        "ms",
        "opening the full store after it was closed",
    )
    .target(1_000.0);
    if report.wants(open.name) {
        let mut samples = Vec::new();
        for _ in 0..effort.samples.min(5) {
            drop(store);
            let start = now();
            store = Store::open(path, config(Durability::Eventual))?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        report.row(open, || median(samples));
    }
    expire(report, &load, &store)?;
    drop(store);
    Ok(std::fs::remove_dir_all(path)?)
}

/// 50 rows of a mailbox while insertions run.
fn fetches(
    report: &mut Report,
    scale: Scale,
    load: &Load,
    store: &Store,
    path: &Path,
) -> anyhow::Result<()> {
    let row = Row::new(
        "saf.fetch50",
        "us",
        "99 of 100: 50 messages of one mailbox, some 1 000 insertions a second beside it",
    )
    .target(1_000.0);
    let names = [row.name, "saf.fetch50.median", "saf.fetch50.insert"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let floor = floor::read(path, 50)?;
    let stop = AtomicBool::new(false);
    let (inserts, waits) = thread::scope(|scope| {
        let inserts = scope.spawn(|| load.trickle(store, &stop, PAUSE, NOW));
        let waits = fetch(store, scale.fetches, &stop, NOW);
        stop.store(true, Relaxed);
        let inserts = inserts.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        anyhow::Ok((inserts, waits?))
    })?;
    let median = Row::new("saf.fetch50.median", "us", "the middle of the same").floor(floor);
    report.row(row.floor(floor), || quantile(&waits, 0.99) * 1e6);
    report.row(median, || quantile(&waits, 0.5) * 1e6);
    let insert = Row::new(
        "saf.fetch50.insert",
        "ms",
        "longest wait of one of these insertions",
    )
    .target(5.0);
    report.row(insert, || quantile(&inserts, 1.0) * 1e3);
    Ok(())
}

/// Half of the rows expire while others insert and fetch.
fn expire(report: &mut Report, load: &Load, store: &Store) -> anyhow::Result<()> {
    let row = Row::new("saf.expire", "ms", "longest wait of an insertion or fetch, some 1 000 of each a second, while half of the rows expire")
        .target(20.0);
    if !report.wants(row.name) && !report.wants("saf.expire.rows") {
        return Ok(());
    }
    let (wait, rate) = expire_half(load, store)?;
    let rows = Row::new("saf.expire.rows", "rows/s", "rows that expire meanwhile");
    report.row(row, || wait);
    report.row(rows, || rate);
    Ok(())
}

/// As [`expire`], with commits that are on the device before they are acknowledged.
fn expire_immediate(report: &mut Report, scale: Scale, path: &Path) -> anyhow::Result<()> {
    let row = Row::new(
        "saf.expire.immediate",
        "ms",
        "as saf.expire, every insertion and removal on the device before it is acknowledged",
    );
    let rows = Row::new(
        "saf.expire.immediate.rows",
        "rows/s",
        "rows that expire meanwhile",
    );
    if !report.wants(row.name) && !report.wants(rows.name) {
        return Ok(());
    }
    let load = Load::new();
    let store = Store::open(path, config(Durability::Immediate))?;
    load.insert(&store, scale.rows, NOW)?;
    let (wait, rate) = expire_half(&load, &store)?;
    report.row(row, || wait);
    report.row(rows, || rate);
    drop(store);
    Ok(std::fs::remove_dir_all(path)?)
}

/// The longest wait in milliseconds of an insertion or fetch while half of the rows expire, and how many expire a
/// second.
fn expire_half(load: &Load, store: &Store) -> anyhow::Result<(f64, f64)> {
    // Every second row is of the class that goes after six hours.
    let later = NOW.saturating_add(7 * 60 * 60);
    let stop = AtomicBool::new(false);
    let (waits, rate) = thread::scope(|scope| {
        let inserts = scope.spawn(|| load.trickle(store, &stop, PAUSE, later));
        let fetches = scope.spawn(|| fetch(store, usize::MAX, &stop, later));
        let runtime = Runtime::new()?;
        let start = now();
        let expired = runtime.block_on(store.expire(later));
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        let panicked = |_| anyhow::anyhow!("panicked");
        let mut waits = inserts.join().map_err(panicked)??;
        waits.extend(fetches.join().map_err(panicked)??);
        anyhow::Ok((waits, expired? as f64 / seconds))
    })?;
    Ok((quantile(&waits, 1.0) * 1e3, rate))
}

/// Insertions that are acknowledged when they are on the device.
fn immediate(report: &mut Report, effort: Effort, scale: Scale, path: &Path) -> anyhow::Result<()> {
    for (name, callers, target) in [
        ("saf.insert.immediate.1", 1, None),
        ("saf.insert.immediate.64", 64, Some(10_000.0)),
        ("saf.insert.immediate.256", 256, Some(15_000.0)),
    ] {
        let mut row = Row::new(
            name,
            "messages/s",
            "one 6 kB message until it is on the device",
        );
        row.target = target;
        if !report.wants(name) {
            continue;
        }
        let (load, runtime) = (Load::new(), runtime()?);
        let store = Store::open(path, config(Durability::Immediate))?;
        let count = if callers == 1 {
            scale.sample / 20
        } else {
            scale.sample
        };
        let floor = floor::append_synced(path, callers, effort.samples)?;
        let mut samples = Vec::new();
        for _ in 0..effort.samples {
            samples.push(runtime.block_on(load.call(&store, callers, count))?);
        }
        report.row(row.floor(floor), || median(samples));
        drop(store);
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// Opening a store of a million small messages; only in a full run.
fn million(report: &mut Report, effort: Effort, path: &Path) -> anyhow::Result<()> {
    let row = Row::new(
        "saf.open.million",
        "ms",
        "opening a store of 1 000 000 messages of 100 bytes after it was closed",
    )
    .target(3_000.0);
    if effort.quick || !report.wants(row.name) {
        return Ok(());
    }
    let load = Load::small();
    let store = Store::open(path, config(Durability::Eventual))?;
    load.insert(&store, 1_000_000, NOW)?;
    drop(store);
    let mut samples = Vec::new();
    for _ in 0..effort.samples.min(3) {
        let start = now();
        let store = Store::open(path, config(Durability::Eventual))?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
        drop(store);
    }
    report.row(row, || median(samples));
    Ok(std::fs::remove_dir_all(path)?)
}

/// Ten times as many messages as a store holds, on a simulated clock.
fn turnovers(report: &mut Report, scale: Scale, path: &Path) -> anyhow::Result<()> {
    let row = Row::new(
        "saf.disk.turnovers",
        "x",
        "bytes of the files after ten turnovers, over those after two",
    )
    .floor(1.0)
    .target(1.2);
    if !report.wants(row.name) {
        return Ok(());
    }
    let room = Quota {
        rows: scale.turned,
        bytes: 1 << 40,
    };
    let mut limits = config(Durability::Eventual).limits;
    limits.capacity = room;
    // Files as large in proportion as those of a full store.
    let bytes = scale.turned * RECORD_BYTES;
    let settings = StoreConfig {
        limits,
        segment_bytes: u32::try_from(bytes / 20)?,
        checkpoint_bytes: bytes / 12,
        ..config(Durability::Eventual)
    };
    let (load, runtime) = (Load::new(), Runtime::new()?);
    let store = Store::open(path, settings)?;
    let mut sizes = Vec::new();
    for turn in 0..=10_u64 {
        // Half of them outlives the other half, so that files die in pieces.
        let now = NOW.saturating_add(turn * 7 * 60 * 60);
        load.offer(&store, scale.turned, now)?;
        runtime.block_on(store.expire(now))?;
        runtime.block_on(store.checkpoint())?;
        sizes.push(on_disk(path) / store.stats().rows as f64);
    }
    let (Some(second), Some(last)) = (sizes.get(2), sizes.last()) else {
        anyhow::bail!("no turnovers");
    };
    report.row(row, || last / second);
    Ok(())
}

fn fetch(
    store: &Store,
    count: usize,
    stop: &AtomicBool,
    at: UnixSeconds,
) -> anyhow::Result<Vec<f64>> {
    let next = AtomicU64::new(0);
    let mut waits = Vec::new();
    while waits.len() < count && !stop.load(Relaxed) {
        let query = Query::all(mailbox(next.fetch_add(7, Relaxed)), at);
        let start = now();
        let page = store.fetch(&query)?;
        waits.push(start.elapsed().as_secs_f64());
        std::hint::black_box(page);
        thread::sleep(PAUSE);
    }
    Ok(waits)
}

/// The value that this part of all values does not exceed.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a length is a place in it"
    )]
    let place = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or(f64::NAN)
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?)
}
