//! Kill, open, check, and again.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dht_core::{Entropy as _, SeededEntropy};
use dht_mailbox::{Durability, Store};
use rand_core::Rng;

use super::{
    account::{Account, Check},
    message::{BASE, message, plan},
    store_config,
};

/// Most insertions a writer is left to acknowledge.
const MOST_INSERTIONS: u64 = 4_000;
/// Longest time between the last insertion waited for and the kill.
const MOST_DELAY: Duration = Duration::from_millis(6);
/// Longest time that a writer gets which is killed while it opens the store.
const MOST_OPENING: Duration = Duration::from_millis(400);

/// Parameters of a run.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// How often to kill.
    pub rounds: u32,
    /// Seed of the moments of the kills.
    pub seed: u64,
    /// Rows that are there before the first round.
    pub records: u64,
    /// The program to start as the writer; it is given the directory, `immediate` or `eventual`, and a number.
    pub writer: Vec<std::ffi::OsString>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Insertions acknowledged.
    pub acknowledged: u64,
    /// Of these, not there after a kill.
    pub lost: u64,
    /// Number of other disagreements.
    pub inconsistent: u64,
    /// The longest time opening took.
    pub slowest_opening: Duration,
}

/// A moment to kill at.
#[derive(Clone, Copy, Debug)]
struct Moment {
    durability: Durability,
    /// Insertions to wait for; 0 kills while the store is being opened.
    insertions: u64,
    delay: Duration,
}

/// Kills a writer in `directory` as often as told and prints a line for each time.
///
/// # Errors
/// When the writer cannot be started or ends by itself, or the store cannot be opened.
pub fn run(rounds: &Rounds, directory: &Path) -> Result<Outcome, String> {
    let mut chance = SeededEntropy::new(rounds.seed).rng();
    let mut account = Account::default();
    let mut outcome = Outcome::default();
    fill(directory, rounds.records, &mut account)?;
    for round in 1..=rounds.rounds {
        // Now and then what a kill left is met by a writer that is killed as well.
        let kills = 1 + chance.next_u32() % 3 / 2;
        let mut moments = Vec::new();
        for _ in 0..kills {
            let moment = Moment::random(&mut chance);
            moment.kill(&rounds.writer, directory, &mut account)?;
            moments.push(moment.to_string());
        }
        let start = now();
        let store = open(directory, Durability::Immediate)?;
        let opening = start.elapsed();
        let check = account.check(&store).map_err(text)?;
        insert(&store, account.highest + 1, &mut account)?;
        drop(store);
        say(&format!(
            "{round:>3}/{}  killed {}; opened in {} ms: {} rows, {} lost, {} inconsistent",
            rounds.rounds,
            moments.join(", and "),
            opening.as_millis(),
            check.rows,
            check.lost,
            check.inconsistent
        ))?;
        outcome.add(&check, opening)?;
    }
    outcome.acknowledged = account.acknowledged;
    Ok(outcome)
}

fn fill(directory: &Path, records: u64, account: &mut Account) -> Result<(), String> {
    let store = open(directory, Durability::Eventual)?;
    let mut tickets = Vec::new();
    for number in (BASE..).take(usize::try_from(records).unwrap_or(usize::MAX)) {
        let ticket = store.submit(message(number), plan(number).now);
        tickets.push(ticket.map_err(text)?);
        if tickets.len() == 512 {
            settle(&mut tickets)?;
        }
    }
    settle(&mut tickets)?;
    account.base((BASE..).take(usize::try_from(records).unwrap_or(usize::MAX)));
    Ok(())
}

fn settle<T>(tickets: &mut Vec<dht_mailbox::Ticket<T>>) -> Result<(), String> {
    tickets
        .drain(..)
        .try_for_each(|ticket| ticket.wait().map(drop).map_err(text))
}

/// The store works: it takes one more message.
fn insert(store: &Store, number: u64, account: &mut Account) -> Result<(), String> {
    let ticket = store.submit(message(number), plan(number).now);
    ticket.and_then(dht_mailbox::Ticket::wait).map_err(text)?;
    account.hear(super::Line::Inserted(number));
    Ok(())
}

fn open(directory: &Path, durability: Durability) -> Result<Store, String> {
    Store::open(directory, store_config(durability))
        .map_err(|error| format!("the store does not open: {error}"))
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(text)
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[expect(clippy::disallowed_methods, reason = "opening is timed for people")]
fn now() -> Instant {
    Instant::now()
}

// === impl Outcome ===

impl Outcome {
    fn add(&mut self, check: &Check, opening: Duration) -> Result<(), String> {
        self.lost += check.lost;
        self.inconsistent += check.inconsistent;
        self.slowest_opening = self.slowest_opening.max(opening);
        check
            .faults
            .iter()
            .try_for_each(|fault| say(&format!("         {fault}")))
    }

    /// Whether everything that was acknowledged is there, and nothing contradicts anything.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.inconsistent == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, lost {}, inconsistent {}",
            self.acknowledged, self.lost, self.inconsistent
        )
    }
}

// === impl Moment ===

impl Moment {
    fn random(chance: &mut impl Rng) -> Self {
        let durability = if chance.next_u32().is_multiple_of(2) {
            Durability::Immediate
        } else {
            Durability::Eventual
        };
        let opening = chance.next_u32().is_multiple_of(5);
        let mut below = |most: Duration| {
            let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(chance.next_u64() % most.max(1))
        };
        let delay = below(if opening { MOST_OPENING } else { MOST_DELAY });
        let insertions = if opening {
            0
        } else {
            1 + chance.next_u64() % MOST_INSERTIONS
        };
        Self {
            durability,
            insertions,
            delay,
        }
    }

    /// Starts the writer, kills it when the moment has come, and hears everything it said.
    fn kill(
        self,
        writer: &[std::ffi::OsString],
        directory: &Path,
        account: &mut Account,
    ) -> Result<(), String> {
        let (program, arguments) = writer.split_first().ok_or("no writer to start")?;
        let durability = match self.durability {
            Durability::Immediate => "immediate",
            Durability::Eventual => "eventual",
        };
        // Numbers of the writer before that were never heard of are left out.
        let first = account.highest + 1_000;
        account.highest = first;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(directory)
            .args([durability, &first.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the writer does not start: {error}"))?;
        let pipe = child.stdout.take().ok_or("the writer has no output")?;
        let heard = self.wait(&mut child, pipe, account);
        // However that went, nothing keeps the directory.
        let _ = child.kill();
        let _ = child.wait();
        heard
    }

    fn wait(
        self,
        child: &mut Child,
        pipe: ChildStdout,
        account: &mut Account,
    ) -> Result<(), String> {
        let mut lines = BufReader::new(pipe).lines();
        let enough = account.acknowledged + self.insertions;
        while account.acknowledged < enough {
            let line = lines
                .next()
                .ok_or("the writer ended by itself")?
                .map_err(text)?;
            account.hear(line.parse()?);
        }
        thread::sleep(self.delay);
        if let Some(status) = child.try_wait().map_err(text)? {
            return Err(format!("the writer ended by itself: {status}"));
        }
        child.kill().map_err(text)?;
        // Its last lines before it died came after the commit.
        let rest = lines.collect::<Result<Vec<_>, _>>().map_err(text)?;
        rest.iter()
            .try_for_each(|line| line.parse().map(|line| account.hear(line)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = self.delay.as_secs_f64() * 1e3;
        match self.insertions {
            0 => write!(f, "while opening after {delay:.1} ms"),
            insertions => write!(
                f,
                "after {insertions} insertions ({:?}) and {delay:.1} ms",
                self.durability
            ),
        }
    }
}
