//! Tells when the first responses after going online are in: 05 section 9. No I/O.

/// Counts responses from the start of a run until [`SafEvent::Received`](super::SafEvent::Received) is due, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FirstResponses {
    /// Responses to wait for; `None` until the node is online.
    needed: Option<usize>,
    counted: usize,
    done: bool,
}

impl FirstResponses {
    /// The node is online with `n` peers; only the first call counts. True if the event is due.
    pub(super) fn online(&mut self, n: usize) -> bool {
        self.needed.get_or_insert(n);
        self.is_due()
    }

    /// A response was taken. True if the event is due.
    pub(super) fn answered(&mut self) -> bool {
        if !self.done {
            self.counted = self.counted.saturating_add(1);
        }
        self.is_due()
    }

    fn is_due(&mut self) -> bool {
        let due = !self.done && self.needed.is_some_and(|needed| self.counted >= needed);
        self.done |= due;
        due
    }
}
