//! What is done for one message until it has arrived, or is given up. Performs no I/O and reads no clock.
//!
//! An attempt sends a copy to the recipient. Without a receipt in time, copies also go to the nodes closest to it, which
//! store it. An attempt that leaves something to do is followed by another, at growing intervals, when the recipient
//! connects, or when any peer does and no copy has left yet.

mod attempt;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use dht_core::{NodeId, UnixSeconds};
use dht_spool::{Entry, SendState, Transition};

use self::attempt::{ASK_WAIT, Attempt, Direct};
use super::event::{Action, Answer, Copy, Event, Now};

/// Time for a copy to be written to a recipient that is connected.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Time to find, dial and write to a recipient that is not connected.
pub(super) const REACH_WAIT: Duration = Duration::from_secs(3);
/// Time after a copy in which the end of the connection puts the copy in doubt, if the peer sends no receipts.
pub(super) const DOUBT: Duration = Duration::from_secs(30);
/// Shortest time between two attempts that the recipient causes by connecting.
const APPEARANCE_GAP: Duration = Duration::from_secs(5);
/// Time until the second attempt; it doubles with each further one up to [`MAX_RETRY_WAIT`].
const RETRY_WAIT: Duration = Duration::from_secs(5);
const MAX_RETRY_WAIT: Duration = Duration::from_secs(15 * 60);
/// Time until a message that could not be read is read again.
const READ_WAIT: Duration = Duration::from_secs(60);
/// Nodes that are remembered because they did not take a copy of the message.
const MAX_REFUSED: usize = 64;

/// One message on its way.
#[derive(Debug)]
pub(super) struct Sending {
    recipient: NodeId,
    local: bool,
    direct_only: bool,
    /// Holders that are to confirm a copy.
    wanted: usize,
    state: SendState,
    /// Holders that confirmed a copy in this life of the node.
    holders: BTreeSet<NodeId>,
    /// Nodes that could not be reached, did not store the message, or did not answer. They get a copy again once no others are
    /// left, or there are [`MAX_REFUSED`].
    refused: BTreeSet<NodeId>,
    attempts: u32,
    last_error: Option<String>,
    phase: Phase,
    last_attempt: Option<Duration>,
    /// Attempts in this life of the node.
    number: u64,
    /// Whether the recipient, which gives no receipts, ended the connection right after the last copy.
    lost: bool,
    /// Whether the recipient connected while holders were asked.
    returned: bool,
}

#[derive(Debug)]
enum Phase {
    /// The next attempt begins at this time, or sooner if a peer appears.
    Waiting(Duration),
    /// It was sent to a peer without receipts. At this time it counts as sent for good.
    Doubt(Duration),
    /// The connection ended right after that. The attempt goes on at this time, with copies for holders.
    Lost(Duration),
    Trying(Attempt),
    /// It was sent or stored for good. Answers that are under way may still bring the recipient's receipt.
    Settled,
    Ended,
}

impl Sending {
    /// A message as its entry describes it; `wanted` holders are to store it unless the entry says how many.
    pub(super) fn new(entry: &Entry, me: &NodeId, wanted: usize, now: Now) -> Self {
        let recipient = entry.recipient.node_id();
        let next = entry.next_attempt.map(|next| {
            let wait = next.0.saturating_sub(now.unix.0);
            now.at.saturating_add(Duration::from_secs(wait))
        });
        Self {
            recipient,
            local: recipient == *me,
            direct_only: entry.options.direct_only,
            wanted: entry.options.replicas.map_or(wanted, usize::from),
            state: entry.state.clone(),
            holders: BTreeSet::new(),
            refused: BTreeSet::new(),
            attempts: entry.attempts.min(16),
            last_error: entry.last_error.clone(),
            phase: match (entry.ended_at, next) {
                (Some(_), _) => Phase::Ended,
                (None, Some(next)) => Phase::Waiting(next),
                (None, None) => Phase::Settled,
            },
            last_attempt: None,
            number: 0,
            lost: false,
            returned: false,
        }
    }

    /// Whether no attempt before this one was made.
    pub(super) const fn is_first_attempt(&self) -> bool {
        self.attempts <= 1
    }

