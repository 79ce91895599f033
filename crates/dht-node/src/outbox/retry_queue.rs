//! Which message is tried again next: a few at one time, and recipients in turn.
//!
//! Recipients are those that the application sends to. One that answers strangers lets them name any number: they share the
//! turns of recipients that take no copies, not those of the others.

use std::collections::{HashMap, VecDeque};

use dht_core::NodeId;
use dht_spool::EntryId;

/// Messages of the spool that are read or tried again at one time, for recipients of one reachability.
pub(super) const RETRYING: usize = 64;
/// Of these for one recipient, so that many messages for one that cannot be reached do not keep out the others.
const RETRYING_A_RECIPIENT: usize = 8;

/// Messages whose next attempt is due, for recipients of one reachability.
#[derive(Debug, Default)]
pub(super) struct RetryQueue {
    waiting: HashMap<NodeId, VecDeque<EntryId>>,
    /// The recipients of [`Self::waiting`], the next one first.
    order: VecDeque<NodeId>,
    /// Messages of [`Self::waiting`].
    len: usize,
    /// Messages that have a turn, with their recipients; at most [`RETRYING`].
    begun: HashMap<EntryId, NodeId>,
}

impl RetryQueue {
    /// Adds a message whose next attempt is due.
    pub(super) fn push(&mut self, recipient: NodeId, id: EntryId) {
        let waiting = self.waiting.entry(recipient).or_default();
        if waiting.is_empty() {
            self.order.push_back(recipient);
        }
        waiting.push_back(id);
        self.len += 1;
    }

    /// Takes the messages of a recipient that wait.
    pub(super) fn take(&mut self, recipient: &NodeId) -> VecDeque<EntryId> {
        let Some(ids) = self.waiting.remove(recipient) else {
            return VecDeque::new();
        };
        self.order.retain(|other| other != recipient);
        self.len -= ids.len();
        ids
    }

    /// Messages that wait, also those that have ended since.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Forgets messages that wait and have ended.
    pub(super) fn retain(&mut self, is_there: impl Fn(EntryId) -> bool) {
        self.waiting.retain(|_, ids| {
            ids.retain(|id| is_there(*id));
            !ids.is_empty()
        });
        self.order
            .retain(|recipient| self.waiting.contains_key(recipient));
        self.len = self.waiting.values().map(VecDeque::len).sum();
    }

    /// Begins the next turn, if one more may begin.
    pub(super) fn begin(&mut self) -> Option<EntryId> {
        if self.begun.len() >= RETRYING {
            return None;
        }
        // No more than eight recipients have all their turns.
        let next = self.order.iter().position(|recipient| {
            let begun = self.begun.values().filter(|other| *other == recipient);
            begun.count() < RETRYING_A_RECIPIENT
        })?;
        let recipient = self.order.remove(next)?;
        let waiting = self.waiting.get_mut(&recipient)?;
        let id = waiting.pop_front()?;
        self.len -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&recipient);
        } else {
            self.order.push_back(recipient);
        }
        self.begun.insert(id, recipient);
        Some(id)
    }

    /// Ends the turn of a message; without effect if it has none.
    pub(super) fn end(&mut self, id: EntryId) {
        self.begun.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u8) -> NodeId {
        NodeId::from_bytes(&[seed; 13]).unwrap()
    }

    #[test]
    fn recipients_are_tried_in_turn() {
        let mut queue = RetryQueue::default();
        for message in 1..=100 {
            queue.push(id(1), message);
        }
        queue.push(id(2), 101);
        queue.push(id(2), 102);
        let begun: Vec<_> = std::iter::from_fn(|| queue.begin()).collect();
        assert_eq!(begun, [1, 101, 2, 102, 3, 4, 5, 6, 7, 8]);
        queue.end(101);
        assert_eq!(queue.begin(), None, "one recipient has all its turns");
        queue.end(3);
        assert_eq!(queue.begin(), Some(9));
        queue.push(id(3), 103);
        assert_eq!(queue.begin(), Some(103));
    }

    #[test]
    fn ended_messages_are_forgotten() {
        let mut queue = RetryQueue::default();
        for message in 1..=10 {
            queue.push(id(1), message);
            queue.push(id(2), message + 10);
        }
        queue.retain(|message| message == 7);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.begin(), Some(7));
        assert_eq!((queue.begin(), queue.len()), (None, 0));
    }
}
