//! The phases of the run.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use dht_core::{Address, Clock as _};
use dht_node::{Config, SystemClock};
use dht_tests::{
    load::{Peer, Probe, Traffic},
    target::{Process, Setup, Status},
};
use dht_transport::EnqueueError;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Flags,
    report::{Report, idle_limit_mb},
};

/// How long the capacity is measured, after [`WARM_UP`].
const CAPACITY: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(2);

/// More a second than any node on two cores takes, for what is prepared before the capacity is known.
const GUESS: usize = 16_000;

/// Messages a peer keeps on their way while the capacity is measured.
const WINDOW: usize = 16;

/// How often peers offer messages in the overload.
const TICK: Duration = Duration::from_millis(5);

/// How often the node is looked at, and asked a control question.
const LOOK: Duration = Duration::from_millis(200);

/// Nothing received for this long under full load is a deadlock.
const STUCK: Duration = Duration::from_secs(5);

const MIB: f64 = 1_048_576.0;

/// Time to become idle again.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Messages that the overload offered.
#[derive(Debug, Default)]
struct Offered {
    messages: AtomicU64,
    refused: AtomicU64,
}

/// The node once it is idle again.
#[derive(Debug)]
struct Rest {
    rss_mb: f64,
    /// Seconds that this took.
    seconds: f64,
    remembered_mb: f64,
    stored_mb: f64,
}

/// A look at the node every now and then.
struct Watch<'a> {
    process: &'a mut Process,
    probe: &'a Probe,
    progress: ProgressBar,
    last: Status,
    since: Instant,
    stuck: bool,
    deadlocks: u64,
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut process = Process::start(&setup(flags.memory_mib), None)?;
    let report = runtime.block_on(measure(flags, &mut process));
    runtime.shutdown_timeout(Duration::from_secs(1));
    report
}

