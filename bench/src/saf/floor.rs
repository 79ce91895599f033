//! Speed of the file system without a store.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::load::RECORD_BYTES;
use crate::sample::{median, now};

/// Messages of a commit.
const BATCH: u64 = 512;

/// Messages a second that are checked and appended to a file, without a sync.
pub(super) fn append(beside: &Path, count: u64, samples: usize) -> anyhow::Result<f64> {
    write(beside, count, BATCH, samples, |_| Ok(()))
}

/// Messages a second when so many at a time are appended to a file and synced.
pub(super) fn append_synced(beside: &Path, batch: u64, samples: usize) -> anyhow::Result<f64> {
    write(beside, batch * 16, batch, samples, File::sync_data)
}

fn write(
    beside: &Path,
    count: u64,
    batch: u64,
    samples: usize,
    finish: impl Fn(&File) -> std::io::Result<()>,
) -> anyhow::Result<f64> {
    let record = usize::try_from(RECORD_BYTES * batch)?;
    let bytes = vec![7; record];
    let mut rates = Vec::new();
    for _ in 0..samples {
        let mut file = tempfile::tempfile_in(beside)?;
        let start = now();
        let mut written = 0;
        while written < count {
            std::hint::black_box(crc32fast::hash(&bytes));
            file.write_all(&bytes)?;
            finish(&file)?;
            written += batch;
        }
        rates.push(written as f64 / start.elapsed().as_secs_f64());
    }
    Ok(median(rates))
}

/// Microseconds that reading and checking so many messages takes, each at a place of its own.
pub(super) fn read(beside: &Path, messages: u32) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(beside)?;
    let mut bytes = vec![7; usize::try_from(RECORD_BYTES)?];
    for _ in 0..messages * 20 {
        file.write_all(&bytes)?;
    }
    let mut times = Vec::new();
    for turn in 0..200 {
        let start = now();
        for message in 0..messages {
            let place = u64::from((message * 20 + turn % 20) % (messages * 20));
            file.seek(SeekFrom::Start(place * RECORD_BYTES))?;
            file.read_exact(&mut bytes)?;
            std::hint::black_box(crc32fast::hash(&bytes));
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}
