//! Scenarios as data, and the outcome of one.

mod churn;
mod converge;
mod dead;
mod eclipse;
mod heal;
mod idle;
mod mesh;
mod messages;

use std::{fmt, io, time::Duration};

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::{
    runtime,
    time::{Instant, sleep},
};

use crate::{
    fabric::{Traffic, Weather},
    world::World,
};

/// Every scenario.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "messages",
        what: "every node knows three others; messages between random pairs, with loss, a cut and resets on the way",
        nodes: 60,
        least: 2,
        play: |run| Box::pin(messages::play(run)),
    },
    Scenario {
        name: "converge",
        what: "every node knows one seed; pools fill, and every node finds every other by key",
        nodes: 60,
        least: 2,
        play: |run| Box::pin(converge::play(run)),
    },
    Scenario {
        name: "churn",
        what: "every node is restarted once in ten minutes, while a message a second is sent between random nodes",
        nodes: 60,
        least: 2,
        play: |run| Box::pin(churn::play(run)),
    },
    Scenario {
        name: "heal",
        what: "a third dies in silence and returns, a partition of ten minutes, an interface gone, the seed gone for good",
        nodes: 60,
        least: 3,
        play: |run| Box::pin(heal::play(run)),
    },
    Scenario {
        name: "idle",
        what: "every node knows one seed; then nothing happens for an hour, which costs few bytes and dials",
        nodes: 60,
        least: 2,
        play: |run| Box::pin(idle::play(run)),
    },
    Scenario {
        name: "dead",
        what: "half of the nodes that everybody heard of are gone; every node loses its connections once in half an hour",
        nodes: 60,
        least: 20,
        play: |run| Box::pin(dead::play(run)),
    },
    Scenario {
        name: "eclipse",
        what: "64 ids made to be nearest to one node, in four networks",
        nodes: 40,
        least: 5,
        play: |run| Box::pin(eclipse::play(run)),
    },
];

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Course of events, in one sentence.
    pub what: &'static str,
    /// Number of nodes unless another is asked for.
    pub nodes: usize,
    /// Least number of nodes with which its checks can hold.
    pub least: usize,
    play: fn(&mut Run) -> BoxFuture<'_, anyhow::Result<()>>,
}

/// Is told what happens, with the time that nodes feel.
pub type Progress = Box<dyn FnMut(Duration, &str) + Send>;

/// A scenario being played.
pub struct Run {
    /// The nodes and the network.
    pub world: World,
    /// Number of nodes to play with.
    pub nodes: usize,
    /// The short form, for every change of the code.
    pub short: bool,
    checks: Vec<Check>,
    numbers: Vec<(&'static str, f64)>,
    progress: Progress,
}

/// A statement that holds or does not.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The statement.
    pub what: String,
    /// Whether it held.
    pub held: bool,
}

/// How a scenario is played.
pub struct Settings {
    /// Number of nodes; the scenario's own if `None`.
    pub nodes: Option<usize>,
    /// All that happens follows from it.
    pub seed: u64,
    /// With less of everything.
    pub short: bool,
    /// Properties of paths.
    pub weather: Weather,
    /// Gets a line for each event.
    pub trace: Option<Box<dyn io::Write + Send>>,
    /// Is told what happens, with the time that nodes feel.
    pub progress: Progress,
}

/// Outcome of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Number of nodes.
    pub nodes: usize,
    /// The seed that it was played with.
    pub seed: u64,
    /// Whether every check held.
    pub held: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// Measurements by name.
    pub numbers: serde_json::Map<String, serde_json::Value>,
    /// Time that passed for the nodes, in seconds.
    pub node_seconds: f64,
    /// Number of events in the digest.
    pub events: u64,
    /// Digest of all events: equal for two runs in which the same happened.
    pub digest: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: None,
            seed: 1,
            short: false,
            weather: Weather::default(),
            trace: None,
            progress: Box::new(|_, _| {}),
        }
    }
}

impl Scenario {
    /// Plays the scenario on this thread, with a clock that stands still while anything is left to do.
    ///
    /// # Errors
    /// If it could not be played, as with fewer nodes than [`least`](Self::least). What the nodes did wrong is in the checks.
    pub fn run(&self, settings: Settings) -> anyhow::Result<Outcome> {
        if let Some(nodes) = settings.nodes.filter(|nodes| *nodes < self.least) {
            let (name, least) = (self.name, self.least);
            anyhow::bail!("{name} is played with {least} nodes or more, not with {nodes}");
        }
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let outcome = runtime.block_on(self.play(settings));
        drop(runtime);
        outcome
    }

