//! The messages of the outbox that have not ended, or of which answers are under way: when each is looked at next, and which
//! are in memory.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use dht_core::{DedupHash, NodeId, PublicKey, UnixSeconds};
use dht_spool::{Entry, EntryId, SendState};
use tokio::sync::watch;

use super::{
    event::SendingAction,
    reachability::{ByReachability, Reachability, ReachabilityTracker},
    retry_queue::{RETRYING, RetryQueue},
    sealed::SealedFrame,
    send_budget::SendPermit,
    sending::Sending,
};

/// Bounded by the rows of the spool. Performs no I/O and reads no clock.
#[derive(Debug)]
pub(super) struct Messages {
    all: HashMap<EntryId, Tracked>,
    timers: BTreeSet<(Duration, EntryId)>,
    expiry: BTreeSet<(UnixSeconds, EntryId)>,
    recipients: HashMap<NodeId, BTreeSet<EntryId>>,
    /// Messages of which no copy has left.
    queued: BTreeSet<EntryId>,
    retry_queues: ByReachability<RetryQueue>,
    reachability: Arc<ReachabilityTracker>,
    /// Messages that a stop should wait for.
    busy: watch::Sender<usize>,
}

/// A message of the outbox.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) sending: Sending,
    pub(super) recipient: PublicKey,
    pub(super) bytes: usize,
    expires_at: UnixSeconds,
    timer: Option<Duration>,
    load: Load,
    /// Actions once the frame is in memory again, each in this attempt.
    deferred: Vec<(u64, SendingAction)>,
    /// Known once the frame has been in memory. Receipts of a copy that was written late are asked for by it.
    pub(super) hash: Option<DedupHash>,
    /// Answers that actions of the worker are to bring.
    pub(super) answers: usize,
    /// Whether the spool has written down that it ended.
    pub(super) is_written: bool,
}

/// Whether the frame is in memory.
#[derive(Debug)]
pub(super) enum Load {
    OnDisk,
    /// Waits for its turn, or is being read.
    Wanted,
    Held {
        sealed: SealedFrame,
        _permit: SendPermit,
    },
}

