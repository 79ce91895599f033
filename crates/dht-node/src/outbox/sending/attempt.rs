//! One attempt: the copy for the recipient, then those for holders, and the answers that are waited for.

use std::{collections::BTreeSet, time::Duration};

use dht_core::NodeId;

use crate::outbox::event::{Action, Now};

/// Time after a copy was written within which the recipient answers; after that it counts as gone.
pub(super) const RECEIPT_WAIT: Duration = Duration::from_secs(5);
/// The same of a recipient that answers, for a message that holders do not store.
const DECISION_WAIT: Duration = Duration::from_secs(30);
/// Time in which holders take and confirm their copies.
const HOLDERS_WAIT: Duration = Duration::from_secs(15);
/// Time until a copy that found no room is sent again; it doubles up to [`MAX_ROOM_WAIT`].
pub(super) const ROOM_WAIT: Duration = Duration::from_millis(20);
const MAX_ROOM_WAIT: Duration = Duration::from_secs(1);
/// Time until a receipt is asked for again; it doubles up to [`MAX_ASK_WAIT`].
pub(super) const ASK_WAIT: Duration = Duration::from_millis(100);
const MAX_ASK_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) direct: Direct,
    /// When the direct copy, or the holders, are waited for no longer.
    pub(super) deadline: Duration,
    pub(super) asked_holders: bool,
    /// Holders that may still be chosen in place of those that cannot be reached, or do not store the message.
    pub(super) replacements: usize,
    /// Nodes that were chosen as holders.
    chosen: Vec<NodeId>,
    /// Times that holders are still to be chosen.
    choosing: usize,
    /// Copies for holders that are being written.
    writing: usize,
    /// Holders that were asked for a receipt and have not answered.
    asked: usize,
    /// Waits of the next copy that finds no room and the next question.
    room_wait: Duration,
    ask_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direct {
    Running,
    /// Written at this time; the peer is asked for a receipt.
    Asking(Duration),
    /// Written at this time; the peer gives no receipts.
    Written(Duration),
    Over,
}

impl Attempt {
    pub(super) const fn new(direct: Direct, deadline: Duration) -> Self {
        Self {
            direct,
            deadline,
            asked_holders: false,
            replacements: 0,
            chosen: Vec::new(),
            choosing: 0,
            writing: 0,
            asked: 0,
            room_wait: ROOM_WAIT,
            ask_wait: ASK_WAIT,
        }
    }

    /// Whether the copy for the recipient is being written or its receipt is awaited.
    pub(super) const fn is_reaching_recipient(&self) -> bool {
        matches!(self.direct, Direct::Running | Direct::Asking(_)) && !self.asked_holders
    }

    /// Whether the copy for the recipient is being written, and holders have not been asked yet.
    pub(super) const fn is_writing_direct(&self) -> bool {
        matches!(self.direct, Direct::Running) && !self.asked_holders
    }

    pub(super) const fn has_written_direct(&self) -> bool {
        matches!(self.direct, Direct::Asking(_) | Direct::Written(_))
    }

    /// Whether copies are being written, or about to be.
    pub(super) const fn is_writing(&self) -> bool {
        self.is_writing_direct() || self.choosing > 0 || self.writing > 0
    }

    /// Whether nothing more is waited for.
    pub(super) const fn is_over(&self) -> bool {
        let over = match self.direct {
            Direct::Written(_) => true,
            // With all holders answered, the recipient is not waited for: its late answer counts too.
            Direct::Running | Direct::Asking(_) | Direct::Over => self.asked_holders,
        };
        over && self.choosing == 0 && self.writing == 0 && self.asked == 0
    }

    pub(super) fn next_room_wait(&mut self) -> Duration {
        let wait = self.room_wait;
        self.room_wait = (wait * 2).min(MAX_ROOM_WAIT);
        wait
    }

    /// The copy for the recipient is written.
    pub(super) fn ask_recipient(&mut self, now: Now) {
        self.direct = Direct::Asking(now.at);
        if !self.asked_holders {
            self.deadline = now.at.saturating_add(RECEIPT_WAIT);
        }
    }

    /// Time until the recipient is asked again.
    pub(super) fn ask_again(&mut self, written: Duration, direct_only: bool, now: Now) -> Duration {
        let wait = self.ask_wait;
        self.ask_wait = (wait * 2).min(MAX_ASK_WAIT);
        if direct_only && !self.asked_holders {
            let limit = written.saturating_add(DECISION_WAIT);
            self.deadline = now.at.saturating_add(RECEIPT_WAIT + wait).min(limit);
        }
        wait
    }

    pub(super) fn wait_for_holders(&mut self, now: Now) {
        self.deadline = now.at.saturating_add(HOLDERS_WAIT);
    }

    /// Copies for so many nodes that neither store the message nor were tried.
    pub(super) fn send_to_holders(&mut self, most: usize, holders: &BTreeSet<NodeId>) -> Action {
        self.choosing += 1;
        let tried: BTreeSet<_> = holders.iter().chain(&self.chosen).copied().collect();
        let except = tried.into_iter().collect();
        Action::SendToHolders { most, except }
    }

    pub(super) fn choose(&mut self, holders: Vec<NodeId>, now: Now) {
        self.choosing = self.choosing.saturating_sub(1);
        self.writing += holders.len();
        if !holders.is_empty() {
            self.wait_for_holders(now);
        }
        self.chosen.extend(holders);
    }

    pub(super) const fn has_chosen_none(&self) -> bool {
        self.chosen.is_empty()
    }

    /// The copy for a holder is written, and the holder asked.
    pub(super) const fn ask_holder(&mut self) {
        self.end_copy();
        self.asked += 1;
    }

    /// The copy for a holder is written, or cannot be.
    pub(super) const fn end_copy(&mut self) {
        self.writing = self.writing.saturating_sub(1);
    }

    /// A holder has answered. Without a question, its copy is written nevertheless.
    pub(super) const fn end_question(&mut self) {
        match self.asked.checked_sub(1) {
            Some(left) => self.asked = left,
            None => self.end_copy(),
        }
    }

    /// The next closest node takes the place of a holder, if not too many were replaced.
    pub(super) fn replace_holder(&mut self, holders: &BTreeSet<NodeId>) -> Option<Action> {
        self.replacements = self.replacements.checked_sub(1)?;
        Some(self.send_to_holders(1, holders))
    }
}
