//! The writer that is killed: it says what it is about to take out, and what is acknowledged.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write as _},
    path::Path,
    str::FromStr,
    sync::mpsc,
};

use dht_core::UnixSeconds;
use dht_mailbox::{Durability, Inserted, Position, RowId, Store};
use tokio::runtime::{Builder, Runtime};

use super::{
    message::{MAILBOXES, PER_SECOND, message, plan},
    store_config,
};

/// Insertions that wait for a commit at a time.
const IN_FLIGHT: usize = 64;
/// Insertions between two removals.
const PACE: u64 = 48;
/// Rows named in one line, which is written to the pipe in one piece.
const ROWS_A_LINE: usize = 12;

/// Reports of the writer, one line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// An insertion is acknowledged.
    Inserted(u64),
    /// These messages are taken out from now on, or `done`.
    Delete {
        /// Whether that is acknowledged.
        done: bool,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// Of the mailbox of `last`, the messages numbered `first` to `last` are taken out, or `done`.
    Range {
        /// Whether that is acknowledged.
        done: bool,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
    },
    /// Rows kept until before this second are taken out, or `done`.
    Expire {
        /// Whether that is acknowledged.
        done: bool,
        /// The second.
        before: u64,
    },
}

/// A removal, with the rows it needs.
#[derive(Debug)]
enum Removal {
    Rows(Vec<(u64, RowId)>),
    Range(u64, u64, Position),
    Expire(u64),
}

/// Opens the store in `directory`, then inserts from number `first` on, deletes and expires, until it is killed.
///
/// # Errors
/// When the store fails, which it should not.
pub fn stream(directory: &Path, durability: Durability, first: u64) -> Result<(), String> {
    let store = Store::open(directory, store_config(durability)).map_err(text)?;
    let (removals, orders) = mpsc::sync_channel(4);
    let remover = {
        let store = store.clone();
        std::thread::spawn(move || remove(&store, &orders))
    };
    let mut waiting = VecDeque::new();
    let mut recent = VecDeque::new();
    for number in first.. {
        let plan = plan(number);
        let ticket = store.submit(message(number), plan.now).map_err(text)?;
        waiting.push_back((number, ticket));
        if waiting.len() < IN_FLIGHT {
            continue;
        }
        let Some((number, ticket)) = waiting.pop_front() else {
            continue;
        };
        let Inserted::Fresh(position) = ticket.wait().map_err(text)? else {
            return Err(format!("message {number} was there before"));
        };
        say(&Line::Inserted(number)).map_err(text)?;
        recent.push_back((number, position));
        if number % PACE == 0
            && let Some(removal) = choose(number, &mut recent)
            && removals.send(removal).is_err()
        {
            break;
        }
    }
    remover
        .join()
        .map_err(|_| "the remover panicked".to_owned())?
}

/// Every kind of removal, by turns.
fn choose(number: u64, recent: &mut VecDeque<(u64, Position)>) -> Option<Removal> {
    recent.drain(..recent.len().saturating_sub(2_048));
    match (number / PACE) % 8 {
        0 => Some(Removal::Expire(plan(number).now.0)),
        4 => {
            let (last, position) = recent.back().copied()?;
            // From the first message of a second on, as that is what a range names.
            let first = last.saturating_sub(1_000) / PER_SECOND * PER_SECOND;
            Some(Removal::Range(first, last, position))
        }
        _ => {
            let chosen = recent
                .iter()
                .filter(|(number, _)| number.is_multiple_of(3))
                .take(ROWS_A_LINE)
                .map(|(number, position)| (*number, position.id))
                .collect::<Vec<_>>();
            let last = chosen.last()?.0;
            recent.retain(|(number, _)| *number > last);
            Some(Removal::Rows(chosen))
        }
    }
}

fn remove(store: &Store, orders: &mpsc::Receiver<Removal>) -> Result<(), String> {
    let runtime: Runtime = Builder::new_current_thread().build().map_err(text)?;
    for order in orders {
        let line = |done| match &order {
            Removal::Rows(rows) => Line::Delete {
                done,
                numbers: rows.iter().map(|(number, _)| *number).collect(),
            },
            Removal::Range(first, last, _) => Line::Range {
                done,
                first: *first,
                last: *last,
            },
            Removal::Expire(before) => Line::Expire {
                done,
                before: *before,
            },
        };
        say(&line(false)).map_err(text)?;
        let removed = match &order {
            Removal::Rows(rows) => {
                let rows = rows.iter().map(|(_, id)| *id).collect();
                runtime.block_on(store.delete(rows, None))
            }
            Removal::Range(first, last, position) => {
                let from = Position {
                    stored_at: plan(*first).now,
                    id: RowId(0),
                };
                runtime.block_on(store.delete_range(plan(*last).recipient, from, *position))
            }
            Removal::Expire(before) => runtime.block_on(store.expire(UnixSeconds(*before))),
        };
        removed.map_err(text)?;
        say(&line(true)).map_err(text)?;
    }
    Ok(())
}

fn say(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

// === impl Line ===

impl Line {
    /// Whether a removal of this line covers a message.
    #[must_use]
    pub fn covers(&self, number: u64) -> bool {
        match self {
            Self::Inserted(_) => false,
            Self::Delete { numbers, .. } => numbers.contains(&number),
            Self::Range { first, last, .. } => {
                (*first..=*last).contains(&number) && number % MAILBOXES == last % MAILBOXES
            }
            Self::Expire { before, .. } => plan(number)
                .expires
                .is_some_and(|expires| expires.0 < *before),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, numbers) = match self {
            Self::Inserted(number) => return write!(f, "i {number}"),
            Self::Delete { done, numbers } => (*done, numbers.clone()),
            Self::Range { done, first, last } => (*done, vec![*first, *last]),
            Self::Expire { done, before } => (*done, vec![*before]),
        };
        let kind = match self {
            Self::Range { .. } => "r",
            Self::Expire { .. } => "e",
            _ => "d",
        };
        write!(f, "{kind}{}", if done { "!" } else { "?" })?;
        numbers.iter().try_for_each(|number| write!(f, " {number}"))
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a line of the writer: {line}");
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers = words
            .map(str::parse)
            .collect::<Result<Vec<u64>, _>>()
            .map_err(|_| wrong())?;
        let done = kind.ends_with('!');
        match (kind, numbers.as_slice()) {
            ("i", [number]) => Ok(Self::Inserted(*number)),
            ("d?" | "d!", [_, ..]) => Ok(Self::Delete { done, numbers }),
            ("r?" | "r!", [first, last]) => Ok(Self::Range {
                done,
                first: *first,
                last: *last,
            }),
            ("e?" | "e!", [before]) => Ok(Self::Expire {
                done,
                before: *before,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        for line in [
            Line::Inserted(7),
            Line::Delete {
                done: false,
                numbers: vec![1, 2, 3],
            },
            Line::Range {
                done: true,
                first: 100,
                last: 250,
            },
            Line::Expire {
                done: false,
                before: 9,
            },
        ] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        assert!("i 7 8".parse::<Line>().is_err());
    }
}
