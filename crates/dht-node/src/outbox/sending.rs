//! State machine of one message until it has arrived, or is given up. Performs no I/O and reads no clock.
//!
//! An attempt sends a copy to the recipient. Without a receipt in time, copies also go to the nodes closest to it, which
//! store it. An attempt that leaves something to do is followed by another, at growing intervals, when the recipient
//! connects, or when any peer does and no copy has left yet.

mod attempt;
mod copies;
mod retries;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use dht_core::{NodeId, UnixSeconds};
use dht_proto::limits::MAX_STORED_BODY_BYTES;
use dht_spool::{Entry, SendState, Transition};

use self::{
    attempt::{Attempt, DECISION_WAIT, Direct},
    retries::Retries,
};
use super::event::{Answer, CopyOutcome, Now, SendingAction, SendingEvent};

/// Time for a copy to be written to a recipient that is connected.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Time to find, dial and write to a recipient that is not connected.
pub(super) const REACH_WAIT: Duration = Duration::from_secs(3);
/// Time after a copy in which the end of the connection puts the copy in doubt, if the peer sends no receipts. After it, the
/// connection is to show that it still works.
pub(super) const DOUBT: Duration = Duration::from_secs(30);
/// Time after which the connection counts as silent, if no ping ended before.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Time until a message that could not be read is read again.
const READ_WAIT: Duration = Duration::from_secs(60);
/// Time between two questions for the receipt of a message that ended while its recipient was about to answer.
const LATE_ASK_WAIT: Duration = Duration::from_millis(500);

/// Errors of a copy that a peer without receipts took, and that may have died in the socket.
const LOST: &str = "the connection ended right after the copy";
const SILENT: &str = "the connection that carried the copy is silent";

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
    /// left, or there are many.
    refused: BTreeSet<NodeId>,
    retries: Retries,
    /// Of an attempt in this life of the node.
    last_error: Option<String>,
    /// Last error of the lives before, if no attempt of this one has failed.
    earlier_error: Option<String>,
    phase: Phase,
    /// Attempts in this life of the node.
    number: u64,
    /// Whether a copy for the recipient is on its way to the socket, also since an earlier attempt. No other one is sent.
    is_direct_in_flight: bool,
    /// When the recipient, which took a copy and gives receipts, is no longer asked again if the message has ended otherwise.
    receipt_until: Duration,
    /// Bytes of the sealed body, if they are more than a holder stores.
    too_large: Option<usize>,
}

