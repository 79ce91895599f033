//! Entries and frames that are read from the spool: at the start, when a caller asks for one, and before a message is tried again.

use std::sync::Arc;

use dht_spool::{Entry, EntryFilter, EntryId, SpoolError};
use dht_stack::off_thread;

use super::{Done, OutboxWorker, withdrawal::tell_all};
use crate::outbox::{
    event::SendingEvent, messages::Load, sealed::SealedFrame, send_budget::SendPermit,
    sending::Sending, stored::Stored,
};

/// Entries read at once when the node starts.
const PAGE: usize = 1_000;

impl OutboxWorker {
    /// Reads the entries above `after`.
    pub(super) fn list(&mut self, after: Option<EntryId>) {
        self.listings.begin();
        let spool = self.shared.spool.clone();
        self.spawn(async move {
            let blocks = spool.blocks();
            let list = move || spool.list(EntryFilter::default(), after, PAGE);
            let entries = off_thread(blocks, list).await;
            Done::Listed(entries.unwrap_or(Err(SpoolError::Closed)))
        });
    }

    pub(super) fn on_listed(&mut self, entries: Result<Vec<Entry>, SpoolError>) {
        match entries {
            Ok(entries) => {
                if let Some(last) = entries.last()
                    && entries.len() == PAGE
                {
                    self.list(Some(last.id));
                }
                self.take_up(&entries);
            }
            Err(error) => {
                tracing::error!(%error, "the outbox cannot be listed; it is tried again within a minute");
            }
        }
        self.end_listing();
    }

    pub(super) fn on_found(&mut self, id: EntryId, entry: Result<Option<Entry>, SpoolError>) {
        let answers = self.withdrawn.remove(&id).unwrap_or_default();
        match entry {
            Ok(entry) => {
                self.take_up(entry.iter());
                self.withdraw(id, answers);
            }
            Err(error) => {
                tracing::warn!(%error, id, "an entry of the outbox cannot be read");
                tell_all(answers, Err(error));
            }
        }
        self.end_listing();
    }

    fn end_listing(&mut self) {
        self.listings.end();
        self.listing.send_replace(());
    }

    /// Takes up the messages that are not known yet.
    fn take_up<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        for entry in entries {
            let is_known = self.messages.contains(entry.id) || self.listings.has_ended(entry.id);
            if entry.ended_at.is_none() && !is_known {
                drop(self.shared.watch(entry));
                self.track(entry, Load::OnDisk);
                if entry.expires_at < self.now().unix && self.may_expire(entry.id) {
                    // The next tick writes it down.
                    self.messages.change(entry.id, Sending::expire);
                    self.messages.refresh(entry.id);
                    continue;
                }
                // In files of earlier versions such an entry has not ended.
                let tracked = self.messages.get(entry.id);
                if let Some(ending) = tracked.and_then(|tracked| tracked.sending.ending()) {
                    self.persist(entry.id, ending);
                }
                // Its recipient may have connected before.
                let recipient = entry.recipient.node_id();
                if self.actions.is_connected(&recipient) {
                    self.handle(entry.id, SendingEvent::Appeared { recipient: true });
                }
            }
        }
    }

    /// Reads an entry that is not known.
    pub(super) fn find(&mut self, id: EntryId) {
        self.listings.begin();
        let spool = self.shared.spool.clone();
        self.spawn(async move {
            let entry = off_thread(spool.blocks(), move || spool.get(id)).await;
            Done::Found(id, entry.unwrap_or(Err(SpoolError::Closed)))
        });
    }

    /// Reads as many of the messages that are due as may be tried at one time.
    pub(super) fn read_ready(&mut self) {
        while let Some(id) = self.messages.next_to_read() {
            let Some(tracked) = self.messages.get(id) else {
                continue;
            };
            let (recipient, bytes) = (*tracked.sending.recipient(), tracked.bytes);
            let shared = Arc::clone(&self.shared);
            self.spawn(async move {
                let budget = shared.budgets.of(shared.reachability.of(&recipient));
                let permit = budget.acquire_bytes(&recipient, bytes).await;
                let spool = shared.spool.clone();
                let blocks = spool.blocks();
                let read = move || {
                    Stored::read(&spool, id, |entry, message| {
                        let (to, expires) = (&entry.recipient, entry.expires_at);
                        SealedFrame::seal(&shared.node, to, message, expires).ok()
                    })
                };
                let stored = off_thread(blocks, read).await;
                Done::Read(id, stored.unwrap_or(Err(SpoolError::Closed)), permit)
            });
        }
    }

    pub(super) fn on_read(
        &mut self,
        id: EntryId,
        stored: Result<Stored, SpoolError>,
        permit: SendPermit,
    ) {
        let sealed = match &stored {
            Ok(Stored::Frame(sealed)) => Some(sealed.clone()),
            _ => None,
        };
        self.messages.has_read(id, sealed, permit);
        match stored {
            Ok(Stored::Frame(_)) => self.resume(id),
            Ok(Stored::Nothing) | Err(SpoolError::Damaged) => {
                self.fail(id, "the stored message is damaged");
            }
            Ok(Stored::Ended(status)) => {
                self.tell(id, status);
                self.forget(id);
            }
            // It ended long ago.
            Err(SpoolError::UnknownId) => self.forget(id),
            Err(error) => {
                tracing::warn!(%error, id, "a message of the outbox cannot be read; it is tried again later");
                for _copies in self.messages.take_deferred(id) {
                    self.handle(id, SendingEvent::Chosen(Vec::new()));
                }
                let now = self.now();
                self.messages.change(id, |sending| sending.postpone(now));
                self.messages.refresh(id);
            }
        }
    }
}
