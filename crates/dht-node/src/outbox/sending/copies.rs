//! Steps of an attempt with the copies of a message, and the answers of their receivers.

use std::{collections::VecDeque, time::Duration};

use dht_core::NodeId;
use dht_spool::{SendState, Transition};

use super::{
    LOST, Phase, Sending,
    attempt::{ASK_WAIT, Direct},
};
use crate::outbox::event::{Answer, CopyOutcome, Now, SendingAction};

/// Nodes that are remembered because they did not take a copy of the message.
const MAX_REFUSED: usize = 64;

impl Sending {
    pub(super) fn on_direct(
        &mut self,
        copy: CopyOutcome,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        self.is_direct_in_flight = false;
        if matches!(copy, CopyOutcome::Written | CopyOutcome::Unconfirmed(_)) {
            self.has_sent();
        }
        if copy == CopyOutcome::Written {
            self.has_written(now);
        }
        let Phase::Trying(attempt) = &mut self.phase else {
            // The attempt is over. The copy is on its way nevertheless.
            if copy == CopyOutcome::Written {
                actions.push_back(SendingAction::Ask(self.recipient, ASK_WAIT));
            }
            return;
        };
        match copy {
            CopyOutcome::Written => {
                self.retries.take_return();
                attempt.ask_recipient(now);
                actions.push_back(SendingAction::Ask(self.recipient, Duration::ZERO));
            }
            CopyOutcome::Unconfirmed(connection) => {
                self.retries.take_return();
                attempt.direct = Direct::Written {
                    at: now.at,
                    connection,
                };
                self.finish_if_over(now, actions);
            }
            CopyOutcome::NoRoom if attempt.is_writing_direct() => {
                self.is_direct_in_flight = true;
                actions.push_back(SendingAction::SendDirect(attempt.next_room_wait()));
            }
            // Holders have been asked.
            CopyOutcome::NoRoom => {
                attempt.direct = Direct::Over;
                self.finish_if_over(now, actions);
            }
            CopyOutcome::Unknown if attempt.begin_search() => {
                actions.push_back(SendingAction::Find)
            }
            CopyOutcome::Unknown => {
                attempt.direct = Direct::Over;
                self.ask_holders(now, actions);
            }
            CopyOutcome::Lost => {
                attempt.direct = Direct::Over;
                self.has_lost(LOST);
                self.ask_holders(now, actions);
            }
            CopyOutcome::Failed(error) => {
                self.last_error = Some(error);
                attempt.direct = Direct::Over;
                self.ask_holders(now, actions);
            }
        }
    }

    pub(super) fn on_found(
        &mut self,
        outcome: Result<(), String>,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        match outcome {
            Ok(()) if attempt.is_writing_direct() => {
                self.is_direct_in_flight = true;
                actions.push_back(SendingAction::SendDirect(Duration::ZERO));
            }
            // The next attempt sends it.
            Ok(()) => {
                attempt.direct = Direct::Over;
                self.retries.note_return();
                self.finish_if_over(now, actions);
            }
            Err(error) => {
                attempt.direct = Direct::Over;
                self.has_failed_somehow(&error);
                self.ask_holders(now, actions);
            }
        }
    }

