//! The queue of requests to the writer, bounded in bytes; each request has a [`Ticket`].

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dht_core::UnixSeconds;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use crate::{
    error::StoreError,
    record::{Inserted, NewRecord, Position, Recipient, RowId},
};

/// The answer to a request that waits for its commit.
///
/// A future; [`Ticket::wait`] blocks instead. Dropping it gives up the answer, not the request.
#[derive(Debug)]
pub struct Ticket<T> {
    answer: oneshot::Receiver<Result<T, StoreError>>,
    queue: Arc<Queue>,
}

/// Where the writer puts the answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One request.
#[derive(Debug)]
pub(super) enum Command {
    Insert {
        record: Box<NewRecord>,
        now: UnixSeconds,
        reply: Reply<Inserted>,
    },
    Delete {
        rows: Vec<RowId>,
        owner: Option<Recipient>,
        reply: Reply<u64>,
    },
    /// A removal of any number of rows, in steps.
    Remove {
        rows: Rows,
        reply: Reply<u64>,
    },
    Checkpoint {
        reply: Reply<()>,
    },
}

/// Rows that a [`Command::Remove`] takes out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows {
    /// Rows kept until before this second.
    Expired(UnixSeconds),
    /// Rows of a mailbox between two places, both included.
    Range(Recipient, Position, Position),
}

/// Granularity of the queue's bound, so that any bound in bytes is a number of semaphore permits.
const UNIT_BYTES: usize = 256;

/// The queue between callers and the writer, bounded in bytes.
#[derive(Debug)]
pub(super) struct Queue {
    room: Arc<Semaphore>,
    /// Permits of [`Queue::room`] when the queue is empty.
    units: u32,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Command, OwnedSemaphorePermit)>,
    woken: bool,
    closed: bool,
    /// The writer has ended without being told to.
    died: bool,
}

/// Requests returned by [`Queue::take`].
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) commands: Vec<(Command, OwnedSemaphorePermit)>,
    /// Nothing will come any more.
    pub(super) closed: bool,
}

// === impl Ticket ===

impl<T> Ticket<T> {
    /// Blocks this thread until the answer is there.
    ///
    /// # Errors
    /// As the request; [`StoreError::Closed`] or [`StoreError::WriterDied`] if the store ended first.
    ///
    /// # Panics
    /// Within an asynchronous task; await the ticket there.
    pub fn wait(self) -> Result<T, StoreError> {
        let answer = self.answer.blocking_recv();
        answer.unwrap_or_else(|_| Err(self.queue.ended()))
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.queue.ended())))
    }
}

// === impl Queue ===

impl Queue {
    /// A queue for `bytes` of requests, at least 256.
    pub(super) fn new(bytes: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let units = (bytes / UNIT_BYTES).clamp(1, most);
        Self {
            room: Arc::new(Semaphore::new(units)),
            units: units.try_into().unwrap_or(u32::MAX),
            state: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Adds a request as soon as there is room for it; the answer comes by ticket.
    pub(super) async fn send<T>(
        self: &Arc<Self>,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Ticket<T>, StoreError> {
        let (reply, ticket) = self.ticket();
        let command = command(reply);
        let room = Arc::clone(&self.room).acquire_many_owned(self.units_of(&command));
        let permit = room.await.map_err(|_| self.ended())?;
        self.push(command, permit)?;
        Ok(ticket)
    }

    /// Adds a request if there is room for it now; the answer comes by ticket.
    pub(super) fn try_send<T>(
        self: &Arc<Self>,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Ticket<T>, StoreError> {
        let (reply, ticket) = self.ticket();
        let command = command(reply);
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.units_of(&command));
        let permit = room.map_err(|error| match error {
            TryAcquireError::NoPermits => StoreError::Busy,
            TryAcquireError::Closed => self.ended(),
        })?;
        self.push(command, permit)?;
        Ok(ticket)
    }

    /// Whether requests are taken.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::WriterDied`].
    pub(super) fn health(&self) -> Result<(), StoreError> {
        let state = self.state.lock();
        if state.died {
            Err(StoreError::WriterDied)
        } else if state.closed {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    /// Why a request is not answered. A request that is dropped while the store is open was dropped by a
    /// panic.
    fn ended(&self) -> StoreError {
        self.health().err().unwrap_or(StoreError::WriterDied)
    }

    fn ticket<T>(self: &Arc<Self>) -> (Reply<T>, Ticket<T>) {
        let (reply, answer) = oneshot::channel();
        let queue = Arc::clone(self);
        (reply, Ticket { answer, queue })
    }

    /// A request larger than the queue takes all of it.
    fn units_of(&self, command: &Command) -> u32 {
        let units = command.size().div_ceil(UNIT_BYTES).max(1);
        u32::try_from(units).unwrap_or(u32::MAX).min(self.units)
    }

    /// Adds a request; the permit is its share of the queue and given back when it is done.
    fn push(&self, command: Command, permit: OwnedSemaphorePermit) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Err(self.ended());
        }
        state.waiting.push_back((command, permit));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets [`Queue::take`] return although nothing came.
    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.arrived.notify_one();
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    /// Refuses requests from now on.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Refuses requests from now on, also those that wait. `died` says that the writer was not told to end.
    pub(super) fn abandon(&self, died: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.died = died;
        state.waiting.clear();
        self.room.close();
    }

    /// Takes what is waiting, up to these bounds; waits for something for at most `patience`, `None` for ever.
    pub(super) fn take(&self, rows: usize, bytes: usize, patience: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && !state.closed && !state.woken {
            match patience {
                Some(Duration::ZERO) => {}
                Some(patience) => {
                    self.arrived.wait_for(&mut state, patience);
                }
                None => self.arrived.wait(&mut state),
            }
        }
        state.woken = false;
        let mut commands = Vec::with_capacity(state.waiting.len().min(rows));
        let mut taken = 0_usize;
        while commands.len() < rows && taken < bytes {
            let Some((command, permit)) = state.waiting.pop_front() else {
                break;
            };
            taken = taken.saturating_add(command.size());
            commands.push((command, permit));
        }
        Taken {
            closed: state.closed && state.waiting.is_empty(),
            commands,
        }
    }
}

impl Command {
    /// An insertion, as soon as it is known where its answer goes.
    pub(super) fn insert(
        record: NewRecord,
        now: UnixSeconds,
    ) -> impl FnOnce(Reply<Inserted>) -> Self {
        let record = Box::new(record);
        move |reply| Self::Insert { record, now, reply }
    }

    /// Bytes it holds, roughly.
    pub(super) fn size(&self) -> usize {
        const ITSELF: usize = 512;
        let content = match self {
            Self::Insert { record, .. } => record.header.len().saturating_add(record.body.len()),
            Self::Delete { rows, .. } => rows.len().saturating_mul(8),
            Self::Remove { .. } | Self::Checkpoint { .. } => 0,
        };
        content.saturating_add(ITSELF)
    }
}