async fn measure(flags: &Flags, process: &mut Process) -> anyhow::Result<Report> {
    let progress = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")
            .context("the progress line")?,
    );
    progress.enable_steady_tick(Duration::from_millis(200));
    let say = |text: String| {
        // A bar is not drawn where nobody watches; a phase is worth a line there too.
        if progress.is_hidden() {
            #[expect(clippy::print_stderr, reason = "tells the person at the terminal")]
            {
                eprintln!("load: {text}");
            }
        }
        progress.set_message(text);
    };

    say(format!("connecting {} peers", flags.peers));
    let address = process.address().clone();
    let mut peers = Vec::new();
    for seed in 0..flags.peers {
        peers.push(Arc::new(Peer::connect(seed + 1, &address, drop).await?));
    }
    let probe = Probe::connect(0, &address).await?;
    let idle_rss_mb = process.resident_mb().0;
    let expires = SystemClock.now().saturating_add(flags.seconds + 3_600);
    let mut traffic = peers
        .iter()
        .map(|peer| {
            let sender = peer.identity();
            let seed = u64::from_le_bytes(first_bytes(sender.public_key().as_bytes()));
            Traffic::new(seed, sender.secret_key(), &address.public_key, expires)
        })
        .collect::<Result<Vec<_>, _>>()?;

    say("preparing messages for the capacity run".to_owned());
    let seconds = (CAPACITY + WARM_UP).as_secs_f64();
    prepare(&mut traffic, GUESS as f64 * seconds);
    say("measuring capacity".to_owned());
    let (capacity, received) = {
        let mut watch = Watch::new(process, &probe, progress.clone())?;
        let stop = CancellationToken::new();
        let mut senders = JoinSet::new();
        for (peer, traffic) in peers.iter().zip(traffic.drain(..)) {
            senders.spawn(closed_loop(Arc::clone(peer), traffic, stop.clone()));
        }
        watch.look_for(WARM_UP).await?;
        let before = (watch.last.clone(), Instant::now());
        watch.look_for(CAPACITY).await?;
        let took = before.1.elapsed().as_secs_f64();
        let rate = |now: u64, then: u64| (now - then) as f64 / took;
        let rates = (
            rate(watch.last.useful(), before.0.useful()),
            rate(watch.last.received, before.0.received),
        );
        stop.cancel();
        while let Some(back) = senders.join_next().await {
            traffic.push(back?.context("a peer lost its connection")?);
        }
        rates
    };
    ensure!(capacity > 0.0, "the node did nothing with what it was sent");

    say(format!(
        "capacity {capacity:.0} useful messages/s; preparing messages for the overload"
    ));
    prepare(&mut traffic, received * 1.3 * flags.seconds as f64);
    say(format!(
        "overload: {:.0} messages/s offered",
        received * flags.factor
    ));
    let answered_before = probe.answers().times.len();
    let offered = Arc::<Offered>::default();
    let stop = CancellationToken::new();
    let mut senders = JoinSet::new();
    let rate = received * flags.factor / flags.peers as f64;
    let mut watch = Watch::new(process, &probe, progress.clone())?;
    for (peer, traffic) in peers.iter().zip(traffic) {
        let task = open_loop(Arc::clone(peer), traffic, rate, Arc::clone(&offered));
        let stop = stop.clone();
        senders.spawn(async move { stop.run_until_cancelled(task).await });
    }
    let before = (watch.last.clone(), Instant::now());
    watch.look_for(Duration::from_secs(flags.seconds)).await?;
    let took = before.1.elapsed().as_secs_f64();
    let after = watch.last.clone();
    let deadlocks = watch.deadlocks;
    stop.cancel();
    while senders.join_next().await.is_some() {}
    let lost_peers = peers.iter().filter(|peer| !peer.is_connected()).count();

    say("waiting for the node to become idle".to_owned());
    let rest = idle(process, idle_rss_mb).await?;
    // Questions still on their way had their time to be answered.
    let answers = probe.answers();
    progress.finish_and_clear();
    let mut times = answers.times;
    let mut overload_times = times.split_off(answered_before.min(times.len()));
    overload_times.extend(answers.waiting);
    let drops = after
        .drops
        .iter()
        .map(|(reason, count)| {
            let earlier = before.0.drops.get(reason).copied().unwrap_or_default();
            (reason.clone(), count - earlier)
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let goodput = (after.useful() - before.0.useful()) as f64 / took;
    Ok(Report {
        seconds: took,
        peers: flags.peers,
        budget_mb: flags.memory_mib,
        idle_rss_mb,
        peak_rss_mb: process.resident_mb().1,
        idle_rss_after_mb: rest.rss_mb,
        idle_after_seconds: rest.seconds,
        remembered_mb: rest.remembered_mb,
        stored_mb: rest.stored_mb,
        capacity_per_second: capacity,
        offered_per_second: offered.messages.load(Relaxed) as f64 / took,
        refused_by_senders: offered.refused.load(Relaxed),
        goodput_per_second: goodput,
        goodput_ratio: goodput / capacity,
        received: after.received - before.0.received,
        drops,
        unsent: after.unsent - before.0.unsent,
        deadlocks,
        lost_peers,
        ..Report::default()
    }
    .with_control(overload_times))
}

/// A node that listens on loopback, with every other setting at its default.
fn setup(memory_mib: usize) -> Setup {
    let config = Config {
        listen: vec![Address::tcp([127, 0, 0, 1].into(), 0)],
        memory_mib,
        ..Config::default()
    };
    // No peer has this seed.
    Setup::new(config, u64::MAX)
}

/// Signs on all cores.
fn prepare(traffic: &mut [Traffic], messages: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of messages"
    )]
    let each = (messages / traffic.len().max(1) as f64) as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = traffic.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        for some in traffic.chunks_mut(share) {
            scope.spawn(move || some.iter_mut().for_each(|traffic| traffic.prepare(each)));
        }
    });
}