    pub(super) fn on_recipients_answer(
        &mut self,
        answer: Answer,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        let (recipient, for_holders) = (self.recipient, self.is_for_holders());
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
                let wait = attempt.ask_again(written, for_holders, now);
                actions.push_back(SendingAction::Ask(recipient, wait));
            }
            Answer::Silent | Answer::Received => {
                attempt.direct = Direct::Over;
                self.last_error = Some("the recipient gave no receipt".to_owned());
                self.ask_holders(now, actions);
            }
        }
    }

    /// Once in an attempt. With nothing to ask for the attempt may be over.
    pub(super) fn ask_holders(&mut self, now: Now, actions: &mut VecDeque<SendingAction>) {
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
            if let Some(bytes) = self.too_large
                && !self.direct_only
                && most > 0
            {
                self.note_too_large(bytes);
                actions.push_back(SendingAction::Search);
            } else if !self.direct_only && most > 0 {
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                let except = [&self.holders, &self.refused];
                actions.push_back(attempt.send_to_first_holders(most, except));
                actions.push_back(SendingAction::Search);
            }
        }
        self.finish_if_over(now, actions);
    }

    pub(super) fn on_chosen(
        &mut self,
        holders: Vec<NodeId>,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
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
            if attempt.chosen().is_empty() {
                self.has_failed_somehow("no node is known that could store the message");
            }
            self.finish_if_over(now, actions);
        }
    }

    pub(super) fn on_holder(
        &mut self,
        holder: NodeId,
        copy: CopyOutcome,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        if let CopyOutcome::Unconfirmed(_) = copy {
            self.has_sent();
        }
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        match copy {
            CopyOutcome::Written => {
                attempt.ask_holder(holder);
                actions.push_back(SendingAction::Ask(holder, Duration::ZERO));
            }
            CopyOutcome::NoRoom if attempt.is_writing_to(&holder) => {
                actions.push_back(SendingAction::SendAgain(holder, attempt.next_room_wait()));
            }
            CopyOutcome::NoRoom | CopyOutcome::Unknown => {}
            CopyOutcome::Unconfirmed(_) => {
                attempt.end_copy(&holder);
                self.finish_if_over(now, actions);
            }
            CopyOutcome::Failed(_) | CopyOutcome::Lost => {
                let error = match copy {
                    CopyOutcome::Failed(error) => format!("holder {holder} got no copy: {error}"),
                    _ => format!("holder {holder} hung up before it stored the message"),
                };
                if attempt.end_copy(&holder) {
                    not_stored(&mut self.last_error, &error);
                    self.refused.insert(holder);
                    let except = [&self.holders, &self.refused];
                    actions.extend(attempt.replace_holders(1, except));
                }
                self.finish_if_over(now, actions);
            }
        }
    }

    pub(super) fn on_holders_answer(
        &mut self,
        holder: NodeId,
        answer: Answer,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        // With any other answer, as far as is known, no copy is anywhere: only the recipient can have received it.
        let is_stored = answer == Answer::Stored;
        if is_stored {
            self.add_holder(holder, actions);
        }
        if let Phase::Trying(attempt) = &mut self.phase {
            let is_awaited = attempt.end_question(&holder);
            if is_awaited && !is_stored {
                let error = match answer {
                    Answer::Silent => "did not say whether it stores the message",
                    _ => "refused to store the message",
                };
                not_stored(&mut self.last_error, &format!("holder {holder} {error}"));
                self.refused.insert(holder);
                let except = [&self.holders, &self.refused];
                actions.extend(attempt.replace_holders(1, except));
            }
            self.finish_if_over(now, actions);
        }
    }

    pub(super) fn add_holder(&mut self, holder: NodeId, actions: &mut VecDeque<SendingAction>) {
        if !self.is_complete() && self.holders.insert(holder) {
            let is_first = self.stored() == 0;
            let known = self.holders.len().max(self.stored());
            let holders = u32::try_from(known).unwrap_or(u32::MAX);
            self.state = SendState::Stored { holders };
            // The end of the attempt writes down how many they are.
            if is_first || !self.is_trying() {
                actions.push_back(SendingAction::Persist(Transition::Confirmed { holders }));
            }
        }
    }

    /// The holders' time is over: others take the place of those that have not answered.
    pub(super) fn give_up_silent_holders(
        &mut self,
        now: Now,
        actions: &mut VecDeque<SendingAction>,
    ) {
        let Phase::Trying(attempt) = &mut self.phase else {
            return;
        };
        let silent = attempt.give_up_silent();
        let many = silent.len();
        if let Some(holder) = silent.first() {
            let error = format!("holder {holder} did not say whether it stores the message");
            not_stored(&mut self.last_error, &error);
        }
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
}

/// Says why a holder stores no copy, the last one of several, beside what became of the copy for the recipient.
fn not_stored(last_error: &mut Option<String>, error: &str) {
    let before = last_error.take().unwrap_or_default();
    let direct = match before.find("; holder ") {
        Some(end) => before.get(..end).unwrap_or_default(),
        None if before.starts_with("holder ") => "",
        None => &before,
    };
    *last_error = Some(match direct {
        "" => error.to_owned(),
        direct => format!("{direct}; {error}"),
    });
}
