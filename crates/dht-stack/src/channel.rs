//! Channels as data: who waits for whom is declared where the channel is made, and can be checked.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::{broadcast, mpsc};

/// A bounded channel between two stages of a node. The declaration makes it: there is no other way in this workspace
/// (a test looks), so that the declarations are all there is.
///
/// One-shot answers and watched values are not declared: no sender can wait for *room* in them.
///
/// ```
/// use dht_stack::{Channel, WhenFull};
///
/// const LETTERS: Channel = Channel {
///     name: "letters",
///     from: &[("writer", WhenFull::Wait)],
///     to: "reader",
///     capacity: 8,
/// };
/// let (sender, _receiver) = LETTERS.open::<char>();
/// assert_eq!(sender.max_capacity(), 8);
/// assert_eq!(dht_stack::waiting_cycle(&[&LETTERS]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Contents of the channel, in a word or two.
    pub name: &'static str,
    /// Senders, and what each does when the channel is full.
    pub from: &'static [(&'static str, WhenFull)],
    /// Task that receives from the channel.
    pub to: &'static str,
    /// Entries it holds; a setting may change that.
    pub capacity: usize,
}

/// Action of a sender when the channel is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits until there is room.
    Wait,
    /// Lets the new entry go, and counts it.
    Shed,
    /// Drops the oldest entry; receivers that missed it are told.
    DropOldest,
}

impl Channel {
    /// Makes the channel as declared.
    #[must_use]
    pub fn open<T>(&self) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
        self.open_for(self.capacity)
    }

    /// Makes the channel with the capacity of a setting, at least 1.
    #[must_use]
    pub fn open_for<T>(&self, capacity: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
        mpsc::channel(capacity.max(1))
    }

    /// Makes a channel in which every receiver gets every entry.
    #[must_use]
    pub fn open_to_many<T: Clone>(&self) -> broadcast::Sender<T> {
        broadcast::channel(self.capacity.max(1)).0
    }
}

/// Stages that wait for each other in a circle, each for the next and the last for the first, if there are any: with
/// full channels they would wait for ever.
#[must_use]
pub fn waiting_cycle(channels: &[&Channel]) -> Option<Vec<&'static str>> {
    let mut waits = BTreeMap::<_, BTreeSet<_>>::new();
    for channel in channels {
        for (from, policy) in channel.from {
            if *policy == WhenFull::Wait {
                waits.entry(*from).or_default().insert(channel.to);
            }
        }
    }
    // Removes tasks that wait for no other until none is left to remove; the remaining ones wait in a circle.
    loop {
        let waiting: BTreeSet<_> = waits.keys().copied().collect();
        let before = waits.len();
        waits.retain(|_, on| on.iter().any(|stage| waiting.contains(stage)));
        if waits.len() == before {
            break;
        }
    }
    let mut path = vec![*waits.keys().next()?];
    loop {
        let last = path.last()?;
        let next = waits.get(last)?.iter().find(|on| waits.contains_key(*on))?;
        if let Some(at) = path.iter().position(|stage| stage == next) {
            return Some(path.split_off(at));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn edge(from: &'static [(&'static str, WhenFull)], to: &'static str) -> Channel {
        Channel {
            name: "",
            from,
            to,
            capacity: 1,
        }
    }

    const A_TO_B: Channel = edge(&[("a", WhenFull::Wait)], "b");
    const B_TO_C: Channel = edge(&[("b", WhenFull::Wait), ("d", WhenFull::Wait)], "c");
    const C_TO_A: Channel = edge(&[("c", WhenFull::Wait)], "a");
    const C_TO_A_SHEDS: Channel = edge(&[("c", WhenFull::Shed)], "a");
    const SELF: Channel = edge(&[("d", WhenFull::Wait)], "d");

    #[test]
    fn only_waiting_channels_close_a_circle() {
        let cycle = waiting_cycle(&[&A_TO_B, &B_TO_C, &C_TO_A]);
        assert_eq!(cycle, Some(vec!["a", "b", "c"]));
        assert_eq!(waiting_cycle(&[&A_TO_B, &B_TO_C]), None);
        assert_eq!(waiting_cycle(&[&A_TO_B, &B_TO_C, &C_TO_A_SHEDS]), None);
        assert_eq!(waiting_cycle(&[&A_TO_B, &SELF]), Some(vec!["d"]));
    }

    #[tokio::test]
    async fn channels_are_as_declared() {
        let (sender, mut receiver) = A_TO_B.open();
        sender.try_send(1).unwrap();
        assert!(sender.try_send(2).is_err());
        assert_eq!(receiver.recv().await, Some(1));
        assert_eq!(A_TO_B.open_for::<()>(0).0.max_capacity(), 1);
        let many = A_TO_B.open_to_many();
        let (mut first, mut second) = (many.subscribe(), many.subscribe());
        many.send(3).unwrap();
        assert_eq!((first.recv().await, second.recv().await), (Ok(3), Ok(3)));
    }
}
