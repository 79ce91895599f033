//! Kill, start, check, and again.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use dht_core::{Entropy as _, SeededEntropy};
use rand_core::Rng;

use super::{
    account::Account,
    life::{Network, Role},
    line::Line,
    process::Process,
};

/// Messages given to the sender and not acknowledged.
const OPEN: usize = 32;
/// Shortest time between two messages.
const PACE: Duration = Duration::from_millis(4);
/// A kill comes within this time after the start of its round.
const MOST_DELAY: Duration = Duration::from_millis(900);
/// A process is down for at most this long.
const MOST_DOWN: Duration = Duration::from_millis(500);
/// One in five is killed again within this time after its start, while it opens its files and connects.
const MOST_OPENING: Duration = Duration::from_millis(300);
/// Messages that are acknowledged in a round, at least.
const ROUND_MESSAGES: u64 = 10;
/// Messages that are acknowledged before a check with the recipient down, at least.
const JUDGED_MESSAGES: u64 = 50;
/// Rounds between two checks without the sender.
const JUDGED: u32 = 10;
/// Without progress for this long, nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lines that the checker has not heard yet.
const LINES: usize = 1024;
/// Ports listened on: below those that the operating system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Command.
#[derive(Clone, Debug)]
pub struct Chain {
    /// How often each process is killed, at least.
    pub rounds: u32,
    /// Seed of the moments, keys and ports.
    pub seed: u64,
    /// The program to start as one of the nodes; it is given role, network and home.
    pub program: Vec<OsString>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages that the sender's outbox reported as received or stored.
    pub acknowledged: u64,
    /// Of these, never read by the consumer.
    pub lost: u64,
    /// Messages that the consumer got again after its ack.
    pub twice: u64,
    /// Whatever else must not happen, in words.
    pub faults: Vec<String>,
}

/// Something that is done to a process.
#[derive(Clone, Copy, Debug)]
enum Step {
    Kill(Role),
    Start(Role),
}

/// The three processes, and what is known of them.
struct World {
    processes: [Process; 3],
    lines: Receiver<(Role, Result<Line, String>)>,
    account: Account,
    /// The next message.
    next: u64,
    /// When the last one was given to the sender; `None` once no more are.
    given: Option<Instant>,
    kills: u64,
}

/// Kills the three nodes, whose homes are in `directory`, as often as told, and prints a line now and then.
///
/// # Errors
/// When a process cannot be started or ends by itself, or nothing is acknowledged for long.
pub fn run(chain: &Chain, directory: &Path) -> Result<Outcome, String> {
    let mut chance = SeededEntropy::new(chain.seed).rng();
    let mut world = World::new(chain, directory, &mut chance)?;
    let mut outcome = Outcome::default();
    for round in 1..=chain.rounds {
        world.round(&mut chance)?;
        if round % JUDGED != 0 && round != chain.rounds {
            continue;
        }
        let stored = world.check()?;
        outcome.lost = world.account.missing().count() as u64;
        say(&format!(
            "{round:>4}/{}  {} kills: {} acknowledged, {stored} of them read with the sender gone, {} lost, {} twice",
            chain.rounds,
            world.kills,
            world.account.acknowledged(),
            outcome.lost,
            world.account.twice(),
        ))?;
        world.step(Step::Start(Role::Sender))?;
        if outcome.lost > 0 {
            break;
        }
    }
    // Messages not acknowledged yet arrive as well.
    world.given = None;
    if !world.pump_until(Account::is_complete)? {
        let open: Vec<_> = world.account.open().take(5).collect();
        let missing: Vec<_> = world.account.missing().take(5).collect();
        world.account.fault(format!(
            "messages that do not arrive: {missing:?}, and not acknowledged: {open:?}"
        ));
        outcome.lost = world.account.missing().count() as u64;
    }
    outcome.acknowledged = world.account.acknowledged();
    outcome.twice = world.account.twice();
    outcome.faults = world.account.faults().to_vec();
    Ok(outcome)
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the moments are those of the machine"
)]
fn now() -> Instant {
    Instant::now()
}

/// A random time below `most`.
fn below(most: Duration, chance: &mut impl Rng) -> Duration {
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(chance.next_u64() % most.max(1))
}

/// Three ports that nobody listens on.
fn ports(chance: &mut impl Rng) -> Result<[u16; 3], String> {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        let among = chance.next_u32() % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(among).unwrap_or_default();
        if !found.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
        if let Ok(ports) = found.as_slice().try_into() {
            return Ok(ports);
        }
    }
    Err("no free ports".to_owned())
}