    async fn play(&self, settings: Settings) -> anyhow::Result<Outcome> {
        let mut run = Run {
            world: World::new(settings.seed, settings.weather, settings.trace),
            nodes: settings.nodes.unwrap_or(match settings.short {
                true => self.nodes / 3,
                false => self.nodes,
            }),
            short: settings.short,
            checks: Vec::new(),
            numbers: Vec::new(),
            progress: settings.progress,
        };
        (self.play)(&mut run).await?;
        run.count_traffic();
        let node_seconds = run.world.elapsed().as_secs_f64();
        let (digest, events) = (run.world.log.digest(), run.world.log.events());
        run.world.end_all().await;
        let numbers = run.numbers.iter();
        Ok(Outcome {
            scenario: self.name,
            nodes: run.nodes,
            seed: settings.seed,
            held: run.checks.iter().all(|check| check.held),
            checks: run.checks,
            numbers: numbers
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect(),
            node_seconds,
            events,
            digest,
        })
    }
}

impl Run {
    /// Notes a statement and whether it holds.
    pub fn check(&mut self, held: bool, what: impl fmt::Display) {
        self.checks.push(Check {
            what: what.to_string(),
            held,
        });
    }

    /// Notes a measurement.
    pub fn number(&mut self, name: &'static str, value: f64) {
        self.numbers.push((name, value));
    }

    /// Tells the person who waits.
    pub fn tell(&mut self, what: impl fmt::Display) {
        (self.progress)(self.world.elapsed(), &what.to_string());
    }

    /// Lets time pass until `is_so`, at most for `limit`; how long it took, `None` if it did not come.
    pub async fn until(
        &mut self,
        limit: Duration,
        mut is_so: impl FnMut(&World) -> bool,
    ) -> Option<Duration> {
        let start = Instant::now();
        while !is_so(&self.world) {
            if start.elapsed() >= limit {
                return None;
            }
            sleep(Duration::from_millis(100)).await;
        }
        Some(start.elapsed())
    }

    /// Notes and checks what became of all messages.
    pub fn check_mail(&mut self) {
        let delivered = self.world.delivered();
        let (sent, received) = (delivered.sent, delivered.received);
        let taken = sent - delivered.refused;
        let because = self
            .world
            .refusal()
            .map(|error| format!(" ({error})"))
            .unwrap_or_default();
        self.check(
            delivered.refused == 0,
            format_args!("{} of {sent} messages refused{because}", delivered.refused),
        );
        self.check(
            received == taken,
            format_args!("{} of {taken} messages lost", taken - received),
        );
        self.check(
            delivered.again == 0,
            format_args!("{} came again after they were acked", delivered.again),
        );
        self.number("messages", as_number(sent));
        for (name, share) in [
            ("delivery_p50_ms", 0.5),
            ("delivery_p99_ms", 0.99),
            ("delivery_max_ms", 1.0),
        ] {
            let value = quantile(&delivered.latencies, share);
            self.number(name, value.as_secs_f64() * 1e3);
        }
    }

    /// Counters of each node since the start.
    fn traffic_of_nodes(&self) -> anyhow::Result<Vec<Traffic>> {
        let hosts = (0..self.world.len()).map(|node| self.world.identity(node));
        let fabric = &self.world.fabric;
        let traffic = hosts.map(|it| Ok(fabric.traffic_of(it?.host)));
        traffic.collect()
    }

    fn count_traffic(&mut self) {
        let traffic = self.world.fabric.traffic();
        let seconds = self.world.elapsed().as_secs_f64();
        let per_node = traffic.bytes as f64 / as_number(self.nodes) / seconds;
        self.number("bytes_per_node_second", per_node);
        self.number("dials", traffic.dials as f64);
        self.number("dials_connected", traffic.connected as f64);
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Outcome {
    /// A table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |held| if held { "held" } else { "FAILED" };
        let Self {
            scenario,
            nodes,
            seed,
            ..
        } = self;
        writeln!(
            f,
            "{scenario}: {} ({nodes} nodes, seed {seed})",
            state(self.held)
        )?;
        for check in &self.checks {
            writeln!(f, "  {:<8} {}", state(check.held), check.what)?;
        }
        for (name, value) in &self.numbers {
            match value.as_f64() {
                Some(value) => writeln!(f, "  {name:<24} {value:>12.1}")?,
                // It did not come to that.
                None => writeln!(f, "  {name:<24} {:>12}", "-")?,
            }
        }
        writeln!(f, "  {:<24} {:>12.1}", "node_seconds", self.node_seconds)?;
        write!(
            f,
            "  {:<24} {} over {} events",
            "digest", self.digest, self.events
        )
    }
}

/// The value that a share of sorted values does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index"
)]
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let index = (as_number(sorted.len()) * share).ceil() as usize;
    sorted
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
const fn as_number(count: usize) -> f64 {
    count as f64
}
