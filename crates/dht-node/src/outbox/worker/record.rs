//! Records of a message, and news for its callers: the end of a message only once the spool has it.

use dht_spool::{EntryId, SendState, SpoolError, Transition};
use dht_stack::off_thread;

use super::{
    Done, OutboxWorker,
    withdrawal::{is_withdrawn, tell_all},
};
use crate::outbox::delivery::DeliveryStatus;

impl OutboxWorker {
    /// Brings timer, memory and watchers in step with the state of a message.
    pub(super) fn refresh(&mut self, id: EntryId) {
        self.messages.refresh(id);
        if let Some(tracked) = self.messages.get(id) {
            self.update_status(id, |told| told.advance_unwritten(&tracked.sending));
        }
    }

    /// Tells what is written down of a message.
    pub(super) fn tell(&self, id: EntryId, written: DeliveryStatus) {
        self.update_status(id, |told| told.advance(written));
    }

    /// Tells the end of a message that could not be written down, if it claims nothing of the recipient or of holders.
    fn tell_unwritten(&self, id: EntryId) {
        if let Some(tracked) = self.messages.get(id)
            && let SendState::Failed { .. } | SendState::Expired = tracked.sending.state()
        {
            self.tell(id, DeliveryStatus::of(&tracked.sending));
        }
    }

    fn update_status(&self, id: EntryId, change: impl FnOnce(&mut DeliveryStatus) -> bool) {
        if let Some(status) = self.shared.live.lock().get(&id) {
            status.send_if_modified(change);
        }
    }

    /// Writes down how far a message got, as it is now.
    pub(super) fn persist(&mut self, id: EntryId, transition: Transition) {
        let Some(tracked) = self.messages.get_mut(id) else {
            return;
        };
        // A receipt may follow the end of a message that is stored for good.
        tracked.is_written &= !transition.is_end();
        let is_end = transition.is_end();
        let status = DeliveryStatus {
            is_complete: is_end,
            ..DeliveryStatus::of(&tracked.sending)
        };
        let (spool, now) = (self.shared.spool.clone(), self.now().unix);
        let update = spool.update(id, transition, now);
        self.shared.busy.send_modify(|busy| *busy += 1);
        self.spawn(async move {
            let outcome = match update.await {
                Ok(_) => Ok(status),
                // The end of its time to live was written before.
                Err(SpoolError::Ended | SpoolError::UnknownId) => {
                    let entry = off_thread(spool.blocks(), move || spool.get(id)).await;
                    let entry = entry.unwrap_or(Err(SpoolError::Closed));
                    entry.map(|entry| {
                        DeliveryStatus::ended(entry.map_or(status.state, |it| it.state))
                    })
                }
                Err(error) => Err(error),
            };
            Done::Persisted(id, is_end, outcome)
        });
    }

    /// Lets the spool end whatever is past its time to live, these among it.
    pub(super) fn expire(&self, ids: Vec<EntryId>) {
        let (spool, now) = (self.shared.spool.clone(), self.now().unix);
        let is_believed = self.actions.parts.node.expiry.is_believed();
        self.spawn(async move {
            // Each request ends a limited number.
            let outcome = loop {
                let expired = match is_believed {
                    true => spool.expire(now).await,
                    false => spool.expire_new(now).await,
                };
                match expired {
                    Ok(expiry) if expiry.expired + expiry.stored > 0 => {}
                    outcome => break outcome.map(|_| ()),
                }
            };
            Done::Expired(ids, outcome)
        });
    }

    pub(super) fn on_expired(&mut self, ids: Vec<EntryId>, outcome: Result<(), SpoolError>) {
        match outcome {
            Ok(()) => {
                for id in ids {
                    let Some(tracked) = self.messages.get_mut(id) else {
                        continue;
                    };
                    // A receipt that came meanwhile is told once it is written down.
                    if *tracked.sending.state() != SendState::Received {
                        tracked.is_written = true;
                        let ended = DeliveryStatus::of(&tracked.sending);
                        self.tell(id, ended);
                    }
                    self.forget_if_over(id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "expired messages were not written down; it is tried again within a minute");
                for id in ids {
                    self.tell_unwritten(id);
                    self.unwritten.insert(id);
                }
            }
        }
    }

    pub(super) fn on_persisted(
        &mut self,
        id: EntryId,
        is_end: bool,
        outcome: Result<DeliveryStatus, SpoolError>,
    ) {
        self.shared.busy.send_modify(|busy| *busy -= 1);
        let withdrawing = match is_end {
            true => self.withdrawing.remove(&id).unwrap_or_default(),
            false => Vec::new(),
        };
        match outcome {
            Ok(written) => {
                if let Some(tracked) = self.messages.get_mut(id) {
                    // A receipt may have followed what is written down by now.
                    let has_all = *tracked.sending.state() != SendState::Received
                        || written.state == SendState::Received;
                    tracked.is_written |= written.is_complete && has_all;
                }
                // It may have ended otherwise before.
                let is_withdrawn = is_withdrawn(&written.state);
                self.tell(id, written);
                tell_all(withdrawing, Ok(is_withdrawn));
                self.forget_if_over(id);
            }
            Err(error) => {
                // At worst it is sent again after a restart, and recognised.
                tracing::warn!(%error, id, "the state of a message was not written down");
                if is_end && self.messages.contains(id) {
                    self.tell_unwritten(id);
                    self.unwritten.insert(id);
                }
                tell_all(withdrawing, Err(error));
            }
        }
    }

    /// Forgets a message that was received once the spool has that; one that is complete or has ended otherwise after the
    /// answers that are under way, if no more messages are known than the spool may have: they may bring its receipt.
    pub(super) fn forget_if_over(&mut self, id: EntryId) {
        let Some(tracked) = self.messages.get(id) else {
            return;
        };
        let is_crowded = || self.messages.len() as u64 > self.shared.spool.config().max_rows;
        let sending = &tracked.sending;
        let is_over = *sending.state() == SendState::Received
            || sending.is_complete() && (tracked.answers == 0 || is_crowded());
        if tracked.is_written && is_over {
            self.forget(id);
        }
    }

    pub(super) fn forget(&mut self, id: EntryId) {
        self.listings.note_end(id);
        self.messages.remove(id);
        self.shared.live.lock().remove(&id);
    }
}