/// Steps of a round, in order: each process is killed and started once or twice.
fn plan(chance: &mut impl Rng) -> Vec<(Duration, Step)> {
    let mut plan = Vec::new();
    for role in Role::ALL {
        let mut at = below(MOST_DELAY, chance);
        let kills = 1 + u32::from(chance.next_u32().is_multiple_of(5));
        for _ in 0..kills {
            plan.push((at, Step::Kill(role)));
            at += below(MOST_DOWN, chance);
            plan.push((at, Step::Start(role)));
            at += below(MOST_OPENING, chance);
        }
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

// === impl World ===

impl World {
    fn new(chain: &Chain, directory: &Path, chance: &mut impl Rng) -> Result<Self, String> {
        let network = Network {
            seed: chain.seed,
            ports: ports(chance)?,
        };
        let (sender, lines) = sync_channel(LINES);
        let process = |role: Role| {
            let home = directory.join(role.to_string());
            let (program, network) = (chain.program.clone(), network.clone());
            Process::new(role, program, network, home, sender.clone())
        };
        let mut world = Self {
            processes: Role::ALL.map(process),
            lines,
            account: Account::default(),
            next: 1,
            given: Some(now()),
            kills: 0,
        };
        for role in Role::ALL {
            world.step(Step::Start(role))?;
        }
        Ok(world)
    }

    fn round(&mut self, chance: &mut impl Rng) -> Result<(), String> {
        let enough = self.account.acknowledged() + ROUND_MESSAGES;
        if !self.pump_until(|account| account.acknowledged() >= enough)? {
            return Err("nothing is acknowledged any more".to_owned());
        }
        let start = now();
        for (at, step) in plan(chance) {
            self.pump(start + at)?;
            self.step(step)?;
        }
        Ok(())
    }

    /// Lets the sender acknowledge messages while the recipient is down, and waits until the consumer has all of them
    /// although the sender is gone. Answers how many the consumer did not have when it went.
    fn check(&mut self) -> Result<usize, String> {
        self.step(Step::Kill(Role::Recipient))?;
        let enough = self.account.acknowledged() + JUDGED_MESSAGES;
        if !self.pump_until(|account| account.acknowledged() >= enough)? {
            return Err("nothing is stored".to_owned());
        }
        self.step(Step::Kill(Role::Sender))?;
        let stored = self.account.missing().count();
        self.step(Step::Start(Role::Recipient))?;
        self.pump_until(|account| account.missing().next().is_none())?;
        Ok(stored)
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Start(role) => process(&mut self.processes, role).start(),
            Step::Kill(role) => {
                self.kills += 1;
                let mut heard = Vec::new();
                let killed = process(&mut self.processes, role)
                    .kill(|| heard.extend(self.lines.recv_timeout(PACE)));
                for (role, line) in heard {
                    self.hear(role, line?);
                }
                killed
            }
        }
    }

    /// Hears what the processes say, and keeps the sender busy.
    fn pump(&mut self, until: Instant) -> Result<(), String> {
        loop {
            let left = until.saturating_duration_since(now());
            match self.lines.recv_timeout(left.min(PACE)) {
                Ok((role, line)) => self.hear(role, line?),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("no process is left".to_owned()),
            }
            self.give();
        }
    }

    /// Pumps until the account says so; false if nothing happens for long before that.
    fn pump_until(&mut self, enough: impl Fn(&Account) -> bool) -> Result<bool, String> {
        let (mut last, mut since) = (self.account.heard(), now());
        while !enough(&self.account) {
            self.pump(now() + PACE)?;
            if self.account.heard() != last {
                (last, since) = (self.account.heard(), now());
            } else if now() - since > PATIENCE {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hear(&mut self, role: Role, line: Line) {
        if line == Line::Ready {
            let process = process(&mut self.processes, role);
            process.is_ready = process.is_running();
            if role == Role::Sender {
                // Messages that an earlier life did not acknowledge, under the same names.
                self.account.open().for_each(|number| process.give(number));
            }
        }
        self.account.hear(line);
    }

    fn give(&mut self) {
        let sender = process(&mut self.processes, Role::Sender);
        let is_time = self.given.is_some_and(|last| now() - last >= PACE);
        if is_time && sender.is_ready && self.account.open().count() < OPEN {
            self.given = Some(now());
            self.account.give(self.next);
            sender.give(self.next);
            self.next += 1;
        }
    }
}

const fn process(processes: &mut [Process; 3], role: Role) -> &mut Process {
    let [sender, holder, recipient] = processes;
    match role {
        Role::Sender => sender,
        Role::Holder => holder,
        Role::Recipient => recipient,
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether everything that was acknowledged arrived, once, and nothing else went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.twice == 0 && self.faults.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        write!(
            f,
            "acknowledged {}, lost {}, twice {}",
            self.acknowledged, self.lost, self.twice
        )
    }
}
