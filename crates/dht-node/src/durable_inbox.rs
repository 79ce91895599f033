//! The durable inbox of a node with a home.

use std::{
    collections::VecDeque,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dht_core::{Clock as _, DedupHash, Deliverer, Disposition, DropReason, SharedClock};
use dht_inbound::Delivered;
use dht_peers::Directory;
use dht_spool::{
    Arrival, DEFAULT_CONSUMER, Inbox, InboxConfig, Inserted, Limit, NewRow, Row, RowId, SpoolError,
    Ticket,
};
use dht_stack::off_thread;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    context::NodeContext,
    events::{Event, Events},
    expiry_clock::ExpiryClock,
    home::Home,
    received::Received,
};

/// File of the inbox within a home.
const FILE: &str = "inbox.redb";
/// How often rows past retention leave.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is looked whether rows have left.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two warnings that the inbox refuses messages.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// Time until rows that could not be read are read again.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Acks of one reader that are not durable yet.
const MAX_ACKS: usize = 64;

/// The file in which a node with this home holds received messages until applications have acked them.
#[must_use]
pub fn inbox_file(home: &Path) -> PathBuf {
    home.join(FILE)
}

/// The durable inbox and what it reports to. Clones share it.
#[derive(Clone)]
pub(crate) struct DurableInbox {
    pub(crate) inbox: Inbox,
    /// The inbox is not this node's alone, and stays open.
    outlives: bool,
    directory: Directory,
    clock: SharedClock,
    expiry: Arc<ExpiryClock>,
    events: Events,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl DurableInbox {
    /// Opens the inbox of a home, which is made if it is not there.
    pub(crate) async fn open(
        home: &Home,
        config: InboxConfig,
        shared: &NodeContext,
    ) -> Result<Self, SpoolError> {
        let clock = Arc::clone(&shared.clock);
        let inbox = match home {
            Home::Memory(memory) => memory.inbox.clone(),
            Home::Folder(folder) => {
                let (folder, now) = (folder.clone(), clock.now());
                let opening = off_thread(true, move || {
                    fs::create_dir_all(&folder)?;
                    Inbox::open(inbox_file(&folder), config, now)
                });
                opening.await.unwrap_or(Err(SpoolError::Closed))?
            }
        };
        Ok(Self {
            inbox,
            outlives: home.memory().is_some(),
            directory: shared.directory.clone(),
            clock,
            expiry: Arc::clone(&shared.expiry),
            events: shared.events.clone(),
            warned: Arc::default(),
        })
    }

    /// Inserts a message of this node to itself; whether the inbox has it.
    pub(crate) async fn deliver_own(&self, received: Received, hash: DedupHash) -> bool {
        let own = received.sender.as_ref();
        let inserted = self.inbox.insert(NewRow {
            received_at: self.clock.now(),
            deliverer: own.map_or(Deliverer::from_bytes([0; 32]), Deliverer::from),
            origin: received.sender,
            origin_is_proven: true,
            message_type: received.message.message_type,
            payload: received.message.payload,
            via: received.via,
            arrival: Arrival::Live,
            hash,
        });
        match inserted.await {
            Ok(_) => true,
            Err(error) => {
                self.refuse(error);
                false
            }
        }
    }

    /// Inserts a message, and holds its memory until that is durable. The insertion is queued by this call.
    pub(crate) fn deliver(
        &self,
        delivered: Delivered,
    ) -> impl Future<Output = Disposition> + Send + use<> {
        let message =
            Received::from_parts(&delivered.parts, delivered.origin, delivered.source.node_id);
        let ticket = message.map(
            |Received {
                 sender,
                 via,
                 message,
             }| {
                let origin_is_proven = sender.is_some_and(|origin| {
                    let known = || self.directory.find_by_key(&origin);
                    origin == delivered.source.public_key
                        || known().is_some_and(|known| known.is_proven())
                });
                self.inbox.insert(NewRow {
                    received_at: self.clock.now(),
                    origin: sender,
                    origin_is_proven,
                    message_type: message.message_type,
                    payload: message.payload,
                    via,
                    deliverer: Deliverer::from(&*delivered.source),
                    arrival: match delivered.is_saf {
                        true => Arrival::Stored,
                        false => Arrival::Live,
                    },
                    hash: delivered.hash,
                })
            },
        );
        let (durable, permit) = (self.clone(), delivered.permit);
        async move {
            let Some(ticket) = ticket else {
                return Disposition::Dropped(DropReason::Refused);
            };
            let inserted = ticket.await;
            drop(permit);
            match inserted {
                Ok(Inserted::New(_)) => Disposition::Delivered,
                Ok(Inserted::AlreadyPresent) => Disposition::Dropped(DropReason::Duplicate),
                // No copy will ever fit.
                Err(SpoolError::TooLarge { .. }) => Disposition::Dropped(DropReason::Refused),
                Err(error) => {
                    let reason = match error {
                        SpoolError::Full => DropReason::InboxFull,
                        SpoolError::ShareFull => DropReason::InboxShareFull,
                        _ => DropReason::InboxFailed,
                    };
                    durable.refuse(error);
                    Disposition::Dropped(reason)
                }
            }
        }
    }

    /// Publishes an event, at most every ten seconds.
    fn refuse(&self, error: SpoolError) {
        let now = Instant::now();
        {
            let mut warned = self.warned.lock();
            if warned.is_some_and(|last| now.duration_since(last) < WARN_INTERVAL) {
                return;
            }
            *warned = Some(now);
        }
        tracing::warn!(%error, "the inbox refuses messages; nodes that store them keep them");
        self.events.publish(|| Event::InboxRefused(error));
    }

    /// Removes rows past retention while the clock is believed, for ever.
    pub(crate) async fn expire(self) {
        let mut ticks = interval(EXPIRE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.expiry.is_believed() {
                continue;
            }
            match self.inbox.expire(self.clock.now()).await {
                Ok(expiry) if expiry.expired > 0 => {
                    tracing::warn!(
                        messages = expiry.expired,
                        "unread messages were too old and left the inbox"
                    );
                }
                Ok(_) => {}
                Err(error) => self.refuse(error),
            }
        }
    }

    /// Says that there is room again whenever rows have left, for ever.
    pub(crate) async fn watch_room(self, room_made: impl Fn() + Send) {
        let mut ticks = interval(ROOM_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut departed = self.inbox.departed();
        loop {
            ticks.tick().await;
            let now = self.inbox.departed();
            if departed != now {
                departed = now;
                room_made();
            }
        }
    }

    /// Commits what is queued and closes the file.
    pub(crate) async fn close(&self) {
        if !self.outlives {
            let inbox = self.inbox.clone();
            // It fails only if the runtime shuts down, which closes the file too.
            let _ = off_thread(inbox.blocks(), move || inbox.close()).await;
        }
    }

    /// A reader for the default consumer, from its oldest row on.
    pub(crate) fn reader(&self, stopped: watch::Receiver<bool>) -> Reader {
        Reader {
            newest: self.inbox.newest(),
            inbox: self.inbox.clone(),
            clock: Arc::clone(&self.clock),
            stopped,
            rows: VecDeque::new(),
            after: 0,
            last: None,
            acks: FuturesUnordered::new(),
        }
    }
}

/// Reads the inbox for the default consumer, and acks what was taken.
pub(crate) struct Reader {
    inbox: Inbox,
    clock: SharedClock,
    newest: watch::Receiver<RowId>,
    stopped: watch::Receiver<bool>,
    /// Read and not returned.
    rows: VecDeque<Row>,
    /// The newest row that was read.
    after: RowId,
    /// Returned and not taken.
    last: Option<RowId>,
    acks: FuturesUnordered<Ticket<()>>,
}

impl Reader {
    pub(crate) async fn recv(&mut self) -> Option<Received> {
        self.take();
        while self.acks.len() > MAX_ACKS {
            self.acked().await;
        }
        loop {
            while self.acks.next().now_or_never().flatten().is_some() {}
            if let Some(Row { id, message }) = self.rows.pop_front() {
                self.last = Some(id);
                return Some(Received {
                    sender: message.origin,
                    via: message.via,
                    message: dht_core::Message {
                        message_type: message.message_type,
                        payload: message.payload,
                    },
                });
            }
            self.newest.borrow_and_update();
            let (inbox, after) = (self.inbox.clone(), self.after);
            let reading = off_thread(inbox.blocks(), move || {
                inbox.read(DEFAULT_CONSUMER, Some(after), Limit::default())
            });
            match reading.await.unwrap_or(Err(SpoolError::Closed)) {
                Ok(rows) => self.rows = rows.into(),
                // A damaged file ends the node.
                Err(SpoolError::Closed | SpoolError::Damaged) => return None,
                Err(error) => {
                    tracing::warn!(%error, "the inbox cannot be read; it is tried again in a second");
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(READ_WAIT) => continue,
                        _ = self.stopped.wait_for(|stopped| *stopped) => return None,
                    }
                }
            }
            if let Some(newest) = self.rows.back() {
                self.after = newest.id;
                continue;
            }
            tokio::select! {
                biased;
                changed = self.newest.changed() => changed.ok()?,
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            }
        }
    }

    /// Takes the last message, and waits until every ack is durable.
    pub(crate) async fn ack(&mut self) {
        self.take();
        while !self.acks.is_empty() {
            self.acked().await;
        }
    }

    fn take(&mut self) {
        if let Some(id) = self.last.take() {
            let now = self.clock.now();
            self.acks.push(self.inbox.ack(DEFAULT_CONSUMER, id, now));
        }
    }

    async fn acked(&mut self) {
        if let Some(Err(error)) = self.acks.next().await {
            tracing::warn!(%error, "a message that was taken may come again");
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{
        ManualClock,
        test_util::{NOW, identity},
    };
    use tokio::time::sleep;

    use super::*;

    /// A machine starts with a clock a month ahead, and its time is put right in between.
    #[tokio::test(start_paused = true)]
    async fn clock_ahead_removes_no_row() {
        let clock = Arc::new(ManualClock::new(NOW));
        let inbox = Inbox::in_memory(InboxConfig::default());
        let row = NewRow {
            received_at: NOW,
            origin: None,
            origin_is_proven: false,
            message_type: 1,
            payload: "unread".into(),
            via: *identity(0).node_id(),
            deliverer: Deliverer::from_bytes([1; 32]),
            arrival: Arrival::Live,
            hash: DedupHash([1; 32]),
        };
        inbox.insert(row).await.unwrap();
        clock.advance(31 * 86_400);
        let durable = DurableInbox {
            inbox: inbox.clone(),
            outlives: true,
            directory: Directory::new(*identity(0).node_id()),
            clock: Arc::clone(&clock) as _,
            expiry: Arc::new(ExpiryClock::new(Arc::clone(&clock) as _)),
            events: Events::new(),
            warned: Arc::default(),
        };
        let _expiring = tokio::spawn(durable.expire());
        for minute in 0..20 {
            sleep(Duration::from_secs(60)).await;
            clock.advance(60);
            if minute == 5 {
                clock.set(NOW);
            }
            assert_eq!(inbox.stats().rows, 1, "{minute}");
        }
        clock.advance(31 * 86_400);
        for minute in 0..14 {
            assert!(minute > 9 || inbox.stats().rows == 1);
            sleep(Duration::from_secs(60)).await;
            clock.advance(60);
        }
        assert_eq!(inbox.stats().rows, 0, "a clock that is believed ends it");
    }
}
