//! Timing.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Whether figures need not be comparable.
    pub(crate) quick: bool,
    /// Samples of each row, at least five.
    pub(crate) samples: usize,
    /// Length of one sample of a single-threaded row.
    pub(crate) sample: Duration,
    /// Messages in one sample of a whole-stack row.
    pub(crate) messages: usize,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        quick: true,
        samples: 5,
        sample: Duration::from_millis(8),
        messages: 400,
    };
    pub(crate) const FULL: Self = Self {
        quick: false,
        samples: 7,
        sample: Duration::from_millis(150),
        messages: 6_000,
    };
}

/// Median microseconds of one call of `work`.
pub(crate) fn micros<T>(effort: Effort, mut work: impl FnMut() -> T) -> f64 {
    micros_with(effort, || (), |()| work())
}

/// Median microseconds of one call of `work` on a value of `prepare`, whose cost is not counted.
pub(crate) fn micros_with<I, T>(
    effort: Effort,
    mut prepare: impl FnMut() -> I,
    mut work: impl FnMut(I) -> T,
) -> f64 {
    // One batch is long enough for the clock and short enough for the memory of its prepared values.
    let mut batch = 1_usize;
    while timed(batch, &mut prepare, &mut work) < Duration::from_millis(1) && batch < 4_096 {
        batch *= 2;
    }
    let samples = (0..effort.samples).map(|_| {
        let mut spent = Duration::ZERO;
        let mut calls = 0_u32;
        while spent < effort.sample {
            spent += timed(batch, &mut prepare, &mut work);
            calls += u32::try_from(batch).unwrap_or(u32::MAX);
        }
        spent.as_secs_f64() * 1e6 / f64::from(calls)
    });
    median(samples.collect())
}

#[expect(
    clippy::disallowed_methods,
    reason = "measuring is what this crate is for"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn timed<I, T>(
    batch: usize,
    prepare: &mut impl FnMut() -> I,
    work: &mut impl FnMut(I) -> T,
) -> Duration {
    let inputs: Vec<I> = (0..batch).map(|_| prepare()).collect();
    let start = now();
    for input in inputs {
        black_box(work(black_box(input)));
    }
    start.elapsed()
}