#[derive(Debug)]
enum Phase {
    /// The next attempt begins at this time, or sooner if a peer appears.
    Waiting(Duration),
    /// It was sent to a peer without receipts. It is sent for good if its connection answers a ping then.
    Doubt {
        /// When the ping is sent, or no answer is awaited any more.
        until: Duration,
        /// Id of the connection.
        connection: u64,
        pinged: bool,
    },
    /// The connection ended right after that, or is silent. The attempt goes on at this time, with copies for holders.
    Lost(Duration),
    Trying(Attempt),
    /// It was sent or stored for good. Answers that are under way may still bring the recipient's receipt.
    Complete,
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
            retries: Retries::new(entry.attempts),
            last_error: None,
            earlier_error: entry.last_error.clone(),
            phase: match (entry.ended_at, next) {
                (Some(_), _) => Phase::Ended,
                (None, Some(next)) => Phase::Waiting(next),
                (None, None) => Phase::Complete,
            },
            number: 0,
            is_direct_in_flight: false,
            receipt_until: Duration::ZERO,
            too_large: None,
        }
    }

    /// Whether no attempt before this one was made.
    pub(super) const fn is_first_attempt(&self) -> bool {
        self.retries.is_first()
    }

    /// The bytes of the sealed body, known once the frame has been in memory. One that no holder stores goes to the recipient only.
    pub(super) fn note_body(&mut self, bytes: usize) {
        self.too_large = (bytes > MAX_STORED_BODY_BYTES).then_some(bytes);
    }

    /// Whether holders may get copies.
    const fn is_for_holders(&self) -> bool {
        !self.direct_only && self.too_large.is_none()
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

    /// Whether copies are being written, or about to be, or the receipt of the recipient is awaited: a node that ends waits
    /// for that.
    pub(super) fn is_busy(&self) -> bool {
        match &self.phase {
            Phase::Trying(attempt) => attempt.is_busy(),
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
            Phase::Doubt { .. } => Some(true),
            Phase::Ended => (self.state == SendState::Received).then_some(true),
            Phase::Waiting(_) | Phase::Lost(_) | Phase::Complete => Some(false),
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
            Phase::Doubt { .. } => true,
            Phase::Trying(attempt) => matches!(attempt.direct, Direct::Written { .. }),
            _ => false,
        }
    }

    /// Whether [`SendingEvent::Start`] is waited for.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Lost(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether nothing is planned any more: only a receipt of the recipient may change the state.
    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Complete | Phase::Ended)
    }

    /// Whether the application may still withdraw it: holders that store it will deliver it.
    pub(super) const fn can_be_withdrawn(&self) -> bool {
        matches!(self.state, SendState::Queued | SendState::Sent) && !self.is_complete()
    }

    /// When [`SendingEvent::Tick`] is due; for a message that is waiting, when [`SendingEvent::Start`] is.
    pub(super) const fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Waiting(at) | Phase::Doubt { until: at, .. } | Phase::Lost(at) => Some(*at),
            Phase::Trying(attempt) => Some(attempt.deadline),
            Phase::Complete | Phase::Ended => None,
        }
    }

    /// Nothing more is done for the message.
    pub(super) fn end(&mut self, state: SendState) {
        if state.kind() >= self.state.kind() {
            self.state = state;
        }
        self.phase = Phase::Ended;
    }

    /// Transition to record for a message that is complete; `None` if it is not, or the end of its time to live did it.
    pub(super) fn ending(&self) -> Option<Transition> {
        let retry_at = None;
        match (&self.state, &self.phase) {
            (SendState::Received, _) => Some(Transition::Received),
            (SendState::Failed { reason }, _) => Some(Transition::Failed {
                reason: reason.clone(),
            }),
            (SendState::Stored { holders }, Phase::Complete) => Some(Transition::Stored {
                holders: *holders,
                retry_at,
            }),
            (_, Phase::Complete) => Some(Transition::Sent { retry_at }),
            _ => None,
        }
    }

    /// The time to live is over. What was stored, or sent for good, stays so.
    pub(super) fn expire(&mut self) {
        let is_open = match self.state {
            SendState::Queued => true,
            SendState::Sent => !self.is_complete(),
            _ => false,
        };
        self.end(if is_open {
            SendState::Expired
        } else {
            self.state.clone()
        });
    }

    /// Applies an event; answers what is to be done.
    pub(super) fn handle(&mut self, event: SendingEvent, now: Now) -> VecDeque<SendingAction> {
        let mut actions = VecDeque::new();
        match event {
            SendingEvent::Receipt(from, Answer::Received) if from == self.recipient => {
                self.receive(&mut actions);
            }
            _ if self.is_ended() => self.handle_ended(&event, now, &mut actions),
            SendingEvent::Start { connected } => self.start(connected, now, &mut actions),
            SendingEvent::Local(true) => self.receive(&mut actions),
            SendingEvent::Local(false) => {
                self.is_direct_in_flight = false;
                let error = "neither an application nor the inbox of this node takes the message";
                self.last_error = Some(error.to_owned());
                self.finish(now, &mut actions);
            }
            SendingEvent::Direct(copy) => self.on_direct(copy, now, &mut actions),
            SendingEvent::Found(outcome) => self.on_found(outcome, now, &mut actions),
            SendingEvent::Chosen(holders) => self.on_chosen(holders, now, &mut actions),
            SendingEvent::Holder(holder, copy) => self.on_holder(holder, copy, now, &mut actions),
            SendingEvent::Receipt(from, answer) if from == self.recipient => {
                self.on_recipients_answer(answer, now, &mut actions);
            }
            SendingEvent::Receipt(holder, answer) => {
                self.on_holders_answer(holder, answer, now, &mut actions);
            }
            SendingEvent::Answers(answers) => self.on_ping_ended(answers, now, &mut actions),
            SendingEvent::ConnectionEnded => self.on_connection_ended(now, &mut actions),
            SendingEvent::Appeared { recipient } => self.on_appeared(recipient, now),
            SendingEvent::Tick => self.on_tick(now, &mut actions),
            SendingEvent::Paced => self.on_paced(now),
        }
        actions
    }

    /// Applies the answer to an action of an earlier attempt: what it tells of the message counts, the attempt under way
    /// goes on.
    pub(super) fn handle_late(&mut self, event: SendingEvent, now: Now) -> VecDeque<SendingAction> {
        let mut actions = VecDeque::new();
        match event {
            SendingEvent::Receipt(from, Answer::Received) if from == self.recipient => {
                self.receive(&mut actions);
            }
            _ if self.is_ended() => self.handle_ended(&event, now, &mut actions),
            SendingEvent::Found(Ok(())) => self.on_appeared(true, now),
            SendingEvent::Holder(_, CopyOutcome::Unconfirmed(_)) => self.has_sent(),
            SendingEvent::Receipt(holder, Answer::Stored) if holder != self.recipient => {
                self.add_holder(holder, &mut actions);
            }
            _ => {}
        }
        actions
    }

    /// The message was withdrawn, or its time to live is over, while its recipient took a copy: the receipt, which may need a
    /// while, still counts.
    fn handle_ended(
        &mut self,
        event: &SendingEvent,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        match event {
            _ if self.state == SendState::Received => {}
            SendingEvent::Direct(CopyOutcome::Written) => {
                self.has_written(now);
                actions.push_back(SendingAction::Ask(self.recipient, Duration::ZERO));
            }
            SendingEvent::Receipt(from, Answer::Neither | Answer::Stored)
                if *from == self.recipient && now.at < self.receipt_until =>
            {
                actions.push_back(SendingAction::Ask(*from, LATE_ASK_WAIT));
            }
            _ => {}
        }
    }

    /// The message cannot be read from the spool now.
    pub(super) fn postpone(&mut self, now: Now) {
        let later = now.at.saturating_add(READ_WAIT);
        match &mut self.phase {
            Phase::Waiting(at) | Phase::Lost(at) => *at = later,
            _ => {}
        }
    }

    fn start(&mut self, connected: bool, now: Now, actions: &mut VecDeque<SendingAction>) {
        if self.is_trying() || self.is_complete() {
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
        self.retries.begin(now);
        if std::mem::replace(&mut self.is_direct_in_flight, true) {
            return;
        }
        actions.push_back(if self.local {
            SendingAction::DeliverLocally
        } else {
            SendingAction::SendDirect(Duration::ZERO)
        });
    }

    fn receive(&mut self, actions: &mut VecDeque<SendingAction>) {
        self.phase = Phase::Ended;
        if std::mem::replace(&mut self.state, SendState::Received) == SendState::Received {
            return;
        }
        actions.push_back(SendingAction::Persist(Transition::Received));
    }

    /// A copy for the recipient, which gives receipts, is written.
    const fn has_written(&mut self, now: Now) {
        self.receipt_until = now.at.saturating_add(DECISION_WAIT);
    }

    fn has_sent(&mut self) {
        if self.state == SendState::Queued {
            self.state = SendState::Sent;
        }
    }

    fn on_connection_ended(&mut self, now: Now, actions: &mut VecDeque<SendingAction>) {
        match &mut self.phase {
            Phase::Doubt { .. } => self.lose(LOST, now),
            Phase::Trying(attempt) if matches!(attempt.direct, Direct::Asking(_)) => {
                attempt.direct = Direct::Over;
                self.ask_holders(now, actions);
            }
            // Holders have been asked, and still answer.
            Phase::Trying(attempt) if matches!(attempt.direct, Direct::Written { .. }) => {
                attempt.direct = Direct::Over;
                self.has_lost(LOST);
            }
            _ => {}
        }
    }

    fn on_ping_ended(&mut self, answers: bool, now: Now, actions: &mut VecDeque<SendingAction>) {
        match self.phase {
            Phase::Doubt { .. } if answers => self.complete(actions),
            Phase::Doubt { .. } => self.lose(SILENT, now),
            _ => {}
        }
    }

    /// The copy may have died in the socket.
    fn lose(&mut self, error: &str, now: Now) {
        self.phase = Phase::Lost(now.at);
        self.has_lost(error);
    }

    fn has_lost(&mut self, error: &str) {
        self.retries.note_loss();
        self.last_error = Some(error.to_owned());
    }

    /// An attempt failed for a reason that says less than that of a failed dial or copy, which stays the last error.
    fn has_failed_somehow(&mut self, error: &str) {
        if self.last_error.is_none() {
            let earlier = self.earlier_error.take();
            self.last_error = Some(earlier.unwrap_or_else(|| error.to_owned()));
        }
    }

    /// The recipient cannot be reached, and nobody else would keep the message.
    fn note_too_large(&mut self, bytes: usize) {
        let too_large = too_large_for_holders(bytes);
        self.last_error = Some(match self.last_error.take() {
            Some(error) if error.starts_with(&too_large) => error,
            Some(error) => format!("{too_large}; {error}"),
            None => too_large,
        });
    }

    fn on_appeared(&mut self, recipient: bool, now: Now) {
        if let Phase::Trying(attempt) = &self.phase
            && recipient
            && attempt.asked_holders
        {
            self.retries.note_return();
        }
        let concerned = recipient || self.state == SendState::Queued;
        if let Phase::Waiting(next) = &mut self.phase
            && concerned
        {
            *next = self.retries.after_appearance(recipient, now).min(*next);
        }
    }

    fn on_tick(&mut self, now: Now, actions: &mut VecDeque<SendingAction>) {
        match &mut self.phase {
            Phase::Doubt { until, pinged, .. } if *until <= now.at && *pinged => {
                self.lose(SILENT, now);
            }
            Phase::Doubt {
                until,
                connection,
                pinged,
            } if *until <= now.at => {
                (*until, *pinged) = (now.at.saturating_add(ANSWER_WAIT), true);
                actions.push_back(SendingAction::Ping(*connection));
            }
            Phase::Trying(attempt) if attempt.deadline <= now.at => {
                if self.local {
                    self.finish(now, actions);
                } else if attempt.asked_holders {
                    self.give_up_silent_holders(now, actions);
                } else {
                    if attempt.direct == Direct::Running {
                        self.has_failed_somehow("no copy reached the recipient in time");
                    }
                    self.ask_holders(now, actions);
                }
            }
            _ => {}
        }
    }

    fn on_paced(&mut self, now: Now) {
        if let Phase::Trying(attempt) = &mut self.phase {
            attempt.deadline = now.at.saturating_add(WRITE_WAIT);
        }
    }

    fn finish_if_over(&mut self, now: Now, actions: &mut VecDeque<SendingAction>) {
        let Phase::Trying(attempt) = &self.phase else {
            return;
        };
        if attempt.is_over() {
            self.finish(now, actions);
        }
    }

    /// The attempt is over: plans the next one, if anything is left to do.
    fn finish(&mut self, now: Now, actions: &mut VecDeque<SendingAction>) {
        let Phase::Trying(attempt) = &self.phase else {
            return;
        };
        let next = self.retries.next(now);
        let mut retry_at = wall(now, next);
        let stored = self.stored();
        match (&self.state, attempt.direct) {
            (SendState::Stored { .. }, _) if stored >= self.wanted => {
                return self.complete(actions);
            }
            (_, Direct::Written { at, connection }) => {
                let until = at.saturating_add(DOUBT);
                retry_at = wall(now, until);
                self.phase = Phase::Doubt {
                    until,
                    connection,
                    pinged: false,
                };
            }
            _ => self.phase = Phase::Waiting(next),
        }
        let transition = match &self.state {
            SendState::Queued => Transition::Retry {
                at: retry_at,
                error: self.last_error.clone(),
            },
            SendState::Stored { holders } => Transition::Stored {
                holders: *holders,
                retry_at: Some(retry_at),
            },
            _ => Transition::Sent {
                retry_at: Some(retry_at),
            },
        };
        persist(transition, actions);
        if self.retries.take_return() {
            self.on_appeared(true, now);
        }
    }

    /// It is sent or stored for good: nothing more is planned.
    fn complete(&mut self, actions: &mut VecDeque<SendingAction>) {
        self.phase = Phase::Complete;
        if let Some(ending) = self.ending() {
            persist(ending, actions);
        }
    }

    fn stored(&self) -> usize {
        match &self.state {
            SendState::Stored { holders } => usize::try_from(*holders).unwrap_or(usize::MAX),
            _ => 0,
        }
    }
}

/// Error text of a message that no holder stores.
pub(super) fn too_large_for_holders(bytes: usize) -> String {
    format!("too large for holders: {bytes} bytes, at most {MAX_STORED_BODY_BYTES}")
}

/// Writes down the end of an attempt, which tells of holders, too.
fn persist(transition: Transition, actions: &mut VecDeque<SendingAction>) {
    actions
        .retain(|action| !matches!(action, SendingAction::Persist(Transition::Confirmed { .. })));
    actions.push_back(SendingAction::Persist(transition));
}

fn wall(now: Now, at: Duration) -> UnixSeconds {
    let wait = at.saturating_sub(now.at);
    now.unix.saturating_add(wait.as_secs().saturating_add(1))
}

#[cfg(test)]
mod tests;
