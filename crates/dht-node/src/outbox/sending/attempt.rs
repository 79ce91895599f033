//! One attempt: the copy for the recipient, then those for holders, and the answers that are waited for.

use std::{collections::BTreeSet, time::Duration};

use dht_core::NodeId;

use crate::outbox::event::{Now, SendingAction};

/// Time after a copy was written within which the recipient answers; after that it counts as gone.
pub(super) const RECEIPT_WAIT: Duration = Duration::from_secs(5);
/// The same of a recipient that answers, for a message that holders do not store.
pub(super) const DECISION_WAIT: Duration = Duration::from_secs(30);
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
    /// Whether the recipient was unknown, and searched for.
    searched: bool,
    /// Holders that are to get a copy at first.
    most: usize,
    /// Holders that may still be chosen in place of those that cannot be reached, or do not store the message.
    replacements: usize,
    /// Nodes that were chosen as holders.
    chosen: BTreeSet<NodeId>,
    /// Times that holders are still to be chosen.
    choosing: usize,
    /// Holders whose copies are being written.
    writing: BTreeSet<NodeId>,
    /// Holders that were asked for a receipt and have not answered.
    asked: BTreeSet<NodeId>,
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
    Written {
        at: Duration,
        /// Id of the connection.
        connection: u64,
    },
    Over,
}

impl Attempt {
    pub(super) const fn new(direct: Direct, deadline: Duration) -> Self {
        Self {
            direct,
            deadline,
            asked_holders: false,
            searched: false,
            most: 0,
            replacements: 0,
            chosen: BTreeSet::new(),
            choosing: 0,
            writing: BTreeSet::new(),
            asked: BTreeSet::new(),
            room_wait: ROOM_WAIT,
            ask_wait: ASK_WAIT,
        }
    }

    /// Whether copies are being written, or about to be, or the receipt of the recipient is awaited.
    pub(super) fn is_busy(&self) -> bool {
        let awaits_receipt = matches!(self.direct, Direct::Asking(_)) && !self.asked_holders;
        awaits_receipt || self.is_writing()
    }

    /// Whether the copy for the recipient is being written, and holders have not been asked yet.
    pub(super) const fn is_writing_direct(&self) -> bool {
        matches!(self.direct, Direct::Running) && !self.asked_holders
    }

    pub(super) const fn has_written_direct(&self) -> bool {
        matches!(self.direct, Direct::Asking(_) | Direct::Written { .. })
    }

    /// Whether copies are being written, or about to be.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing_direct() || self.choosing > 0 || !self.writing.is_empty()
    }

    /// Whether nothing more is waited for.
    pub(super) fn is_over(&self) -> bool {
        let over = match self.direct {
            Direct::Written { .. } => true,
            // With all holders answered, the recipient is not waited for: its late answer counts too.
            Direct::Running | Direct::Asking(_) | Direct::Over => self.asked_holders,
        };
        over && self.choosing == 0 && self.writing.is_empty() && self.asked.is_empty()
    }

    /// Answers whether the recipient may be searched for: once in an attempt.
    pub(super) const fn begin_search(&mut self) -> bool {
        !std::mem::replace(&mut self.searched, true)
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
    pub(super) fn ask_again(&mut self, written: Duration, for_holders: bool, now: Now) -> Duration {
        let wait = self.ask_wait;
        self.ask_wait = (wait * 2).min(MAX_ASK_WAIT);
        if !for_holders && !self.asked_holders {
            let limit = written.saturating_add(DECISION_WAIT);
            self.deadline = now.at.saturating_add(RECEIPT_WAIT + wait).min(limit);
        }
        wait
    }

    pub(super) fn wait_for_holders(&mut self, now: Now) {
        self.deadline = now.at.saturating_add(HOLDERS_WAIT);
    }

    /// The first copies for holders: for so many nodes, none of them among `except`.
    pub(super) fn send_to_first_holders(
        &mut self,
        most: usize,
        except: [&BTreeSet<NodeId>; 2],
    ) -> SendingAction {
        (self.most, self.replacements) = (most, most);
        self.send_to_holders(most, except)
    }

    /// Copies for so many nodes that were not chosen yet.
    pub(super) fn send_to_holders(
        &mut self,
        most: usize,
        [holders, refused]: [&BTreeSet<NodeId>; 2],
    ) -> SendingAction {
        self.choosing += 1;
        let except = holders.iter().chain(refused).chain(&self.chosen);
        let except: BTreeSet<_> = except.copied().collect();
        SendingAction::SendToHolders {
            most,
            except: except.into_iter().collect(),
        }
    }

    pub(super) fn choose(&mut self, holders: Vec<NodeId>, now: Now) {
        self.choosing = self.choosing.saturating_sub(1);
        if !holders.is_empty() {
            self.wait_for_holders(now);
        }
        self.writing.extend(&holders);
        self.chosen.extend(holders);
    }

    /// How many of the first holders were not found.
    pub(super) fn lacking(&self) -> usize {
        self.most.saturating_sub(self.chosen.len())
    }

    pub(super) const fn chosen(&self) -> &BTreeSet<NodeId> {
        &self.chosen
    }

    /// The copy for a holder is written, and the holder asked.
    pub(super) fn ask_holder(&mut self, holder: NodeId) {
        if self.end_copy(&holder) {
            self.asked.insert(holder);
        }
    }

    pub(super) fn is_writing_to(&self, holder: &NodeId) -> bool {
        self.writing.contains(holder)
    }

    /// The copy for a holder is written, or cannot be; answers whether it was waited for.
    pub(super) fn end_copy(&mut self, holder: &NodeId) -> bool {
        self.writing.remove(holder)
    }

    /// A holder has answered; answers whether it was waited for. Without a question, its copy is written nevertheless.
    pub(super) fn end_question(&mut self, holder: &NodeId) -> bool {
        self.asked.remove(holder) || self.end_copy(holder)
    }

    /// Holders that have neither answered nor failed are waited for no longer.
    pub(super) fn give_up_silent(&mut self) -> BTreeSet<NodeId> {
        let mut silent = std::mem::take(&mut self.asked);
        silent.append(&mut self.writing);
        silent
    }

    /// The next closest nodes take the place of so many holders, if not too many were replaced.
    pub(super) fn replace_holders(
        &mut self,
        many: usize,
        except: [&BTreeSet<NodeId>; 2],
    ) -> Option<SendingAction> {
        let most = many.min(self.replacements);
        self.replacements -= most;
        (most > 0).then(|| self.send_to_holders(most, except))
    }
}