    /// The attempt that actions belong to and that answers to them name.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn recipient(&self) -> &NodeId {
        &self.recipient
    }

    pub(super) const fn state(&self) -> &SendState {
        &self.state
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(super) const fn is_trying(&self) -> bool {
        matches!(self.phase, Phase::Trying(_))
    }

    /// Whether the copy for the recipient is being written or its receipt is awaited.
    pub(super) const fn is_reaching_recipient(&self) -> bool {
        match &self.phase {
            Phase::Trying(attempt) => attempt.is_reaching_recipient(),
            _ => false,
        }
    }

    /// Whether a copy for the recipient is being written, and nothing else is done meanwhile.
    pub(super) const fn is_writing_direct(&self) -> bool {
        match &self.phase {
            Phase::Trying(attempt) => attempt.is_writing_direct(),
            _ => false,
        }
    }

    /// Whether the copy for the recipient was written, once it is not being written any more; `None` if the message was given
    /// up meanwhile.
    pub(super) fn has_written_direct(&self) -> Option<bool> {
        match &self.phase {
            Phase::Trying(attempt) => Some(attempt.has_written_direct()),
            Phase::Doubt(_) => Some(true),
            Phase::Ended => (self.state == SendState::Received).then_some(true),
            Phase::Waiting(_) | Phase::Lost(_) | Phase::Settled => Some(false),
        }
    }

    /// Whether copies are being written: only then the frame is in memory. No receipt is waited for with it.
    pub(super) fn is_writing(&self) -> bool {
        match &self.phase {
            Phase::Trying(attempt) => attempt.is_writing(),
            _ => false,
        }
    }

    /// Whether the recipient took a copy a while ago, and gives no receipts.
    pub(super) const fn is_unconfirmed(&self) -> bool {
        match &self.phase {
            Phase::Doubt(_) => true,
            Phase::Trying(attempt) => matches!(attempt.direct, Direct::Written(_)),
            _ => false,
        }
    }

    /// Whether [`Event::Start`] is waited for.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Lost(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether nothing is planned any more: only a receipt of the recipient may change the state.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled | Phase::Ended)
    }

    /// Whether the application may still withdraw it: holders that store it will deliver it.
    pub(super) const fn can_be_withdrawn(&self) -> bool {
        matches!(self.state, SendState::Queued | SendState::Sent) && !self.is_settled()
    }

    /// When [`Event::Tick`] is due; for a message that is waiting, when [`Event::Start`] is.
    pub(super) const fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Waiting(at) | Phase::Doubt(at) | Phase::Lost(at) => Some(*at),
            Phase::Trying(attempt) => Some(attempt.deadline),
            Phase::Settled | Phase::Ended => None,
        }
    }

    /// Nothing more is done for the message.
    pub(super) fn end(&mut self, state: SendState) {
        if state.kind() >= self.state.kind() {
            self.state = state;
        }
        self.phase = Phase::Ended;
    }

    /// What is to be written down of a message that is settled; `None` if it is not, or the end of its time to live did it.
    pub(super) fn ending(&self) -> Option<Transition> {
        let retry_at = None;
        match (&self.state, &self.phase) {
            (SendState::Received, _) => Some(Transition::Received),
            (SendState::Failed { reason }, _) => Some(Transition::Failed {
                reason: reason.clone(),
            }),
            (SendState::Stored { holders }, Phase::Settled) => Some(Transition::Stored {
                holders: *holders,
                retry_at,
            }),
            (_, Phase::Settled) => Some(Transition::Sent { retry_at }),
            _ => None,
        }
    }

    /// The time to live is over. What was stored, or sent for good, stays so.
    pub(super) fn expire(&mut self) {
        let is_open = match self.state {
            SendState::Queued => true,
            SendState::Sent => !self.is_settled(),
            _ => false,
        };
        self.end(if is_open {
            SendState::Expired
        } else {
            self.state.clone()
        });
    }

    /// Applies an event; answers what is to be done.
    pub(super) fn handle(&mut self, event: Event, now: Now) -> VecDeque<Action> {
        let mut actions = VecDeque::new();
        match event {
            _ if self.is_ended() => {}
            Event::Start { connected } => self.start(connected, now, &mut actions),
            Event::Local(true) => self.receive(&mut actions),
            Event::Local(false) => {
                let error = "neither an application nor the inbox of this node takes the message";
                self.last_error = Some(error.to_owned());
                self.finish(now, &mut actions);
            }
            Event::Direct(copy) => self.on_direct(copy, now, &mut actions),
            Event::Chosen(holders) => self.on_chosen(holders, now, &mut actions),
            Event::Holder(holder, copy) => self.on_holder(holder, copy, now, &mut actions),
            Event::Receipt(from, Answer::Received) if from == self.recipient => {
                self.receive(&mut actions);
            }
            Event::Receipt(from, answer) if from == self.recipient => {
                self.on_recipients_answer(answer, now, &mut actions);
            }
            Event::Receipt(holder, answer) => {
                self.on_holders_answer(holder, answer, now, &mut actions);
            }
            Event::ConnectionEnded => self.on_connection_ended(now, &mut actions),
            Event::Appeared { recipient } => self.on_appeared(recipient, now),
            Event::Tick => self.on_tick(now, &mut actions),
        }
        actions
    }

    /// Applies the answer to an action of an earlier attempt: what it tells of the message counts, the attempt under way
    /// goes on.
    pub(super) fn handle_late(&mut self, event: Event, now: Now) -> VecDeque<Action> {
        let mut actions = VecDeque::new();
        match event {
            _ if self.is_ended() => {}
            Event::Direct(Copy::Written { receipts }) => {
                self.has_sent();
                if receipts {
                    actions.push_back(Action::Ask(self.recipient, ASK_WAIT));
                }
            }
            Event::Holder(_, Copy::Written { .. }) => self.has_sent(),
            Event::Receipt(from, Answer::Received) if from == self.recipient => {
                self.receive(&mut actions);
            }
            Event::Receipt(holder, Answer::Stored) if holder != self.recipient => {
                self.add_holder(holder, now, &mut actions);
            }
            _ => {}
        }
        actions
    }

    /// The message cannot be read from the spool now.
    pub(super) fn postpone(&mut self, now: Now) {
        let later = now.at.saturating_add(READ_WAIT);
        match &mut self.phase {
            Phase::Waiting(at) | Phase::Lost(at) => *at = later,
            _ => {}
        }
    }

    fn start(&mut self, connected: bool, now: Now, actions: &mut VecDeque<Action>) {
        if self.is_trying() || self.is_settled() {
            return;
        }
        self.number += 1;
        let goes_on = matches!(self.phase, Phase::Lost(_));
        let wait = if connected { WRITE_WAIT } else { REACH_WAIT };
        let direct = if goes_on {
            Direct::Over
        } else {
            Direct::Running
        };
        self.phase = Phase::Trying(Attempt::new(direct, now.at.saturating_add(wait)));
        if goes_on {
            self.ask_holders(now, actions);
            return;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.last_attempt = Some(now.at);
        self.lost = false;
        actions.push_back(if self.local {
            Action::DeliverLocally
        } else {
            Action::SendDirect(Duration::ZERO)
        });
    }

    fn receive(&mut self, actions: &mut VecDeque<Action>) {
        self.state = SendState::Received;
        self.phase = Phase::Ended;
        actions.push_back(Action::Persist(Transition::Received));
    }

    fn has_sent(&mut self) {
        if self.state == SendState::Queued {
            self.state = SendState::Sent;
        }
    }

    fn on_direct(&mut self, copy: Copy, now: Now, actions: &mut VecDeque<Action>) {
        if matches!(copy, Copy::Written { .. } | Copy::Lost) {
            self.has_sent();
        }
        let Phase::Trying(attempt) = &mut self.phase else {
            // The attempt is over. The copy is on its way nevertheless.
            if let Copy::Written { receipts: true } = copy {
                actions.push_back(Action::Ask(self.recipient, ASK_WAIT));
            }
            return;
        };
        match copy {
            Copy::Written { receipts: true } => {
                self.returned = false;
                attempt.ask_recipient(now);
                actions.push_back(Action::Ask(self.recipient, Duration::ZERO));
            }
            Copy::Written { receipts: false } => {
                self.returned = false;
                attempt.direct = Direct::Written(now.at);
                self.finish_if_over(now, actions);
            }
            Copy::NoRoom => actions.push_back(Action::SendDirect(attempt.next_room_wait())),
            Copy::Lost => {
                attempt.direct = Direct::Over;
                self.has_lost();
                self.ask_holders(now, actions);
            }
            Copy::Failed(error) => {
                self.last_error = Some(error);
                attempt.direct = Direct::Over;
                self.ask_holders(now, actions);
            }
        }
    }

    fn on_recipients_answer(&mut self, answer: Answer, now: Now, actions: &mut VecDeque<Action>) {
        let recipient = self.recipient;
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        let Direct::Asking(written) = attempt.direct else {
            return;
        };
        match answer {
            // It is alive: the message may still be on its way through it. Holders get copies all the same, once the
            // time for a receipt is over: it may be that no application takes the message.
            Answer::Neither | Answer::Stored => {
                let wait = attempt.ask_again(written, self.direct_only, now);
                actions.push_back(Action::Ask(recipient, wait));
            }
            Answer::Silent | Answer::Received => {
                attempt.direct = Direct::Over;
                self.last_error = Some("the recipient gave no receipt".to_owned());
                self.ask_holders(now, actions);
            }
        }
    }

    /// Once in an attempt. With nothing to ask for the attempt may be over.
    fn ask_holders(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        let stored = self.stored();
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        if !attempt.asked_holders {
            attempt.asked_holders = true;
            attempt.wait_for_holders(now);
            // Those of an earlier life are not known by name: they may get the copy again, and confirm it again.
            let most = match self.wanted.checked_sub(stored) {
                None | Some(0) => 0,
                Some(_) => self.wanted.saturating_sub(self.holders.len()),
            };
            if !self.direct_only && most > 0 {
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                let except = [&self.holders, &self.refused];
                actions.push_back(attempt.send_to_first_holders(most, except));
                actions.push_back(Action::Search);
            }
        }
        self.finish_if_over(now, actions);
    }

    fn on_chosen(&mut self, holders: Vec<NodeId>, now: Now, actions: &mut VecDeque<Action>) {
        if let Phase::Trying(attempt) = &mut self.phase {
            let found_none = holders.is_empty();
            attempt.choose(holders, now);
            let lacking = attempt.lacking();
            if found_none || lacking > 0 {
                // No others are left.
                let refused = std::mem::take(&mut self.refused);
                if lacking > 0 && !refused.is_subset(attempt.chosen()) {
                    let except = [&self.holders, &self.refused];
                    actions.push_back(attempt.send_to_holders(lacking, except));
                    return;
                }
            }
            if attempt.chosen().is_empty() && self.last_error.is_none() {
                self.last_error = Some("no node is known that could store the message".to_owned());
            }
            self.finish_if_over(now, actions);
        }
    }

    fn on_holder(&mut self, holder: NodeId, copy: Copy, now: Now, actions: &mut VecDeque<Action>) {
        if matches!(copy, Copy::Written { .. }) {
            self.has_sent();
        }
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        match copy {
            Copy::Written { receipts: true } => {
                attempt.ask_holder(holder);
                actions.push_back(Action::Ask(holder, Duration::ZERO));
            }
            Copy::NoRoom if attempt.is_writing_to(&holder) => {
                actions.push_back(Action::SendAgain(holder, attempt.next_room_wait()));
            }
            Copy::NoRoom => {}
            Copy::Written { receipts: false } => {
                attempt.end_copy(&holder);
                self.finish_if_over(now, actions);
            }
            Copy::Failed(_) | Copy::Lost => {
                if attempt.end_copy(&holder) {
                    self.refused.insert(holder);
                    let except = [&self.holders, &self.refused];
                    actions.extend(attempt.replace_holders(1, except));
                }
                self.finish_if_over(now, actions);
            }
        }
    }

    fn on_holders_answer(
        &mut self,
        holder: NodeId,
        answer: Answer,
        now: Now,
        actions: &mut VecDeque<Action>,
    ) {
        if answer == Answer::Stored {
            self.add_holder(holder, now, actions);
        }
        if let Phase::Trying(attempt) = &mut self.phase {
            let is_awaited = attempt.end_question(&holder);
            if is_awaited && matches!(answer, Answer::Neither | Answer::Silent) {
                self.refused.insert(holder);
                let except = [&self.holders, &self.refused];
                actions.extend(attempt.replace_holders(1, except));
            }
            self.finish_if_over(now, actions);
        }
    }

    fn add_holder(&mut self, holder: NodeId, now: Now, actions: &mut VecDeque<Action>) {
        if !self.is_settled() && self.holders.insert(holder) {
            let known = self.holders.len().max(self.stored());
            let holders = u32::try_from(known).unwrap_or(u32::MAX);
            self.state = SendState::Stored { holders };
            if !self.is_trying() {
                let retry_at = self.deadline().map(|next| wall(now, next));
                let transition = Transition::Stored { holders, retry_at };
                actions.push_back(Action::Persist(transition));
            }
        }
    }

    fn on_connection_ended(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        match &mut self.phase {
            Phase::Doubt(_) => {
                // The copy may have died in the socket.
                self.phase = Phase::Lost(now.at);
                self.has_lost();
            }
            Phase::Trying(attempt) if matches!(attempt.direct, Direct::Asking(_)) => {
                attempt.direct = Direct::Over;
                self.ask_holders(now, actions);
            }
            // Holders have been asked, and still answer.
            Phase::Trying(attempt) if matches!(attempt.direct, Direct::Written(_)) => {
                attempt.direct = Direct::Over;
                self.has_lost();
            }
            _ => {}
        }
    }

    fn has_lost(&mut self) {
        self.lost = true;
        self.last_error = Some("the connection ended right after the copy".to_owned());
    }

    fn on_appeared(&mut self, recipient: bool, now: Now) {
        if let Phase::Trying(attempt) = &self.phase {
            self.returned |= recipient && attempt.asked_holders;
        }
        let concerned = recipient || self.state == SendState::Queued;
        if let Phase::Waiting(next) = &mut self.phase
            && concerned
        {
            let gap = if recipient && self.lost {
                // A peer that takes a copy, hangs up and comes back causes no attempts of its own.
                retry_wait(self.attempts)
            } else if recipient {
                APPEARANCE_GAP
            } else {
                // Strangers that come and go cause no more than a few attempts between two planned ones.
                APPEARANCE_GAP.max(retry_wait(self.attempts) / 8)
            };
            let soonest = match self.last_attempt {
                Some(last) => last.saturating_add(gap).max(now.at),
                None => now.at,
            };
            *next = soonest.min(*next);
        }
    }

    fn on_tick(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        match &mut self.phase {
            Phase::Doubt(until) if *until <= now.at => {
                self.settle(actions);
            }
            Phase::Trying(attempt) if attempt.deadline <= now.at => {
                if self.local {
                    self.finish(now, actions);
                } else if attempt.asked_holders {
                    self.give_up_silent_holders(now, actions);
                } else {
                    if attempt.direct == Direct::Running {
                        let error = "no copy reached the recipient in time";
                        self.last_error.get_or_insert_with(|| error.to_owned());
                    }
                    self.ask_holders(now, actions);
                }
            }
            _ => {}
        }
    }

    /// The holders' time is over: others take the place of those that have not answered.
    fn give_up_silent_holders(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        let silent = attempt.give_up_silent();
        let many = silent.len();
        self.refused.extend(silent);
        let except = [&self.holders, &self.refused];
        match attempt.replace_holders(many, except) {
            Some(copies) => {
                attempt.wait_for_holders(now);
                actions.push_back(copies);
            }
            None => self.finish(now, actions),
        }
    }

    fn finish_if_over(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        let Phase::Trying(attempt) = &self.phase else {
            return;
        };
        if attempt.is_over() {
            self.finish(now, actions);
        }
    }

    /// The attempt is over: plans the next one, if anything is left to do.
    fn finish(&mut self, now: Now, actions: &mut VecDeque<Action>) {
        let Phase::Trying(attempt) = &self.phase else {
            return;
        };
        let next = now.at.saturating_add(retry_wait(self.attempts));
        let mut retry_at = wall(now, next);
        let stored = self.stored();
        match (&self.state, attempt.direct) {
            (SendState::Stored { .. }, _) if stored >= self.wanted => {
                return self.settle(actions);
            }
            (_, Direct::Written(at)) => {
                let until = at.saturating_add(DOUBT);
                retry_at = wall(now, until);
                self.phase = Phase::Doubt(until);
            }
            _ => self.phase = Phase::Waiting(next),
        }
        let transition = match &self.state {
            SendState::Queued => Transition::Retry {
                at: retry_at,
                error: self.last_error.clone().unwrap_or_default(),
            },
            SendState::Stored { holders } => Transition::Stored {
                holders: *holders,
                retry_at: Some(retry_at),
            },
            _ => Transition::Sent {
                retry_at: Some(retry_at),
            },
        };
        actions.push_back(Action::Persist(transition));
        if std::mem::take(&mut self.returned) {
            self.on_appeared(true, now);
        }
    }

    /// It is sent or stored for good: nothing more is planned.
    fn settle(&mut self, actions: &mut VecDeque<Action>) {
        self.phase = Phase::Settled;
        actions.extend(self.ending().map(Action::Persist));
    }

    fn stored(&self) -> usize {
        match &self.state {
            SendState::Stored { holders } => usize::try_from(*holders).unwrap_or(usize::MAX),
            _ => 0,
        }
    }
}

/// The wait before the attempt after this many.
fn retry_wait(attempts: u32) -> Duration {
    let doubled = 1_u32 << attempts.saturating_sub(1).min(16);
    (RETRY_WAIT * doubled).min(MAX_RETRY_WAIT)
}

fn wall(now: Now, at: Duration) -> UnixSeconds {
    let wait = at.saturating_sub(now.at);
    now.unix.saturating_add(wait.as_secs().saturating_add(1))
}

#[cfg(test)]
mod tests;