impl Messages {
    pub(super) fn new(busy: watch::Sender<usize>, reachability: Arc<ReachabilityTracker>) -> Self {
        Self {
            all: HashMap::new(),
            timers: BTreeSet::new(),
            expiry: BTreeSet::new(),
            recipients: HashMap::new(),
            queued: BTreeSet::new(),
            retry_queues: ByReachability::default(),
            reachability,
            busy,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Messages that are still tried.
    pub(super) fn tried(&self) -> usize {
        let all = self.all.values();
        all.filter(|tracked| !tracked.sending.is_complete()).count()
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.all.contains_key(&id)
    }

    /// Messages for this recipient.
    pub(super) fn of(&self, recipient: &NodeId) -> Vec<EntryId> {
        let ids = self.recipients.get(recipient);
        ids.map_or_else(Vec::new, |ids| ids.iter().copied().collect())
    }

    /// Messages of which no copy has left.
    pub(super) fn queued(&self) -> Vec<EntryId> {
        self.queued.iter().copied().collect()
    }

    pub(super) fn get(&self, id: EntryId) -> Option<&Tracked> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: EntryId) -> Option<&mut Tracked> {
        self.all.get_mut(&id)
    }

    /// The frame of a message, if it is in memory.
    pub(super) fn held(&self, id: EntryId) -> Option<&SealedFrame> {
        match &self.all.get(&id)?.load {
            Load::Held { sealed, .. } => Some(sealed),
            _ => None,
        }
    }

    /// Adds a message that is on disk, or held and about to begin.
    pub(super) fn insert(&mut self, entry: &Entry, mut sending: Sending, load: Load) {
        if let Load::Held { sealed, .. } = &load {
            sending.note_body(sealed.body_bytes);
        }
        self.expiry.insert((entry.expires_at, entry.id));
        let recipient = self.recipients.entry(*sending.recipient());
        recipient.or_default().insert(entry.id);
        if *sending.state() == SendState::Queued {
            self.queued.insert(entry.id);
        }
        let tracked = Tracked {
            sending,
            recipient: entry.recipient,
            bytes: usize::try_from(entry.payload_bytes).unwrap_or(usize::MAX),
            expires_at: entry.expires_at,
            timer: None,
            hash: match &load {
                Load::Held { sealed, .. } => Some(sealed.hash),
                _ => None,
            },
            load,
            deferred: Vec::new(),
            answers: 0,
            is_written: false,
        };
        let is_begun = !matches!(tracked.load, Load::OnDisk);
        self.all.insert(entry.id, tracked);
        if !is_begun {
            self.refresh(entry.id);
        }
    }

    /// Changes the state of a message; `None` if there is none.
    pub(super) fn change<T>(
        &mut self,
        id: EntryId,
        change: impl FnOnce(&mut Sending) -> T,
    ) -> Option<T> {
        let sending = &mut self.all.get_mut(&id)?.sending;
        let was_busy = sending.is_busy();
        let was_writing = sending.is_writing_direct();
        let value = change(sending);
        let written = match sending.is_writing_direct() {
            false if was_writing => sending.has_written_direct(),
            _ => None,
        };
        let recipient = *sending.recipient();
        match (was_busy, sending.is_busy()) {
            (false, true) => self.busy.send_modify(|busy| *busy += 1),
            (true, false) => self.busy.send_modify(|busy| *busy -= 1),
            _ => {}
        }
        if sending.is_ended() || *sending.state() != SendState::Queued {
            self.queued.remove(&id);
        }
        if let Some(is_written) = written {
            self.reachability.note(&recipient, is_written);
            self.promote(&recipient);
        }
        Some(value)
    }

    /// The messages of a recipient that takes copies now wait among those of others that do.
    pub(super) fn promote(&mut self, recipient: &NodeId) {
        if self.reachability.of(recipient) == Reachability::Reachable {
            for id in self.retry_queues.unreachable.take(recipient) {
                self.retry_queues.reachable.push(*recipient, id);
            }
        }
    }

    fn wait_for_turn(&mut self, recipient: &NodeId, id: EntryId) {
        let reachability = self.reachability.of(recipient);
        self.retry_queues.of_mut(reachability).push(*recipient, id);
    }

    fn end_turn(&mut self, id: EntryId) {
        self.retry_queues.reachable.end(id);
        self.retry_queues.unreachable.end(id);
    }

    /// Brings timer and memory in step with the state of a message.
    pub(super) fn refresh(&mut self, id: EntryId) {
        let Some(tracked) = self.all.get_mut(&id) else {
            return;
        };
        if !tracked.sending.is_writing() && matches!(tracked.load, Load::Held { .. }) {
            tracked.load = Load::OnDisk;
            self.retry_queues.reachable.end(id);
            self.retry_queues.unreachable.end(id);
        }
        let timer = match tracked.load {
            // It will be tried anyway.
            Load::Wanted => None,
            _ => tracked.sending.deadline(),
        };
        if timer != tracked.timer {
            if let Some(at) = tracked.timer.take() {
                self.timers.remove(&(at, id));
            }
            tracked.timer = timer;
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
        }
    }

    pub(super) fn remove(&mut self, id: EntryId) {
        self.change(id, |sending| sending.end(sending.state().clone()));
        self.refresh(id);
        // Now and then, so that what has ended does not pile up behind a recipient that cannot be reached.
        for queue in [
            &mut self.retry_queues.reachable,
            &mut self.retry_queues.unreachable,
        ] {
            if queue.len() > 2 * self.all.len() + RETRYING {
                queue.retain(|id| self.all.contains_key(&id));
            }
        }
        if let Some(tracked) = self.all.remove(&id) {
            self.expiry.remove(&(tracked.expires_at, id));
            let recipient = tracked.sending.recipient();
            if let Some(ids) = self.recipients.get_mut(recipient) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.recipients.remove(recipient);
                    self.reachability.forget(recipient);
                }
            }
        }
    }

    /// When the first timer fires.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Messages under way whose deadline is over. Those whose next attempt is due are read first, when their turn comes.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<EntryId> {
        let mut over = Vec::new();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(tracked) = self.all.get_mut(&id) else {
                continue;
            };
            tracked.timer = None;
            if !tracked.sending.is_waiting() {
                over.push(id);
            } else if matches!(tracked.load, Load::OnDisk) {
                tracked.load = Load::Wanted;
                let recipient = *tracked.sending.recipient();
                self.wait_for_turn(&recipient, id);
            }
        }
        over
    }

    /// Messages whose time to live is over, if they may end. Of those that have ended before, that end is written down.
    pub(super) fn take_expired(
        &mut self,
        now: UnixSeconds,
        may_end: impl Fn(EntryId) -> bool,
    ) -> Vec<EntryId> {
        let over = self.expiry.iter().take_while(|(at, _)| *at < now);
        let over: Vec<_> = over.filter(|(_, id)| may_end(*id)).copied().collect();
        let mut expired = Vec::new();
        for (at, id) in over {
            self.expiry.remove(&(at, id));
            let tracked = self.all.get(&id);
            if tracked.is_some_and(|tracked| tracked.sending.ending().is_none()) {
                expired.push(id);
            }
        }
        expired
    }

    /// Reads the frame of a message once more, in its turn, for something that its attempt still does.
    pub(super) fn defer(&mut self, id: EntryId, action: SendingAction) {
        let Some(tracked) = self.all.get_mut(&id) else {
            return;
        };
        tracked.deferred.push((tracked.sending.number(), action));
        if matches!(tracked.load, Load::OnDisk) {
            tracked.load = Load::Wanted;
            let recipient = *tracked.sending.recipient();
            self.wait_for_turn(&recipient, id);
        }
    }

    /// Actions deferred until the frame of a message was read; none if its attempt is over.
    pub(super) fn take_deferred(&mut self, id: EntryId) -> Vec<SendingAction> {
        let Some(tracked) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        let sending = &tracked.sending;
        let attempt = sending.is_trying().then_some(sending.number());
        let deferred = std::mem::take(&mut tracked.deferred).into_iter();
        let of_attempt = deferred.filter(|(number, _)| Some(*number) == attempt);
        of_attempt.map(|(_, action)| action).collect()
    }

    /// Whether the next attempt may begin.
    pub(super) fn is_due(&self, id: EntryId, now: Duration) -> bool {
        self.all.get(&id).is_some_and(|tracked| {
            let deadline = tracked.sending.deadline();
            tracked.sending.is_waiting() && deadline.is_some_and(|at| at <= now)
        })
    }

    /// The next message to be read, if one more may be tried again.
    pub(super) fn next_to_read(&mut self) -> Option<EntryId> {
        loop {
            let begun = self.retry_queues.reachable.begin();
            let id = begun.or_else(|| self.retry_queues.unreachable.begin())?;
            if self.all.contains_key(&id) {
                return Some(id);
            }
            self.end_turn(id);
        }
    }

    /// A message was read, or cannot be.
    pub(super) fn has_read(
        &mut self,
        id: EntryId,
        sealed: Option<SealedFrame>,
        permit: SendPermit,
    ) {
        match (self.all.get_mut(&id), sealed) {
            (Some(tracked), Some(sealed)) => {
                tracked.hash = Some(sealed.hash);
                tracked.sending.note_body(sealed.body_bytes);
                tracked.load = Load::Held {
                    sealed,
                    _permit: permit,
                };
            }
            (Some(tracked), None) => {
                tracked.load = Load::OnDisk;
                self.end_turn(id);
            }
            (None, _) => self.end_turn(id),
        }
    }
}

#[cfg(test)]
mod tests;
