//! Messages that the application withdraws. Each caller is told once the spool has it.

use dht_spool::{EntryId, SendState, SpoolError, Transition};

use super::OutboxWorker;
use crate::outbox::Withdrawal;

/// Reason of a message that the application has withdrawn.
const WITHDRAWN: &str = "withdrawn";

impl OutboxWorker {
    pub(super) fn withdraw(&mut self, id: EntryId, answers: Vec<Withdrawal>) {
        if answers.is_empty() {
            return;
        }
        let tracked = self.messages.get(id);
        let can_be_withdrawn = tracked.is_some_and(|tracked| tracked.sending.can_be_withdrawn());
        let is_unwritten = tracked
            .is_some_and(|tracked| !tracked.is_written && is_withdrawn(tracked.sending.state()));
        if !can_be_withdrawn && !is_unwritten {
            return tell_all(answers, Ok(false));
        }
        self.withdrawing.entry(id).or_default().extend(answers);
        if can_be_withdrawn {
            self.fail(id, WITHDRAWN);
        } else if self.unwritten.remove(&id) {
            // It could not be written before.
            let reason = WITHDRAWN.to_owned();
            self.persist(id, Transition::Failed { reason });
        }
    }
}

pub(super) fn is_withdrawn(state: &SendState) -> bool {
    matches!(state, SendState::Failed { reason } if reason == WITHDRAWN)
}

pub(super) fn tell_all(callers: Vec<Withdrawal>, answer: Result<bool, SpoolError>) {
    for caller in callers {
        caller.send_replace(Some(answer.clone()));
    }
}