/// Keeps a few messages on their way until told to stop. `None` if the node is lost.
async fn closed_loop(
    peer: Arc<Peer>,
    mut traffic: Traffic,
    stop: CancellationToken,
) -> Option<Traffic> {
    let mut waiting = VecDeque::new();
    while !stop.is_cancelled() {
        if waiting.len() >= WINDOW
            && let Some(oldest) = waiting.pop_front()
        {
            // Its outcome shows in the next attempt.
            let _: Result<(), dht_core::DeliveryError> = oldest.await;
        }
        let frame = traffic.next_message().1;
        peer.send_when_possible(frame, &mut waiting).await.ok()?;
    }
    Some(traffic)
}

/// Offers `rate` messages a second, whatever becomes of them.
async fn open_loop(peer: Arc<Peer>, mut traffic: Traffic, rate: f64, offered: Arc<Offered>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due = 0.0;
    // One that was refused is offered again in place of the next, which spares making it.
    let mut refused = None;
    loop {
        ticks.tick().await;
        due += rate * TICK.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the fraction stays due; as saturates"
        )]
        let mut left = due.max(0.0) as u64;
        due -= left as f64;
        offered.messages.fetch_add(left, Relaxed);
        while left > 0 {
            let frame = refused.take().unwrap_or_else(|| traffic.next_message().1);
            match peer.send(frame.clone()) {
                Ok(delivery) => drop(delivery),
                Err(EnqueueError::QueueFull) => {
                    refused = Some(frame);
                    break;
                }
                Err(_) => return,
            }
            left -= 1;
        }
        // The queue is as full as it was a microsecond ago: the rest of this tick is lost.
        offered.refused.fetch_add(left, Relaxed);
    }
}

impl<'a> Watch<'a> {
    fn new(
        process: &'a mut Process,
        probe: &'a Probe,
        progress: ProgressBar,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            last: process.status()?,
            process,
            probe,
            progress,
            since: Instant::now(),
            stuck: false,
            deadlocks: 0,
        })
    }

    /// Looks at the node and asks a control question, again and again.
    async fn look_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        looks.tick().await;
        while Instant::now() < end {
            looks.tick().await;
            self.probe.ask()?;
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let counts = self.process.status()?;
        if counts.received != self.last.received {
            self.since = Instant::now();
            self.stuck = false;
        } else if self.since.elapsed() > STUCK && !self.stuck {
            self.stuck = true;
            self.deadlocks += 1;
        }
        let (rss, _) = self.process.resident_mb();
        if !self.progress.is_hidden() {
            let before = self.progress.message();
            let phase = before.split(" | ").next().unwrap_or_default();
            let times = self.probe.answers().times;
            let last = times.last().copied().unwrap_or_default();
            self.progress.set_message(format!(
                "{phase} | {} received, {rss:.0} MiB, control answered in {} ms",
                counts.received,
                last.as_millis()
            ));
        }
        self.last = counts;
        Ok(())
    }
}

/// Waits until the node holds nothing and is about as small as it was, for [`IDLE_LIMIT`] at most.
async fn idle(process: &mut Process, idle_rss_mb: f64) -> anyhow::Result<Rest> {
    let start = Instant::now();
    loop {
        let counts = process.status()?;
        let rest = Rest {
            rss_mb: process.resident_mb().0,
            seconds: start.elapsed().as_secs_f64(),
            remembered_mb: counts.remembered_bytes as f64 / MIB,
            stored_mb: counts.stored_bytes as f64 / MIB,
        };
        let limit = idle_limit_mb(idle_rss_mb, rest.remembered_mb, rest.stored_mb);
        let is_idle = counts.held_bytes == 0 && counts.queued_bytes == 0 && rest.rss_mb <= limit;
        if is_idle || start.elapsed() > IDLE_LIMIT {
            return Ok(rest);
        }
        sleep(LOOK).await;
    }
}

fn first_bytes(bytes: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    [a, b, c, d, e, f, g, h]
}
