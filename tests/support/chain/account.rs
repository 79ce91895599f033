//! Messages acknowledged, those the consumer has, and those it got again.

use std::collections::BTreeSet;

use super::line::Line;

/// Faults that are put into words.
const SHOWN: usize = 20;

/// Reports of the processes so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Messages given to the sender and not acknowledged.
    open: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    /// Given to the sender and not read by the consumer.
    awaited: BTreeSet<u64>,
    /// Acks that were heard of: a consumer may be killed before it says so.
    acked: BTreeSet<u64>,
    /// Lines heard so far.
    heard: u64,
    /// Times a message was read after its ack.
    twice: u64,
    /// Forbidden events, in words.
    faults: Vec<String>,
}

impl Account {
    /// A message is given to the sender.
    pub fn give(&mut self, number: u64) {
        self.open.insert(number);
        self.awaited.insert(number);
    }

    /// Hears what a process says.
    pub fn hear(&mut self, line: Line) {
        self.heard += 1;
        match line {
            Line::Ready => {}
            Line::Acknowledged(number) => {
                self.open.remove(&number);
                self.acknowledged.insert(number);
            }
            Line::Read(number) if self.acked.contains(&number) => {
                self.twice += 1;
                self.fault(format!("message {number} was read after its ack"));
            }
            Line::Read(number) => {
                self.awaited.remove(&number);
            }
            Line::Acked(number) => {
                self.acked.insert(number);
            }
            Line::Fault(text) => self.fault(text),
        }
    }

    /// Messages given to the sender that it has not acknowledged, oldest first.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.open.iter().copied()
    }

    /// Messages that were acknowledged and that the consumer has not read, oldest first.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        self.awaited.intersection(&self.acknowledged).copied()
    }

    /// Whether every message given to the sender is acknowledged, and read by the consumer.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open.is_empty() && self.awaited.is_empty()
    }

    /// Messages acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Lines heard so far.
    #[must_use]
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    /// Times that the consumer got a message again after its ack.
    #[must_use]
    pub const fn twice(&self) -> u64 {
        self.twice
    }

    /// Something happened that must not.
    pub(super) fn fault(&mut self, fault: String) {
        if self.faults.len() < SHOWN {
            self.faults.push(fault);
        }
    }

    /// Forbidden events, in words; at most twenty.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_messages_are_missing_until_read() {
        let mut account = Account::default();
        (1..=3).for_each(|number| account.give(number));
        account.hear(Line::Acknowledged(1));
        account.hear(Line::Acknowledged(2));
        assert!(account.missing().eq([1, 2]) && account.open().eq([3]));
        account.hear(Line::Read(1));
        // The consumer may have it before the sender learns of it.
        account.hear(Line::Read(3));
        assert!(account.missing().eq([2]) && !account.is_complete());
        account.hear(Line::Acknowledged(3));
        account.hear(Line::Read(2));
        assert!(account.is_complete());
        assert_eq!(account.acknowledged(), 3);
    }

    #[test]
    fn reading_after_an_ack_counts() {
        let mut account = Account::default();
        account.give(1);
        // Without an ack in between it may come again.
        account.hear(Line::Read(1));
        account.hear(Line::Read(1));
        account.hear(Line::Acked(1));
        assert_eq!(account.twice(), 0);
        account.hear(Line::Read(1));
        assert_eq!((account.twice(), account.faults().len()), (1, 1));
    }
}
